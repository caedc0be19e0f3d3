"""A small collection and an embedder without a model, for tests of searches."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qmd_search.collections import Collection, Document
from qmd_search.vectors import Progress, Vectors


class HashingEmbedder:
    """Bags of hashed words: texts that share words are alike."""

    name = "hashed words"

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        vectors = np.full((len(texts), 256), 1e-3, np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                vector[hashlib.md5(word.encode()).digest()[0]] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def embed_documents(self, chunks: Sequence[tuple[str, str]], on_progress: Progress | None = None) -> Vectors:
        if on_progress:
            on_progress(len(chunks), len(chunks))
        return self.embed_queries([f"{title} {text}" for title, text in chunks])


def small_collection() -> Collection:
    """Five notes with two judged queries."""
    documents = (
        Document("retry", "Retry policy", "Clients retry with exponential backoff and jitter after a timeout."),
        Document("bread", "Sourdough", "Feed the starter the evening before, fold the dough, bake at 240 degrees."),
        Document("release", "Release 3.14.0", "The multi-agent planner shipped; python upgrade to 3.14.0 is done."),
        Document("coffee", "Coffee", "Java beans from the island of Java, ground fine for the moka pot."),
        Document("jvm", "Tuning the JVM", "Java heap size, garbage collector pauses, and a timeout in the pool."),
    )
    queries = {"q1": "timeout backoff", "q2": "sourdough starter"}
    return Collection("notes", documents, queries, {"q1": {"retry": 1}, "q2": {"bread": 1}})


def write_collection(collection: Collection, folder: Path, split: str) -> None:
    """A collection in BEIR's format."""
    folder.mkdir()
    documents = [{"_id": d.id, "title": d.title, "text": d.text} for d in collection.documents]
    queries = [{"_id": id_, "text": text} for id_, text in collection.queries.items()]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [f"{query}\t{d}\t{n}" for query, found in collection.qrels.items() for d, n in found.items()]
    (folder / f"qrels_{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
