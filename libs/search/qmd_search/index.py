"""A collection's index: full text in SQLite, vectors in a file that is mapped into memory, both kept by content."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from qmd_search.chunking import chunk
from qmd_search.collections import Collection, Document
from qmd_search.fts import FullTextIndex, Row
from qmd_search.vectors import Numbers, Progress, TextEmbedder, VectorIndex, Vectors

_FORMAT = 2
_TEXT, _VECTORS, _DOCUMENTS = "text.sqlite", "vectors.npy", "documents.npy"


class Index(NamedTuple):
    """Both halves of a collection's index; they name documents by number, from 1 in the collection's order."""

    text: FullTextIndex
    vectors: VectorIndex


def build_index(collection: Collection, embedder: TextEmbedder, on_progress: Progress | None = None) -> Index:
    """An index in memory. on_progress: called while documents are embedded, with chunks done and chunks to do."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    _build_text(connection, collection)
    return Index(FullTextIndex(connection), VectorIndex(*_embed(collection, embedder, on_progress)))


def open_index(
    collection: Collection, embedder: TextEmbedder, cache: Path, on_progress: Progress | None = None
) -> Index:
    """The index in a folder of `cache`, built there first where there is none for this content and embedder.

    Processes may share it: the folder appears whole, is never written again, and its vectors are in memory once.
    """
    folder = cache / f"{collection.name}-{_fingerprint(collection, embedder)}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as scratch:
            unfinished = Path(scratch) / folder.name
            unfinished.mkdir()
            _write(unfinished, collection, embedder, on_progress)
            _publish(unfinished, folder)
    connection = sqlite3.connect(f"{(folder / _TEXT).resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    vectors = np.load(folder / _VECTORS, mmap_mode="r")
    return Index(FullTextIndex(connection), VectorIndex(vectors, np.load(folder / _DOCUMENTS)))


def _write(folder: Path, collection: Collection, embedder: TextEmbedder, on_progress: Progress | None) -> None:
    with closing(sqlite3.connect(folder / _TEXT)) as connection:
        _build_text(connection, collection)
    vectors, documents = _embed(collection, embedder, on_progress)
    np.save(folder / _VECTORS, vectors)
    np.save(folder / _DOCUMENTS, documents)


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process built the same meanwhile
            raise


def _build_text(connection: sqlite3.Connection, collection: Collection) -> None:
    FullTextIndex.build(connection, (_row(collection.name, document) for document in collection.documents))
    connection.commit()


def _embed(collection: Collection, embedder: TextEmbedder, on_progress: Progress | None) -> tuple[Vectors, Numbers]:
    """The vectors of all chunks, [chunks, dimensions], and the number of each chunk's document, [chunks]."""
    numbers: list[int] = []
    chunks: list[tuple[str, str]] = []
    for number, document in enumerate(collection.documents, start=1):
        for text in chunk(document.text, embedder.count_tokens):
            numbers.append(number)
            chunks.append((document.title or document.id, text))
    return embedder.embed_documents(chunks, on_progress), np.array(numbers)


def _row(collection: str, document: Document) -> Row:
    return Row(f"{collection}/{document.id.removesuffix('.md')}.md", document.title or document.id, document.text)


def _fingerprint(collection: Collection, embedder: TextEmbedder) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {embedder.name} {collection.name}".encode())
    for document in collection.documents:
        digest.update(json.dumps([document.id, document.title, document.text]).encode())
    return digest.hexdigest()[:16]
