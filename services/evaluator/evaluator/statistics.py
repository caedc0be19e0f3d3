"""Paired differences with their uncertainty: bootstrap, permutation test, Wilson bound, power.

Differences come in strata, one array a collection, one number a query. Every stratum weighs the same whatever its
size, as BEIR averages over its data sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Differences = NDArray[np.float64]

POWER = 0.8
"""Probability with which `queries_to_decide` and `detectable_gain` promise a decision."""

_NORMAL = NormalDist()
_CHUNK_NUMBERS = 4_000_000
"""Random numbers drawn at once, which bounds the memory of a resampling to some 100 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean of paired differences, averaged within strata and then over them."""

    mean: float
    lower: float
    """Bound that the true mean exceeds with the stated confidence, one-sided."""
    upper: float
    """Bound that the true mean stays below with the stated confidence, one-sided."""
    standard_error: float
    queries: int


def estimate(strata: Sequence[Differences], confidence: float, resamples: int, seed: int) -> Estimate:
    """The mean with percentile bootstrap bounds, queries resampled within each stratum.

    Raises ValueError for a stratum with fewer than two queries or a number that is not finite.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13; Miller 2024 (arXiv 2411.00640), sec. 4.
    """
    _check(strata)
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for stratum in strata:
        size = len(stratum)
        for rows in _chunks(resamples, size):
            drawn = random.integers(0, size, (rows.stop - rows.start, size))
            means[rows] += stratum[drawn].mean(axis=1) / len(strata)
    lower, upper = np.quantile(means, (1 - confidence, confidence))
    variance = sum(stratum.var(ddof=1) / len(stratum) for stratum in strata) / len(strata) ** 2
    return Estimate(_mean(strata), float(lower), float(upper), math.sqrt(variance), sum(map(len, strata)))


def sign_flip_p_value(strata: Sequence[Differences], resamples: int, seed: int) -> float:
    """One-sided p-value of a mean above zero: how often random signs give at least the measured mean.

    In (0, 1]; the measured signs count as one of the draws, so it is never 0. Raises ValueError as `estimate` does.
    Source: Fisher's randomisation test; Phipson & Smyth 2010 (arXiv 1603.05766) for the count of the measured draw.
    """
    _check(strata)
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for stratum in strata:
        size = len(stratum)
        for rows in _chunks(resamples, size):
            signs = random.integers(0, 2, (rows.stop - rows.start, size), dtype=np.int8) * 2 - 1
            means[rows] += (signs @ stratum) / (size * len(strata))
    # Equal sums differ in their last bits when they are added in another order.
    reached = int((means >= _mean(strata) - 1e-12).sum())
    return (1 + reached) / (1 + resamples)


def wilson_lower(successes: int, trials: int, confidence: float) -> float:
    """One-sided lower bound of a rate. Raises ValueError without trials.

    Source: Wilson 1927, JASA 22, eq. for the score interval.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is not a rate")
    z = _NORMAL.inv_cdf(confidence)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def queries_to_decide(gain: Estimate, effect: float, confidence: float) -> int | None:
    """Queries at which a gain of this mean and spread is decided with probability POWER; None if no number does.

    Decided upwards: the mean is at least `effect` and its lower bound above 0. Downwards: the upper bound is below
    `effect`. The strata keep their proportions. Normal approximation.
    """
    bound, power = _NORMAL.inv_cdf(confidence), _NORMAL.inv_cdf(POWER)
    distance = gain.mean - effect
    if distance == 0:
        return None
    spread = gain.standard_error * math.sqrt(gain.queries)
    if distance < 0:
        needed = (bound + power) * spread / -distance
    else:
        needed = max(power * spread / distance, (bound + power) * spread / gain.mean)
    if not needed * needed < 1e9:
        return None
    return max(gain.queries + 1, math.ceil(needed * needed))


def detectable_gain(gain: Estimate, confidence: float) -> float:
    """The true gain whose lower bound would lie above 0 with probability POWER, at this spread and these queries."""
    return (_NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(POWER)) * gain.standard_error


def _mean(strata: Sequence[Differences]) -> float:
    return float(np.mean([stratum.mean() for stratum in strata]))


def _check(strata: Sequence[Differences]) -> None:
    if not strata:
        raise ValueError("no queries to compare")
    for stratum in strata:
        if len(stratum) < 2:
            raise ValueError(f"{len(stratum)} query in a collection or slice; an interval wants at least 2")
        if not np.isfinite(stratum).all():
            raise ValueError("a difference is not a finite number")


def _chunks(rows: int, columns: int) -> list[slice]:
    step = max(1, _CHUNK_NUMBERS // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
