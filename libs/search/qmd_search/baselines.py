"""What the search finds without a model: the figures that every expansion has to beat."""

from collections.abc import Callable, Mapping

from qmd_search.collections import Collection
from qmd_search.hybrid import HybridSearch
from qmd_search.metrics import METRICS, mean, measure

Ranker = Callable[[HybridSearch, str], list[str]]
"""Ranks the documents for a query: their ids, best first."""


def _bm25(search: HybridSearch, query: str) -> list[str]:
    return [id_ for id_, _ in search.bm25(query)]


def _vectors(search: HybridSearch, query: str) -> list[str]:
    return [id_ for id_, _ in search.semantic(query)]


def _hybrid(search: HybridSearch, query: str) -> list[str]:
    return [hit.id for hit in search.search(query)]


BASELINES: Mapping[str, Ranker] = {"BM25": _bm25, "vectors": _vectors, "hybrid": _hybrid}
"""BM25 over documents with any word of the query, vectors alone, and QMD's hybrid search without expansion."""


def measure_baselines(search: HybridSearch, collection: Collection) -> dict[str, dict[str, float]]:
    """Baseline -> metric -> mean over the collection's queries. search: over the collection's documents."""
    measured = {}
    for name, rank in BASELINES.items():
        rankings = {id_: rank(search, query) for id_, query in collection.queries.items()}
        values = measure(rankings, collection.qrels)
        measured[name] = {metric: mean(values, metric) for metric in METRICS}
    return measured
