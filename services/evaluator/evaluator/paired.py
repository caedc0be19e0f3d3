"""Both sides of a comparison, query by query, and the differences between them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluator.statistics import Differences

ByQuery = Mapping[str, float]

RATES = {
    "dropped_lines": "lines dropped by QMD's filter",
    "fallback": "answers that end in QMD's fallback",
    "lex_without_match": "lex lines that match no document",
    "entities_dropped": "entities of the query dropped",
    "cut": "answers cut at the token limit",
    "leaked": "answers with template or think tokens",
}
"""What is measured as a share, in words."""


class IncompleteError(Exception):
    """Measurements that are missing or not finite: there is no verdict on them."""


@dataclass(frozen=True)
class SideValues:
    """What the gate looks at of one model. Values by query id are means over the seeds."""

    ndcg: Mapping[str, ByQuery]
    """nDCG@10 by collection and query."""
    rubric: ByQuery
    """Rubric score of the eval queries, 0 to 1."""
    rates: Mapping[str, ByQuery]
    """Shares, 0 to 1, by name of RATES and query."""
    valid: tuple[int, int] | None
    """Ungrammared outputs that keep the rules, and outputs; None on a base model, where it is not measured."""
    tokens: float
    """Mean tokens an expansion."""
    latency: float | None
    """Median seconds an expansion; None as for `valid`."""
    size: int
    """Bytes of weights."""


@dataclass(frozen=True)
class GateInputs:
    """A candidate and what it would replace, measured on the same queries and seeds."""

    candidate: SideValues
    reference: SideValues
    none: Mapping[str, ByQuery]
    """nDCG@10 without expansion, by collection and query."""
    slices: Mapping[str, str]
    """The slice of each eval query."""
    first_deployment: bool
    """The reference is the base model, since nothing is deployed."""

    @property
    def reference_name(self) -> str:
        return "the base model" if self.first_deployment else "the deployed model"


def differences(what: str, minuend: ByQuery, subtrahend: ByQuery) -> Differences:
    """minuend − subtrahend by query, in the order of the query ids.

    Raises IncompleteError when the queries differ, there are none, or a value is not finite.
    """
    odd = minuend.keys() ^ subtrahend.keys()
    if odd:
        raise IncompleteError(f"{what}: {len(odd)} queries were measured on one side only, such as {min(odd)}.")
    return values(what, minuend) - values(what, subtrahend)


def values(what: str, by_query: ByQuery) -> Differences:
    """The values in the order of the query ids. Raises IncompleteError as `differences` does."""
    if not by_query:
        raise IncompleteError(f"{what}: nothing was measured.")
    array = np.array([by_query[query] for query in sorted(by_query)], dtype=float)
    if not np.isfinite(array).all():
        raise IncompleteError(f"{what}: a value is not a finite number.")
    return array


def by_collection(
    what: str, minuend: Mapping[str, ByQuery], subtrahend: Mapping[str, ByQuery]
) -> dict[str, Differences]:
    """The differences of each collection. Raises IncompleteError as `differences` does."""
    odd = minuend.keys() ^ subtrahend.keys()
    if odd or not minuend:
        raise IncompleteError(
            f"{what}: collections measured on one side only: {', '.join(sorted(odd)) or 'none at all'}."
        )
    return {name: differences(f"{what} on {name}", minuend[name], subtrahend[name]) for name in sorted(minuend)}
