"""Retrieval metrics per query: nDCG@10, recall@20 and MRR@10, by ir-measures."""

from collections.abc import Mapping, Sequence

METRICS = ("ndcg@10", "recall@20", "mrr@10")


def measure(
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Query id -> metric -> value in [0, 1], in the order of `qrels`.

    rankings: document ids, best first, for exactly the queries of `qrels`; a query that found nothing has an empty
    ranking and counts 0. Raises ValueError when the queries differ or a ranking holds a document twice.
    """
    import ir_measures
    from ir_measures import RR, R, nDCG

    if rankings.keys() != qrels.keys():
        odd = sorted(rankings.keys() ^ qrels.keys())
        raise ValueError(f"rankings and qrels differ in {len(odd)} queries, first {odd[0]!r}")
    for query, ranking in rankings.items():
        if len(set(ranking)) < len(ranking):
            raise ValueError(f"the ranking of query {query!r} holds a document twice")
    run = {
        query: {document: float(-rank) for rank, document in enumerate(ranking)} for query, ranking in rankings.items()
    }
    names = dict(zip((nDCG @ 10, R @ 20, RR @ 10), METRICS, strict=True))
    values: dict[str, dict[str, float]] = {query: dict.fromkeys(METRICS, 0.0) for query in qrels}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        values[metric.query_id][names[metric.measure]] = metric.value
    return values


def mean(values: Mapping[str, Mapping[str, float]], metric: str) -> float:
    """The mean of one metric over the queries."""
    return sum(query[metric] for query in values.values()) / len(values)
