"""What expansions gain that a rule makes of nothing but the query.

`python experiments/query-rules/measure.py evals/collections/notes evals/collections/docs` prints, for each rule, the
gain in nDCG@10 over no expansion on every collection, with 95 % bounds, and the mean over the collections.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev

from qmd_schema.expansion import Kind, Line
from qmd_search.collections import Collection, load_collection
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.metrics import measure
from qmd_search.vectors import Embedder
from qmd_search.words import content_words

Lines = list[Line]


class Words:
    """The words of a query, the rarest of the training queries first."""

    def __init__(self, data: Path) -> None:
        queries = [json.loads(row)["query"] for path in sorted(data.glob("*.jsonl")) for row in path.open()]
        self._counts = Counter(word for query in queries for word in set(content_words(query)))

    def rarest(self, query: str, count: int | None = None) -> str:
        """In one line; all of its content words without a count."""
        own = dict.fromkeys(content_words(query))
        return " ".join(sorted(own, key=self._counts.__getitem__)[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path, nargs="+", help="BEIR folders")
    parser.add_argument("--split", default="train", help="of their judgements (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=300, help="of each, drawn at random (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="training data that says which words are rare")
    arguments = parser.parse_args()
    rules = make_rules(Words(arguments.data))
    embedder = Embedder(cache_folder() / "embeddings.sqlite")
    gains: dict[str, list[list[float]]] = {name: [] for name in rules}
    for path in arguments.collections:
        collection = load_collection(path, arguments.split)
        chosen = random.Random(0).sample(sorted(collection.queries), min(arguments.queries, len(collection.queries)))
        with HybridSearch.open(collection, embedder, cache_folder()) as search:
            plain = quality(search, collection, chosen, lambda _: [])
            for name, rule in rules.items():
                found = quality(search, collection, chosen, rule)
                gains[name].append([after - before for after, before in zip(found, plain, strict=True)])
    print(f"| rule | {' | '.join(path.name for path in arguments.collections)} | mean |")
    print("|---" * (len(arguments.collections) + 2) + "|")
    for name, columns in gains.items():
        cells = [f"{fmean(values):+.3f} ± {1.96 * stdev(values) / len(values) ** 0.5:.3f}" for values in columns]
        print(f"| {name} | {' | '.join(cells)} | {fmean(map(fmean, columns)):+.4f} |")


def quality(
    search: HybridSearch, collection: Collection, queries: list[str], rule: Callable[[str], Lines]
) -> list[float]:
    """nDCG@10 of each query, searched with the lines that a rule makes of it."""
    values = []
    for id_ in queries:
        text = collection.queries[id_]
        ranking = [hit.id for hit in search.search(text, [line for line in rule(text) if line.text])]
        values.append(measure({id_: ranking}, {id_: collection.qrels[id_]})[id_]["ndcg@10"])
    return values


def make_rules(words: Words) -> Mapping[str, Callable[[str], Lines]]:
    def lines(kind: Kind, *texts: str) -> Lines:
        return [Line(kind, text) for text in texts]

    def again(query: str) -> str:
        return query.rstrip("?.! ")

    return {
        "lex: the rarest word": lambda query: lines("lex", words.rarest(query, 1)),
        "lex: the two rarest words": lambda query: lines("lex", words.rarest(query, 2)),
        "lex: the three rarest words": lambda query: lines("lex", words.rarest(query, 3)),
        "lex: all content words": lambda query: lines("lex", words.rarest(query)),
        "lex: the three rarest words, the two rarest": lambda query: lines(
            "lex", words.rarest(query, 3), words.rarest(query, 2)
        ),
        "vec: the query again": lambda query: lines("vec", f"{again(query)}."),
        "vec: the query twice again": lambda query: lines("vec", f"{again(query)}.", f"{again(query)}!"),
        "vec: the content words": lambda query: lines("vec", words.rarest(query)),
        "vec: the three rarest words": lambda query: lines("vec", words.rarest(query, 3)),
        "lex: the two rarest words, vec: the query again": lambda query: [
            *lines("lex", words.rarest(query, 2)),
            *lines("vec", f"{again(query)}."),
        ],
    }


if __name__ == "__main__":
    main()
