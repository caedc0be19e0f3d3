"""How fast the search is, and how much memory it takes, on thousands of documents.

Documents are those of the BEIR folders given; where more are wanted they are repeated with their sentences in another
order and a word of their own. Vectors are random unless --minilm is given: neither the time of a search nor the size
of an index depends on their values. The time of a search is without embedding: its vectors are made before.
"""

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qmd_schema.errors import UserError
from qmd_schema.expansion import Line
from qmd_search.collections import Collection, Document, load_collection
from qmd_search.hybrid import HybridSearch
from qmd_search.vectors import Embedder, Progress, TextEmbedder, Vectors
from qmd_search.words import content_words

SIZES = (5_000, 100_000)
QUERIES = 200
SAMPLE = 64
"""Texts that are embedded one by one and together."""


class RandomVectors:
    """Vectors as long as MiniLM's that mean nothing; texts are cut by MiniLM's own tokens."""

    name = "random vectors"

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._known: dict[str, Vectors] = {}
        self.count_tokens = Embedder().count_tokens

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([self._known.setdefault(text, self._draw(1)[0]) for text in texts])

    def embed_documents(self, chunks: Sequence[tuple[str, str]], on_progress: Progress | None = None) -> Vectors:
        del on_progress
        return self._draw(len(chunks))

    def _draw(self, count: int) -> Vectors:
        vectors = self._random.standard_normal((count, Embedder.dimensions), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="BEIR-format collections")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="documents (default: 5000 100000)")
    parser.add_argument("--minilm", action="store_true", help="embed with MiniLM: some 80 chunks a second on two cores")
    arguments = parser.parse_args()
    try:
        collections = [load_collection(folder) for folder in arguments.folders]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report_embedding(collections)
    print()
    print("| documents | chunks | built | on disk | opened again | search, no expansion | with 6 lines | memory |")
    print("|---" * 8 + "|")
    for size in arguments.sizes:
        report_index(make_collection(collections, size), Embedder() if arguments.minilm else RandomVectors())
    return 0


def report_embedding(collections: Sequence[Collection]) -> None:
    """Prints how much faster texts are embedded together than one by one, and known ones than new ones."""
    queries = list(dict.fromkeys(text for collection in collections for text in collection.queries.values()))
    embedder = Embedder()
    embedder.embed_queries(["the model is loaded now"])
    first, second = queries[:SAMPLE], queries[SAMPLE : 2 * SAMPLE]
    alone = seconds(lambda: [embedder.embed_queries([text]) for text in first])
    together = seconds(lambda: embedder.embed_queries(second))
    again = seconds(lambda: embedder.embed_queries(second))
    print(
        f"embedding {SAMPLE} queries: {1000 * together / SAMPLE:.1f} ms each together, {alone / together:.1f} times as "
        f"fast as one by one; {together / again:,.0f} times as fast again once they are known"
    )


def report_index(collection: Collection, embedder: TextEmbedder) -> None:
    """Prints one row. Memory is that of this process at most, the documents and the vectors in use included."""
    with tempfile.TemporaryDirectory() as folder:
        built = seconds(lambda: HybridSearch.open(collection, embedder, Path(folder)).close())
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        chunks = len(np.load(next(Path(folder).glob("*/documents.npy")), mmap_mode="r"))
        opened = seconds(lambda: HybridSearch.open(collection, embedder, Path(folder)).close())
        with HybridSearch.open(collection, embedder, Path(folder)) as search:
            bare = search_times(search, list(collection.queries.values())[:QUERIES], lambda _: ())
            full = search_times(search, list(collection.queries.values())[:QUERIES], make_lines)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {len(collection.documents):,} | {chunks:,} | {built:.1f} s | {disk / 2**20:,.0f} MiB "
        f"| {opened:.2f} s, {built / opened:,.0f} times as fast | {bare} | {full} | {memory:.1f} GiB |",
        flush=True,
    )


def search_times(search: HybridSearch, queries: Sequence[str], lines_of: Callable[[str], Sequence[Line]]) -> str:
    expansions = {query: lines_of(query) for query in queries}
    for query, lines in expansions.items():  # which also makes the vectors
        search.search(query, lines)
    times = [1000 * seconds(lambda: search.search(query, lines)) for query, lines in expansions.items()]  # noqa: B023
    return f"{statistics.median(times):.2f} ms, p95 {np.quantile(times, 0.95):.2f}"


def make_lines(query: str) -> tuple[Line, ...]:
    words = content_words(query) or query.split()
    return (
        Line("hyde", f"What is known about {' '.join(words)} is written here."),
        Line("lex", " ".join(words[:2])),
        Line("lex", " ".join(words[-2:])),
        Line("lex", words[0]),
        Line("vec", f"how to {' '.join(words)}"),
        Line("vec", f"about {query}"),
    )


def make_collection(collections: Sequence[Collection], size: int) -> Collection:
    """All documents, repeated with changes until there are `size`, and the queries of all collections in turn."""
    originals = [document for collection in collections for document in collection.documents]
    shuffle = random.Random(0).sample
    documents = []
    for number in range(size):
        document = originals[number % len(originals)]
        text = document.text
        if number >= len(originals):
            sentences = text.split(". ")
            text = ". ".join(shuffle(sentences, len(sentences))) + f" variant{number}"
        documents.append(Document(f"{number}", document.title, text))
    queries = [text for collection in collections for text in collection.queries.values()]
    chosen = random.Random(0).sample(queries, min(QUERIES, len(queries)))
    return Collection("benchmark", tuple(documents), {str(place): text for place, text in enumerate(chosen)}, {})


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
