"""Training queries with judgements, made from a user's own notes.

A heading, a telling phrase or a defined term is a query that the document it stems from must answer (a known item).
Nothing is drawn from a model: the same notes and the same seed always make the same queries.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmd_schema.artifacts import folder_written_atomically
from qmd_schema.errors import DataError
from qmd_search.collections import QRELS_HEADER, Document
from trainer.config import PrepareConfig
from trainer.dataset import EvalQuery
from trainer.known_items import ANSWERS, KINDS, Candidate, QueryKind, find_known_items
from trainer.markdown import read_notes
from trainer.similarity import SimilarityIndex, normalise

EXAMPLES_SHOWN = 5
COLLECTION_FILES = ("corpus.jsonl", "queries.jsonl", "qrels.tsv")
REPORT = "report.json"


@dataclass(frozen=True)
class Synthesis:
    """A collection with the queries that were made for it."""

    documents: Sequence[Document]
    queries: Sequence[Candidate]
    report: dict[str, Any]
    """What was made and what was left out, for people and as report.json."""


def synthesise(
    folder: Path, evaluation: Iterable[EvalQuery], config: PrepareConfig, per_document: int = 4, seed: int = 0
) -> Synthesis:
    """Makes at most `per_document` queries of each document of a folder: markdown files, or BEIR.

    evaluation: queries that none may resemble. Raises DataError where there is no document, or no query can be made.
    """
    documents = read_notes(folder)
    candidates = [
        candidate
        for document, found in find_known_items(documents)
        for candidate in _choose(document, found, per_document, seed)
    ]
    merged = _merge(candidates)
    leaks, known, queries = SimilarityIndex(query.text for query in evaluation), SimilarityIndex(), []
    dropped = Counter(
        {"the same as another": len(candidates) - len(merged), "nearly the same": 0, "like an evaluation query": 0}
    )
    for candidate in merged:
        if leaks.similar(candidate.text, config.near_duplicate):
            dropped["like an evaluation query"] += 1
        elif known.similar(candidate.text, config.curation.near_duplicate):
            dropped["nearly the same"] += 1
        else:
            known.add(candidate.text)
            queries.append(candidate)
    if not queries:
        raise DataError(
            f"{folder}: {len(documents)} documents, but no query could be made of them. Headings of two words, "
            "phrases that few documents hold and sentences such as `X is a …` are what queries are made of."
        )
    asked = {document for query in queries for document, grade in query.judgements.items() if grade == ANSWERS}
    report = {
        "collection": str(folder),
        "documents": len(documents),
        "documents_without_query": len(documents) - len(asked),
        "queries": {kind: sum(query.kind == kind for query in queries) for kind in KINDS},
        "judgements": sum(len(query.judgements) for query in queries),
        "dropped": dict(dropped),
        "examples": {kind: _examples([query for query in queries if query.kind == kind], seed) for kind in KINDS},
        "per_document": per_document,
        "seed": seed,
    }
    return Synthesis(documents, queries, report)


def write_synthesis(made: Synthesis, folder: Path) -> None:
    """Writes a BEIR folder with a report. Raises DataError rather than replace a folder of another making."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or (there and not {REPORT} <= there <= {REPORT, *COLLECTION_FILES}):
        raise DataError(f"{folder}: exists, and is not what this command wrote before. Name a new folder.")
    corpus = [{"_id": document.id, "title": document.title, "text": document.text} for document in made.documents]
    numbers: Counter[str] = Counter()
    queries, qrels = [], [QRELS_HEADER]
    for query in made.queries:
        numbers[query.kind] += 1
        id_ = f"{query.kind}-{numbers[query.kind]:04}"
        queries.append({"_id": id_, "text": query.text})
        qrels += [[id_, document, str(grade)] for document, grade in query.judgements.items()]
    with folder_written_atomically(folder) as target:
        for name, rows in (("corpus", corpus), ("queries", queries)):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (target / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        (target / "qrels.tsv").write_text("".join("\t".join(row) + "\n" for row in qrels), encoding="utf-8")
        report = json.dumps(made.report, ensure_ascii=False, indent=2)
        (target / REPORT).write_text(f"{report}\n", encoding="utf-8")


def _choose(
    document: Document, found: Mapping[QueryKind, Sequence[Candidate]], limit: int, seed: int
) -> list[Candidate]:
    """At most `limit` of a document's candidates, the kinds in turn; the seed chooses headings and definitions."""
    draw = random.Random(f"{seed} {document.id}")
    queues = {kind: list(candidates) for kind, candidates in found.items()}
    for kind in ("definition", "heading"):
        draw.shuffle(queues[kind])
    chosen: list[Candidate] = []
    while len(chosen) < limit and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < limit:
                chosen.append(queue.pop(0))
    return chosen


def _merge(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate a query, with the judgements of all; the first one's kind and spelling."""
    merged: dict[str, Candidate] = {}
    for candidate in candidates:
        known = merged.setdefault(normalise(candidate.text), candidate)
        grades = {
            id_: max(known.judgements.get(id_, 0), candidate.judgements.get(id_, 0))
            for id_ in sorted({*known.judgements, *candidate.judgements})
        }
        merged[normalise(candidate.text)] = known._replace(judgements=grades)
    return list(merged.values())


def _examples(queries: Sequence[Candidate], seed: int) -> list[dict[str, str]]:
    drawn = random.Random(seed).sample(queries, min(EXAMPLES_SHOWN, len(queries)))
    return [{"query": query.text, "document": _best(query)} for query in drawn]


def _best(query: Candidate) -> str:
    return max(sorted(query.judgements), key=lambda id_: query.judgements[id_])
