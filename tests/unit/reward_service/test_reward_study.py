import numpy as np
import pytest
from scipy.stats import spearmanr

from support.benchmarks import load_benchmark

study = load_benchmark("reward_study")
QUERIES = [number // 4 for number in range(200)]


def random_numbers(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_a_measure_is_correlated_with_the_gain_by_rank() -> None:
    gains = random_numbers(len(QUERIES))
    noisy = gains + random_numbers(len(QUERIES), seed=2)
    measures = np.stack([np.exp(gains)] + [noisy] * (len(study.MEASURES) - 1), axis=1)
    first, second, *_ = study.correlate(measures, gains, QUERIES)
    assert first.over_all == pytest.approx((1, 1, 1))
    estimate, lower, upper = second.over_all
    assert estimate == pytest.approx(spearmanr(noisy, gains).statistic)
    assert lower < estimate < upper


def test_what_differs_only_between_queries_says_nothing_of_the_answers_to_one() -> None:
    gains = np.repeat(random_numbers(len(QUERIES) // 4), 4)
    measures = np.stack([gains] * len(study.MEASURES), axis=1)
    found = study.correlate(measures, gains + 1e-3 * random_numbers(len(QUERIES), seed=2), QUERIES)[0]
    assert found.over_all[0] > 0.9 and abs(found.within[0]) < 1e-9


def test_the_share_of_variance_explained_is_all_of_a_linear_gain_and_nearly_none_of_noise() -> None:
    parts = random_numbers(500, 5)
    assert study.explained(parts, parts @ np.arange(5.0) + 3) == pytest.approx(1)
    assert study.explained(parts, random_numbers(500, seed=2)) < 0.05
