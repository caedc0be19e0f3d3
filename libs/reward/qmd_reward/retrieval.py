"""What an expansion is worth to the search: its gain over no expansion, and what each of its lines adds to it.

Rankings come from outside, such as QMD's search in `qmd_search`; here is only the arithmetic.
"""

from collections.abc import Mapping, Sequence
from math import log2
from typing import NamedTuple

NDCG_DEPTH = 10
RECALL_DEPTH = 20
RECALL_WEIGHT = 0.01
"""What a gain in recall@20 counts beside one in nDCG@10: so little that it only decides between equals."""

_DISCOUNTS = tuple(1 / log2(rank + 1) for rank in range(1, NDCG_DEPTH + 1))


class Quality(NamedTuple):
    """How good one ranking is."""

    ndcg: float
    """nDCG@10, 0 to 1."""
    recall: float
    """recall@20, 0 to 1."""


class RetrievalReward(NamedTuple):
    """What an expansion does to the search of one query."""

    gain: float
    """-1.01 to 1.01; 0 for an expansion that is not searched with."""
    credits: tuple[float, ...]
    """Each line's part in the gain, in the order of the lines: the gain less the gain without it."""


def quality(ranking: Sequence[str], judgements: Mapping[str, int]) -> Quality:
    """ranking: document ids, best first; judgements: document id -> relevance, at least one above 0.

    Source: nDCG as trec_eval has it, with the relevance as gain and 1 / log2(rank + 1) as discount.
    """
    gains = [judgements.get(document, 0) for document in ranking[:RECALL_DEPTH]]
    ideal = sorted((relevance for relevance in judgements.values() if relevance > 0), reverse=True)
    best = _discounted(ideal)
    return Quality(_discounted(gains) / best, sum(gain > 0 for gain in gains) / len(ideal))


def gain(expanded: Quality, plain: Quality) -> float:
    """What a search with an expansion gains over one without."""
    return (expanded.ndcg - plain.ndcg) + RECALL_WEIGHT * (expanded.recall - plain.recall)


def reward(plain: Quality, expanded: Quality | None, without: Sequence[Quality | None]) -> RetrievalReward:
    """The gain of an expansion and the credit of its lines.

    plain: of the query alone. expanded: of the query with all lines that QMD keeps; None where it keeps none, or does
    not expand the query: QMD's fallback is not the expansion's merit, nor its fault.
    without: for each line, of the search with all kept lines but this; None for a line that QMD drops.
    """
    if expanded is None:
        return RetrievalReward(0.0, (0.0,) * len(without))
    credits_ = tuple(0.0 if less is None else gain(expanded, less) for less in without)
    return RetrievalReward(gain(expanded, plain), credits_)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain * discount for gain, discount in zip(gains, _DISCOUNTS, strict=False) if gain > 0)
