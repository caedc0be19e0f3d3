"""QMD's search over the eval set's collections: rankings, their measures, and which line found a document."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from evaluator.evalset import EvalSet
from evaluator.generation import OnProgress
from qmd_schema.expansion import Line
from qmd_search.collections import Collection
from qmd_search.fusion import Hit
from qmd_search.hybrid import HybridSearch
from qmd_search.metrics import measure
from qmd_search.vectors import Embedder

Lines = tuple[Line, ...]


class Retrieval:
    """The searches of every collection; for one thread at a time."""

    def __init__(self, eval_set: EvalSet, cache: Path, on_progress: OnProgress) -> None:
        """cache: folder of indexes and embeddings."""
        self._embedder = Embedder(cache / "embeddings.sqlite")
        self._collections = {collection.name: collection for collection in eval_set.collections}
        self._searches = {
            name: HybridSearch.open(collection, self._embedder, cache, partial(on_progress, f"index of {name}"))
            for name, collection in self._collections.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for search in self._searches.values():
            search.close()

    def embed(self, lines: Iterable[Line]) -> None:
        """Embeds vec and hyde lines in one go, which is much faster than search by search."""
        self._embedder.embed_queries([line.text for line in lines if line.kind != "lex"])

    def measure(self, expansions: Mapping[str, Lines]) -> dict[str, dict[str, float]]:
        """Query key -> metric -> value, for every judged query. expansions: the lines searched with, by query key."""
        measured: dict[str, dict[str, float]] = {}
        for name, collection in self._collections.items():
            rankings = {
                id_: [hit.id for hit in self._searches[name].search(text, expansions[f"{name}/{id_}"])]
                for id_, text in collection.queries.items()
            }
            values = measure(rankings, collection.qrels)
            measured |= {f"{name}/{id_}": metrics for id_, metrics in values.items()}
        return measured

    def finds_nothing(self, query: str, lex_line: str) -> bool:
        """Whether a lex line matches no document of the query's collection."""
        return not self._searches[self._place(query)[0].name].lexical(lex_line, limit=1)

    def best_relevant(self, query: str, lines: Lines) -> tuple[int, Hit] | None:
        """The relevant document that a search finds first, with its rank from 1; None where it finds none."""
        collection, id_ = self._place(query)
        hits = self._searches[collection.name].search(collection.queries[id_], lines)
        relevant = collection.qrels[id_]
        return next(((rank, hit) for rank, hit in enumerate(hits, start=1) if relevant.get(hit.id)), None)

    def _place(self, query: str) -> tuple[Collection, str]:
        name, _, id_ = query.partition("/")
        return self._collections[name], id_
