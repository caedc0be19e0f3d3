"""What a model gains at most that knows which documents answered the training queries.

`python experiments/dictation/measure.py evals/collections/notes PATH/fbqa_cdc` asks the development queries of each
collection, and gives each the lines that the document dictates which answered the nearest training query, by MiniLM:
what a model would write that had learnt `dictation` of `foundry data prepare` by heart. Beside them the lines of the
query's own document, which are the ceiling. Prints the gain in nDCG@10 over no expansion, with 95 % bounds.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from qmd_reward.retrieval import quality
from qmd_schema.contract import keeps
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, load_collection
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.vectors import Embedder
from trainer.dictation import answers, dictated_lines


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
            ways = make_lines(dev, train, embedder)
            every_line = [line for way in ways.values() for lines in way.values() for line in lines]
            embedder.embed_queries([line.text for line in every_line if line.kind != "lex"])
            for name, lines in ways.items():
                found = ndcgs(search, dev, lines)
                rows.setdefault(name, []).append([after - before for after, before in zip(found, plain, strict=True)])
    print(f"| lines | {' | '.join(path.name for path in arguments.collections)} | mean |")
    print("|---" * (len(arguments.collections) + 2) + "|")
    for name, columns in rows.items():
        cells = [f"{fmean(values):+.3f} ± {1.96 * stdev(values) / len(values) ** 0.5:.3f}" for values in columns]
        print(f"| {name} | {' | '.join(cells)} | {fmean(map(fmean, columns)):+.3f} |")


def ndcgs(search: HybridSearch, collection: Collection, lines: Mapping[str, Sequence[Line]]) -> list[float]:
    """nDCG@10 of each query, searched with those of its lines that QMD keeps."""
    values = []
    for id_, query in collection.queries.items():
        kept = [line for line in lines.get(id_, ()) if keeps(query, line.text)]
        ranking = [hit.id for hit in search.search(query, kept)]
        values.append(quality(ranking, collection.qrels[id_]).ndcg)
    return values


def make_lines(dev: Collection, train: Collection, embedder: Embedder) -> dict[str, dict[str, Sequence[Line]]]:
    """Name of a way to write lines -> id of a development query -> its lines."""
    own, learnt_answers = answers(dev), answers(train)
    known = list(train.queries)
    asked, learnt = (embedder.embed_queries(list(each.queries.values())) for each in (dev, train))
    nearest = {id_: learnt_answers[known[row.argmax()]] for id_, row in zip(dev.queries, asked @ learnt.T, strict=True)}
    whole = {id_: dictated_lines(query, nearest[id_]) for id_, query in dev.queries.items()}
    return {
        "hyde: query and title": {id_: lines[:1] for id_, lines in whole.items()},
        "lex: words of the query that the document holds": {id_: lines[1:2] for id_, lines in whole.items()},
        "vec: query and opening": {id_: lines[2:] for id_, lines in whole.items()},
        "all three": whole,
        "all three, of the query's own document": {
            id_: dictated_lines(query, own[id_]) for id_, query in dev.queries.items()
        },
    }


if __name__ == "__main__":
    main()
