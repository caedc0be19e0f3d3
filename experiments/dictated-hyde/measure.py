"""What a model gains at most that knows which documents answered the training queries.

`python experiments/dictated-hyde/measure.py evals/collections/notes PATH/fbqa_cdc` asks the development queries of each
collection, and gives each a hyde line that the document dictates which answered the nearest training query, by MiniLM:
what a model would write that had learnt the lines of `foundry train distill` by heart. Beside it the line of the
query's own document, which is the ceiling. Prints the gain in nDCG@10 over no expansion, with 95 % bounds.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

from qmd_reward.retrieval import quality
from qmd_schema.contract import keeps
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, Document, load_collection
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.vectors import Embedder
from trainer.dictation import answers, hyde_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", type=Path, nargs="+", help="BEIR folders with the splits train and dev")
    arguments = parser.parse_args()
    embedder = Embedder(cache_folder() / "embeddings.sqlite")
    rows: dict[str, list[list[float]]] = {}
    for path in arguments.collections:
        dev, train = load_collection(path, "dev"), load_collection(path, "train")
        with HybridSearch.open(dev, embedder, cache_folder()) as search:
            plain = ndcgs(search, dev, {})
            for name, lines in make_lines(dev, train, embedder).items():
                found = ndcgs(search, dev, lines)
                rows.setdefault(name, []).append([after - before for after, before in zip(found, plain, strict=True)])
    print(f"| hyde line | {' | '.join(path.name for path in arguments.collections)} | mean |")
    print("|---" * (len(arguments.collections) + 2) + "|")
    for name, columns in rows.items():
        cells = [f"{fmean(values):+.3f} ± {1.96 * stdev(values) / len(values) ** 0.5:.3f}" for values in columns]
        print(f"| {name} | {' | '.join(cells)} | {fmean(map(fmean, columns)):+.3f} |")


def ndcgs(search: HybridSearch, collection: Collection, lines: Mapping[str, Line]) -> list[float]:
    """nDCG@10 of each query, searched with its line if it has one that QMD keeps."""
    values = []
    for id_, query in collection.queries.items():
        kept = [lines[id_]] if id_ in lines and keeps(query, lines[id_].text) else []
        ranking = [hit.id for hit in search.search(query, kept)]
        values.append(quality(ranking, collection.qrels[id_]).ndcg)
    return values


def make_lines(dev: Collection, train: Collection, embedder: Embedder) -> dict[str, dict[str, Line]]:
    """Name of a way to write hyde lines -> id of a development query -> its line."""
    own, learnt_answers = answers(dev), answers(train)
    known = list(train.queries)
    asked, learnt = (embedder.embed_queries(list(each.queries.values())) for each in (dev, train))
    nearest = {id_: learnt_answers[known[row.argmax()]] for id_, row in zip(dev.queries, asked @ learnt.T, strict=True)}
    return {
        "of the nearest training query": {id_: hyde_line(query, nearest[id_]) for id_, query in dev.queries.items()},
        "the same without the query": {id_: alone(nearest[id_]) for id_ in dev.queries},
        "of the query's own document": {id_: hyde_line(query, own[id_]) for id_, query in dev.queries.items()},
    }


def alone(document: Document) -> Line:
    return Line("hyde", hyde_line("", document).text.removeprefix(": "))


if __name__ == "__main__":
    main()
