"""What the search finds without a model: the figures that every expansion has to beat.

For each BEIR folder it measures plain BM25, vectors alone, QMD's hybrid search without expansion, and the same with
QMD's fallback expansion, which is what QMD does when it drops every line that a model wrote.
"""

import argparse
import sys
import time
from pathlib import Path

from qmd_schema.contract import fallback, serve_lines
from qmd_schema.errors import UserError
from qmd_search.baselines import BASELINES, Ranker
from qmd_search.collections import Collection, load_collection
from qmd_search.hybrid import HybridSearch, cache_folder
from qmd_search.metrics import METRICS, mean, measure
from qmd_search.vectors import MINILM_FORM, QMD_FORM, Embedder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="BEIR-format collections")
    parser.add_argument("--split", default=None, help="judgements to use: qrels_SPLIT.tsv (default: qrels.tsv)")
    parser.add_argument("--queries", type=int, default=300, help="measure the first N queries by id (default: 300)")
    parser.add_argument(
        "--qmd-form", action="store_true", help="embed with QMD's prompts instead of the form MiniLM was made for"
    )
    parser.add_argument(
        "--cache", type=Path, default=cache_folder(), help="keeps vectors and indexes (default: %(default)s)"
    )
    arguments = parser.parse_args()

    embedder = Embedder(arguments.cache / "embeddings.sqlite", QMD_FORM if arguments.qmd_form else MINILM_FORM)
    print("| set | queries | search | " + " | ".join(METRICS) + " | ms a query |")
    print("|---" * (len(METRICS) + 4) + "|")
    try:
        for folder in arguments.folders:
            report(load_collection(folder, arguments.split), embedder, arguments.cache, arguments.queries)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def report(collection: Collection, embedder: Embedder, cache: Path, count: int) -> None:
    """Prints one row a way of searching. Query vectors are made before, so the times are those of the search."""
    queries = dict(sorted(collection.queries.items())[:count])
    qrels = {query: collection.qrels[query] for query in queries}
    with HybridSearch.open(collection, embedder, cache, on_progress=show) as search:
        embedder.embed_queries([*queries.values(), *(line.text for q in queries.values() for line in fallback(q))])
        ways: dict[str, Ranker] = {**BASELINES, "QMD's fallback": rank_with_fallback}
        for way, rank in ways.items():
            started = time.perf_counter()
            rankings = {id_: rank(search, query) for id_, query in queries.items()}
            milliseconds = (time.perf_counter() - started) / len(queries) * 1000
            values = measure(rankings, qrels)
            figures = " | ".join(f"{mean(values, metric):.4f}" for metric in METRICS)
            print(f"| {collection.name} | {len(queries)} | {way} | {figures} | {milliseconds:.1f} |", flush=True)


def rank_with_fallback(search: HybridSearch, query: str) -> list[str]:
    return [hit.id for hit in search.search(query, serve_lines(query, ()).lines)]


def show(done: int, total: int) -> None:
    print(f"\rembedding documents: {done} of {total} chunks", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
