"""QMD's hybrid search without a reranker: full text and vectors, fused by rank."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from qmd_schema.expansion import Line
from qmd_search.collections import Collection
from qmd_search.fts import any_term_expression, lex_expression
from qmd_search.fusion import EXPANSION_WEIGHT, ORIGINAL_WEIGHT, Hit, RankedList, fuse
from qmd_search.index import Index, build_index, open_index
from qmd_search.vectors import Progress, TextEmbedder

LIST_LENGTH = 20
"""Documents each list holds before fusion."""
CANDIDATES = 40
"""Documents left after fusion."""
STRONG_SCORE = 0.85
STRONG_LEAD = 0.15


def cache_folder() -> Path:
    """Where indexes and embeddings are kept between runs: `$XDG_CACHE_HOME/qmd-foundry/search`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qmd-foundry" / "search"


class HybridSearch:
    """A searchable collection; for one thread at a time.

    `with HybridSearch.open(collection, Embedder()) as search: search.search("query", expansion.lines)`
    """

    def __init__(self, index: Index, ids: Sequence[str], embedder: TextEmbedder):
        """index: of documents of these ids, with this embedder's vectors."""
        self._text = index.text
        self._vectors = index.vectors
        self._ids = ids
        self._embedder = embedder

    @classmethod
    def open(
        cls,
        collection: Collection,
        embedder: TextEmbedder,
        cache: Path | None = None,
        on_progress: Progress | None = None,
    ) -> "HybridSearch":
        """Indexes a collection in memory, or, with `cache`, in a folder of it that later calls open.

        cache: holds one folder for each content of collection and embedder; a changed document makes a new one.
        on_progress: called while documents are embedded, with chunks done and chunks to do.
        """
        if cache is None:
            index = build_index(collection, embedder, on_progress)
        else:
            index = open_index(collection, embedder, cache, on_progress)
        return cls(index, [document.id for document in collection.documents], embedder)

    def close(self) -> None:
        self._text.close()

    def __enter__(self) -> "HybridSearch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def search(self, query: str, lines: Sequence[Line] = (), limit: int = LIST_LENGTH) -> list[Hit]:
        """QMD's ranking of a query with the lines of its expansion, best first; at most 40 documents.

        lines: as QMD searches with them, after its filter (`qmd_schema.contract.serve`); ignored where the query
        alone is a strong signal. A hit's `found_by` names the lists "query fts", "lex 1"…, "query vec", "vec 1"…
        and "hyde".
        """
        original = self.lexical(query)
        expansion = {} if _is_strong(original) else _name(lines)
        found = {"query fts": original} | self._find({"query vec": Line("vec", query)} | expansion)
        weights = {name: EXPANSION_WEIGHT if name in expansion else ORIGINAL_WEIGHT for name in found}
        return _fuse(found, weights, limit)

    def search_lines(self, lines: Sequence[Line], limit: int = LIST_LENGTH) -> list[Hit]:
        """QMD's ranking of a query document: lines that a caller wrote instead of a query, best first; at most 40.

        Lex lines go first, then vec and hyde lines; the first that finds anything weighs as much as a query.
        """
        found = {name: hits for name, hits in self._find(_name(lines)).items() if hits}
        first = next(iter(found), None)
        weights = {name: ORIGINAL_WEIGHT if name == first else EXPANSION_WEIGHT for name in found}
        return _fuse(found, weights, limit)

    def _find(self, named: Mapping[str, Line]) -> dict[str, list[tuple[str, float]]]:
        """What each line finds: lex lines first, then the others, embedded together."""
        found = {name: self.lexical(line.text) for name, line in named.items() if line.kind == "lex"}
        texts = {name: line.text for name, line in named.items() if line.kind != "lex"}
        if texts:
            hits = self._vectors.search(self._embedder.embed_queries(list(texts.values())), LIST_LENGTH)
            found |= zip(texts, map(self._resolve, hits), strict=True)
        return found

    def is_strong_signal(self, query: str) -> bool:
        """Whether the query's own full-text hits are so clear that QMD does not expand it."""
        return _is_strong(self.lexical(query))

    def lexical(self, lex_line: str, limit: int = LIST_LENGTH) -> list[tuple[str, float]]:
        """What a lex line finds: (document id, score in [0, 1)), best first."""
        return self._resolve(self._text.search(lex_expression(lex_line), limit))

    def semantic(self, text: str, limit: int = LIST_LENGTH) -> list[tuple[str, float]]:
        """What a vec or hyde line finds: (document id, cosine), best first."""
        return self._resolve(self._vectors.search(self._embedder.embed_queries([text]), limit)[0])

    def bm25(self, query: str, limit: int = LIST_LENGTH) -> list[tuple[str, float]]:
        """BM25 over documents that hold any word of the query: a baseline, not a part of QMD's search."""
        return self._resolve(self._text.search(any_term_expression(query), limit))

    def _resolve(self, numbered: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
        return [(self._ids[number - 1], score) for number, score in numbered]


def _is_strong(hits: Sequence[tuple[str, float]]) -> bool:
    best, second = [*(score for _, score in hits[:2]), 0.0, 0.0][:2]
    return best >= STRONG_SCORE and best - second >= STRONG_LEAD


def _fuse(found: Mapping[str, Sequence[tuple[str, float]]], weights: Mapping[str, float], limit: int) -> list[Hit]:
    lists = [RankedList(name, [id_ for id_, _ in hits], weights[name]) for name, hits in found.items()]
    return fuse(lists)[: min(limit, CANDIDATES)]


def _name(lines: Sequence[Line]) -> dict[str, Line]:
    """Lines by name: "lex 1", "lex 2", "vec 1", "hyde"; a second hyde is "hyde 2"."""
    counts: Counter[str] = Counter()
    named = {}
    for line in lines:
        counts[line.kind] += 1
        first_hyde = line.kind == "hyde" and counts["hyde"] == 1
        named["hyde" if first_hyde else f"{line.kind} {counts[line.kind]}"] = line
    return named
