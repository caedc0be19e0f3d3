"""Reciprocal rank fusion with QMD's weights and bonuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

RANK_CONSTANT = 60
FIRST_BONUS = 0.05
PODIUM_BONUS = 0.02
ORIGINAL_WEIGHT = 2.0
EXPANSION_WEIGHT = 1.0


class RankedList(NamedTuple):
    """What one search found: document ids, best first, no id twice."""

    name: str
    ids: Sequence[str]
    weight: float = EXPANSION_WEIGHT


class FoundBy(NamedTuple):
    """A list that held a document, and the document's rank in it, from 1."""

    list: str
    rank: int


@dataclass(frozen=True)
class Hit:
    """A document in the fused order."""

    id: str
    score: float
    found_by: tuple[FoundBy, ...]
    """In the order of the fused lists."""


def fuse(lists: Sequence[RankedList]) -> list[Hit]:
    """All documents of the lists, best first.

    A document's score is the sum of weight / (60 + rank) over the lists that hold it, plus 0.05 if any of them has
    it first, or else 0.02 if any has it second or third. Of equal scores, the document met first leads.
    Source: reciprocal rank fusion, Cormack et al. 2009; weights and bonuses are QMD's.
    """
    found_by: dict[str, list[FoundBy]] = {}
    for ranked in lists:
        for rank, document in enumerate(ranked.ids, start=1):
            found_by.setdefault(document, []).append(FoundBy(ranked.name, rank))
    scores = _scores(lists)
    return [Hit(document, scores[document], tuple(found_by[document])) for document in _best_first(scores)]


def fused_ids(lists: Sequence[RankedList]) -> list[str]:
    """The ids of what `fuse` finds, in its order, without the work of telling what found them."""
    return _best_first(_scores(lists))


def _best_first(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda document: -scores[document])


def _scores(lists: Sequence[RankedList]) -> dict[str, float]:
    """In the order in which the documents are met."""
    sums: dict[str, float] = {}
    first: set[str] = set()
    podium: set[str] = set()
    for ranked in lists:
        for rank, document in enumerate(ranked.ids, start=RANK_CONSTANT + 1):
            sums[document] = sums.get(document, 0.0) + ranked.weight / rank
        first.update(ranked.ids[:1])
        podium.update(ranked.ids[1:3])
    for document in podium - first:
        sums[document] += PODIUM_BONUS
    for document in first:
        sums[document] += FIRST_BONUS
    return sums
