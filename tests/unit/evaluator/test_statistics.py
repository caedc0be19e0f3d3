import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluator.statistics import (
    Estimate,
    detectable_gain,
    estimate,
    queries_to_decide,
    sign_flip_p_value,
    wilson_lower,
)

CONFIDENCE = 0.95

differences = arrays(np.float64, st.integers(2, 40), elements=st.floats(-1, 1, width=32))
strata = st.lists(differences, min_size=1, max_size=3)


@settings(max_examples=50, deadline=None)
@given(strata)
def test_the_bounds_hold_the_mean_between_the_extremes(given_strata):
    found = estimate(given_strata, CONFIDENCE, 500, seed=0)
    lowest, highest = (np.mean([end(s) for s in given_strata]) for end in (np.min, np.max))
    assert lowest - 1e-9 <= found.lower <= found.upper <= highest + 1e-9
    assert found.mean == pytest.approx(np.mean([s.mean() for s in given_strata]))
    assert found.queries == sum(map(len, given_strata))


@settings(max_examples=50, deadline=None)
@given(strata)
def test_the_same_seed_gives_the_same_bounds_and_p_value(given_strata):
    assert estimate(given_strata, CONFIDENCE, 300, seed=3) == estimate(given_strata, CONFIDENCE, 300, seed=3)
    assert sign_flip_p_value(given_strata, 300, seed=3) == sign_flip_p_value(given_strata, 300, seed=3)


@settings(max_examples=50, deadline=None)
@given(strata)
def test_a_p_value_is_above_zero_and_at_most_one(given_strata):
    assert 0 < sign_flip_p_value(given_strata, 300, seed=0) <= 1


@settings(max_examples=50, deadline=None)
@given(differences, st.floats(0.01, 1))
def test_adding_a_constant_gain_moves_both_bounds_by_it(stratum, gain):
    before = estimate([stratum], CONFIDENCE, 300, seed=0)
    after = estimate([stratum + gain], CONFIDENCE, 300, seed=0)
    assert (after.lower, after.upper) == pytest.approx((before.lower + gain, before.upper + gain))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2000), st.data())
def test_a_wilson_bound_lies_below_the_rate_and_rises_with_every_success(trials, data):
    successes = data.draw(st.integers(0, trials - 1))
    lower = wilson_lower(successes, trials, CONFIDENCE)
    assert 0 <= lower <= successes / trials + 1e-12
    assert wilson_lower(successes + 1, trials, CONFIDENCE) > lower


@settings(max_examples=100, deadline=None)
@given(st.floats(-0.2, 0.2), st.floats(0.01, 0.5), st.integers(10, 500), st.floats(0.001, 0.1))
def test_more_queries_than_there_are_would_decide_or_none_would(mean, spread, queries, effect):
    gain = Estimate(mean, mean - 1, mean + 1, spread / queries**0.5, queries)
    needed = queries_to_decide(gain, effect, CONFIDENCE)
    assert needed is None or needed > queries


def test_a_wilson_bound_is_the_published_one():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, two-sided 95 %, lower limit 0.2553.
    assert wilson_lower(81, 263, 0.975) == pytest.approx(0.2553, abs=5e-5)


def test_collections_weigh_the_same_whatever_their_size():
    small, large = np.full(4, 0.2), np.full(400, 0.0)
    assert estimate([small, large], CONFIDENCE, 300, seed=0).mean == pytest.approx(0.1)


def test_the_standard_error_is_that_of_a_plain_mean():
    stratum = np.random.default_rng(0).normal(0.05, 0.3, 400)
    found = estimate([stratum], CONFIDENCE, 10_000, seed=0)
    assert found.standard_error == pytest.approx(stratum.std(ddof=1) / 20)
    assert found.mean - found.lower == pytest.approx(1.645 * found.standard_error, rel=0.05)


def test_the_lower_bound_covers_the_true_mean_as_often_as_promised():
    random = np.random.default_rng(0)
    below = [estimate([random.normal(0, 0.3, 80)], CONFIDENCE, 1000, seed=0).lower <= 0 for _ in range(400)]
    assert 0.92 <= np.mean(below) <= 0.98


def test_a_permutation_test_of_nothing_is_certain_of_nothing():
    assert sign_flip_p_value([np.zeros(20)], 1000, seed=0) == 1


def test_a_permutation_test_counts_signs_exactly_on_few_queries():
    # Of the 8 assignments of signs to three equal gains, one reaches their mean.
    assert sign_flip_p_value([np.full(3, 0.1)], 100_000, seed=0) == pytest.approx(1 / 8, abs=0.01)


def test_a_clear_gain_has_a_small_p_value():
    assert sign_flip_p_value([np.random.default_rng(0).normal(0.1, 0.1, 60)], 10_000, seed=0) < 0.001


def test_a_gain_of_the_detectable_size_reaches_a_bound_above_zero_four_times_in_five():
    random = np.random.default_rng(1)
    spread, queries = 0.25, 100
    planted = detectable_gain(Estimate(0, 0, 0, spread / 10, queries), CONFIDENCE)
    found = [
        estimate([random.normal(planted, spread, queries)], CONFIDENCE, 1000, seed=0).lower > 0 for _ in range(300)
    ]
    assert 0.74 <= np.mean(found) <= 0.86


def test_no_number_of_queries_decides_a_gain_of_exactly_the_minimum_effect():
    assert queries_to_decide(Estimate(0.01, -0.01, 0.03, 0.012, 100), 0.01, CONFIDENCE) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad):
    stratum = np.array([0.1, bad, 0.2])
    with pytest.raises(ValueError, match="finite"):
        estimate([stratum], CONFIDENCE, 300, seed=0)
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p_value([stratum], 300, seed=0)


@pytest.mark.parametrize("given_strata", [[], [np.array([])], [np.array([0.3])]])
def test_too_few_queries_for_an_interval_are_refused(given_strata):
    with pytest.raises(ValueError, match="quer"):
        estimate(given_strata, CONFIDENCE, 300, seed=0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_rate_has_no_bound(successes, trials):
    with pytest.raises(ValueError, match="rate"):
        wilson_lower(successes, trials, CONFIDENCE)
