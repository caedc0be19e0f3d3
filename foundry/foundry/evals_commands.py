"""`foundry evals`: what models are judged on."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import typer

from foundry.console import print_json, print_table, stdout
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.errors import DataError
from qmd_search.baselines import measure_baselines
from qmd_search.collections import Collection, load_collection
from qmd_search.fts import FullTextIndex, Row, any_term_expression
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.vectors import Embedder
from qmd_search.words import content_words

app = typer.Typer(help="Look at what models are judged on.", no_args_is_help=True)

BEGIN, END = "<!-- foundry evals describe: begin -->", "<!-- foundry evals describe: end -->"
SATURATED, HOPELESS = 0.75, 0.35
"""Hybrid nDCG@10 without expansion from which, and up to which, a collection cannot tell models apart."""
METRICS_SHOWN = {"ndcg@10": "nDCG@10", "recall@20": "recall@20"}

Room = Literal["saturated", "hopeless", "room to gain"]


@dataclass(frozen=True)
class CollectionFigures:
    """A judged collection: how large, how hard, and what the search finds in it without a model."""

    name: str
    documents: int
    words: tuple[int, float, int]
    """Of a document: fewest, median, most."""
    queries: dict[str, int]
    """By split."""
    judgements: int
    distant: float
    """Share of the queries that share no content word with a document that answers them (their highest grade)."""
    baselines: dict[str, dict[str, float]]
    """Way of searching -> metric -> mean over the test queries."""
    room: Room


@app.command()
def describe(
    evals: Annotated[Path, typer.Option(help="Folder with queries.jsonl and collections/.")] = Path("evals"),
    output: Annotated[
        Path | None, typer.Option(help="Markdown file that receives the tables; default: EVALS/README.md.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure the evaluation set: sizes, and what BM25, vectors and QMD's hybrid search find with no expansion.

    Writes the tables into a markdown file between two markers, which it adds where they are missing, and leaves all
    other text as it is. A collection is saturated where the search needs no help (hybrid nDCG@10 of .75 or more) and
    hopeless where it hardly finds anything (.35 or less): neither tells a good model from a bad one.
    """
    slices = count_slices(evals / "queries.jsonl")
    folders = sorted(path.parent for path in evals.glob("collections/*/corpus.jsonl"))
    if not folders:
        raise DataError(f"{evals}/collections: no folder with a corpus.jsonl, so there is nothing to measure.")
    embedder = Embedder(cache_folder() / "embeddings.sqlite")
    collections = [describe_collection(folder, embedder, cache_folder()) for folder in folders]
    target = output or evals / "README.md"
    write_between_markers(target, tables(slices, collections))
    if as_json:
        print_json({"slices": slices, "collections": [asdict(figures) for figures in collections]})
        return
    columns = ["collection", "documents", "queries", "search", *METRICS_SHOWN.values(), "verdict"]
    rows = [
        [figures.name, figures.documents, sum(figures.queries.values()), way]
        + [values[metric] for metric in METRICS_SHOWN]
        + [figures.room if way == "hybrid" else ""]
        for figures in collections
        for way, values in figures.baselines.items()
    ]
    print_table("search without expansion, test queries", columns, rows)
    stdout.print(f"written: {target}", highlight=False, soft_wrap=True)


def count_slices(path: Path) -> dict[str, int]:
    """Queries of each slice of a file of evaluation queries."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of evaluation queries.")
    with path.open(encoding="utf-8") as file:
        return dict(sorted(Counter(json.loads(line)["slice"] for line in file).items()))


def describe_collection(folder: Path, embedder: Embedder, cache: Path | None = None) -> CollectionFigures:
    """Measures a BEIR folder with the splits dev and test; its figures are those of the test queries."""
    splits = {split: load_collection(folder, split) for split in ("dev", "test")}
    test = splits["test"]
    with HybridSearch.open(test, embedder, cache) as search:
        embedder.embed_queries(list(test.queries.values()))
        baselines = measure_baselines(search, test)
    lengths = sorted(len(document.text.split()) for document in test.documents)
    distant = [id_ for collection in splits.values() for id_ in distant_queries(collection)]
    queries = {split: len(collection.queries) for split, collection in splits.items()}
    return CollectionFigures(
        name=test.name,
        documents=len(test.documents),
        words=(lengths[0], median(lengths), lengths[-1]),
        queries=queries,
        judgements=sum(len(judged) for collection in splits.values() for judged in collection.qrels.values()),
        distant=len(distant) / sum(queries.values()),
        baselines=baselines,
        room=judge_room(baselines["hybrid"]["ndcg@10"]),
    )


def judge_room(ndcg: float) -> Room:
    """Whether a collection leaves room to tell models apart, by the hybrid search's nDCG@10 without expansion."""
    if ndcg >= SATURATED:
        return "saturated"
    return "hopeless" if ndcg <= HOPELESS else "room to gain"


def distant_queries(collection: Collection) -> list[str]:
    """Ids of the queries whose content words are, as full-text search stems them, in no document that answers them."""
    numbers = {document.id: number for number, document in enumerate(collection.documents, start=1)}
    with closing(sqlite3.connect(":memory:")) as connection:
        FullTextIndex.build(connection, (Row("", document.title, document.text) for document in collection.documents))
        index = FullTextIndex(connection)
        found = []
        for id_, query in collection.queries.items():
            grades = collection.qrels[id_]
            answers = {numbers[document] for document, grade in grades.items() if grade == max(grades.values())}
            hits = index.search(any_term_expression(" ".join(content_words(query))), len(numbers))
            if answers.isdisjoint(number for number, _ in hits):
                found.append(id_)
    return found


def tables(slices: dict[str, int], collections: list[CollectionFigures]) -> str:
    """The figures as markdown."""
    lines = [
        f"`queries.jsonl`: {sum(slices.values())} queries.",
        "",
        *_table(["slice", "queries"], [[name, str(count)] for name, count in slices.items()]),
        "",
        "The collections. Words are those of a document. Distant: the share of queries that have no content word, "
        "stemmed, in common with a document that answers them.",
        "",
        *_table(
            ["collection", "documents", "words: min / median / max", "queries: dev / test", "judgements", "distant"],
            [
                [
                    figures.name,
                    str(figures.documents),
                    " / ".join(f"{count:g}" for count in figures.words),
                    " / ".join(map(str, figures.queries.values())),
                    str(figures.judgements),
                    f"{figures.distant:.0%}",
                ]
                for figures in collections
            ],
        ),
        "",
        "What the search finds with no expansion (test queries, MiniLM vectors, no reranker). A hybrid nDCG@10 of "
        f"{SATURATED} or more is saturated, {HOPELESS} or less hopeless.",
        "",
        *_table(
            [
                "collection",
                *(f"{way} {title}" for way in collections[0].baselines for title in METRICS_SHOWN.values()),
                "",
            ],
            [
                [figures.name]
                + [f"{values[metric]:.3f}" for values in figures.baselines.values() for metric in METRICS_SHOWN]
                + [figures.room]
                for figures in collections
            ],
        ),
    ]
    return "\n".join(lines)


def write_between_markers(path: Path, text: str) -> None:
    """Puts `text` between the markers of a file, at its end where it has none; all else stays."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if begin and not end:
        raise DataError(f"{path}: holds {BEGIN!r} but not {END!r} behind it. Put it where the tables should end.")
    if not begin:
        head = f"{head.rstrip()}\n\n" if head.strip() else ""
        tail = "\n"
    write_text_atomically(path, f"{head}{BEGIN}\n{text}\n{END}{tail}")


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
