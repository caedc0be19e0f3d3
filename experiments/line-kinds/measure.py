"""What each kind of line of an expansion does to the search, over the answers that an evaluation kept.

`python experiments/line-kinds/measure.py runs/ID/evaluate/samples.jsonl evals/collections/notes evals/collections/docs`
prints, for each side and kind of line, the gain in nDCG@10 over no expansion when only these lines are searched with.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from qmd_schema.contract import serve
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, load_collection
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.metrics import measure
from qmd_search.vectors import Embedder

Lines = tuple[Line, ...]


class Answer(NamedTuple):
    """One judged query with the lines that QMD searches with."""

    collection: str
    id: str
    query: str
    lines: Lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="samples.jsonl of an evaluation")
    parser.add_argument("collections", type=Path, nargs="+", help="the BEIR folders that it was judged on")
    parser.add_argument("--split", default="test", help="split of the judgements (default: test)")
    arguments = parser.parse_args()
    embedder = Embedder(cache_folder() / "embeddings.sqlite")
    collections = {path.name: load_collection(path, arguments.split) for path in arguments.collections}
    searches = {name: HybridSearch.open(value, embedder, cache_folder()) for name, value in collections.items()}
    print(f"{'':10} {'':28} {'all':>7} " + " ".join(f"{name:>10}" for name in collections))
    for side, answers in read_answers(arguments.samples, collections).items():
        embedder.embed_queries([line.text for answer in answers for line in answer.lines if line.kind != "lex"])
        plain = quality(answers, searches, collections, lambda _: ())
        for name, choose in CHOICES.items():
            gains = [
                found - before
                for found, before in zip(quality(answers, searches, collections, choose), plain, strict=True)
            ]
            own = {c: [g for g, a in zip(gains, answers, strict=True) if a.collection == c] for c in collections}
            cells = " ".join(f"{sum(values) / len(values):+10.3f}" for values in own.values())
            print(f"{side:10} {name:28} {sum(gains) / len(gains):+7.3f} {cells}", flush=True)


def read_answers(path: Path, collections: Mapping[str, Collection]) -> dict[str, list[Answer]]:
    """Side of the comparison -> its answers under QMD's grammar to the queries of these collections."""
    sides: dict[str, list[Answer]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        sample = json.loads(text)
        collection, _, id_ = sample["key"].partition("/")
        if sample["grammar"] and collection in collections:
            answer = Answer(collection, id_, sample["query"], serve(sample["query"], sample["answer"]).lines)
            sides.setdefault(sample["side"], []).append(answer)
    return sides


def quality(
    answers: list[Answer],
    searches: Mapping[str, HybridSearch],
    collections: Mapping[str, Collection],
    choose: Callable[[Answer], Lines],
) -> list[float]:
    """nDCG@10 of each answer, searched with the lines chosen."""
    values = []
    for answer in answers:
        ranking = [hit.id for hit in searches[answer.collection].search(answer.query, choose(answer))]
        qrels = {answer.id: collections[answer.collection].qrels[answer.id]}
        values.append(measure({answer.id: ranking}, qrels)[answer.id]["ndcg@10"])
    return values


def of_kind(kind: str) -> Callable[[Answer], Lines]:
    return lambda answer: tuple(line for line in answer.lines if line.kind == kind)


def has_own_words(query: str, line: Line) -> bool:
    """Whether every word of the line begins a word of the query."""
    words = re.findall(r"\w+", query.lower())
    return all(any(word.startswith(own) for word in words) for own in re.findall(r"\w+", line.text.lower()))


def lex(own: bool) -> Callable[[Answer], Lines]:
    return lambda answer: tuple(line for line in of_kind("lex")(answer) if has_own_words(answer.query, line) is own)


CHOICES: Mapping[str, Callable[[Answer], Lines]] = {
    "all lines": lambda answer: answer.lines,
    "hyde": of_kind("hyde"),
    "vec": of_kind("vec"),
    "lex": of_kind("lex"),
    "first lex": lambda answer: of_kind("lex")(answer)[:1],
    "lex of the query's words": lex(own=True),
    "lex with another word": lex(own=False),
}


if __name__ == "__main__":
    main()
