"""The gate on simulated measurements: what it lets pass, what it stops, and what it says."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from evaluator.config import GateConfig, RateMargins
from evaluator.gate import decide
from evaluator.paired import RATES, GateInputs, IncompleteError, SideValues

CONFIG = GateConfig(resamples=1000)
FEW_QUERIES = GateConfig(
    resamples=1000, collection_margin=0.5, rates=RateMargins(lex_without_match=0.5, dropped_lines=0.2)
)
"""Few queries make wide intervals; here the gain is looked at, not the guards."""
COLLECTIONS = ("notes", "manuals")
SLICES = ("short", "named_entity", "only", "personal_note")
PER_COLLECTION = 150
PER_SLICE = 40
NDCG_SPREAD = 0.15
"""Of one side's nDCG@10 around what a query allows, with the mean over seeds taken."""


def simulate(
    seed: int,
    gain: float = 0.0,
    over_none: float = 0.06,
    first_deployment: bool = False,
    per_collection: int = PER_COLLECTION,
) -> GateInputs:
    """A candidate whose true gain over the reference is `gain`, and a reference that gains `over_none` by expanding."""
    random = np.random.default_rng(seed)
    judged = {name: [f"{name}/{i}" for i in range(per_collection)] for name in COLLECTIONS}
    slices = {f"queries/{name}-{i}": name for name in SLICES for i in range(PER_SLICE)}
    queries = [*slices, *(query for ids in judged.values() for query in ids)]
    none = {name: dict(zip(ids, random.normal(0.6, 0.3, len(ids)), strict=True)) for name, ids in judged.items()}

    def side(more: float) -> SideValues:
        def shares(mean: float) -> dict[str, float]:
            return dict(zip(queries, random.binomial(4, mean, len(queries)) / 4, strict=True))

        return SideValues(
            ndcg={
                name: {
                    query: value + over_none + more + random.normal(0, NDCG_SPREAD) for query, value in values.items()
                }
                for name, values in none.items()
            },
            rubric={query: float(np.clip(random.normal(0.85, 0.06), 0, 1)) for query in slices},
            rates={
                "dropped_lines": shares(0.02),
                "fallback": shares(0.0),
                "lex_without_match": {q: v for q, v in shares(0.3).items() if q not in slices},
                "entities_dropped": shares(0.05),
                "cut": shares(0.0),
                "leaked": shares(0.0),
            },
            valid=(1408, 1408),
            tokens=110.0,
            latency=1.0,
            size=270_000_000,
        )

    reference = side(0.0)
    if first_deployment:
        reference = replace(reference, valid=None, latency=None)
    return GateInputs(side(gain), reference, none, slices, first_deployment)


def with_candidate(inputs: GateInputs, **changes: object) -> GateInputs:
    return replace(inputs, candidate=replace(inputs.candidate, **changes))


def with_rate(inputs: GateInputs, name: str, change: Callable[[float], float]) -> GateInputs:
    values = {query: change(value) for query, value in inputs.candidate.rates[name].items()}
    return with_candidate(inputs, rates={**inputs.candidate.rates, name: values})


def with_rubric(inputs: GateInputs, change: Callable[[str, float], float]) -> GateInputs:
    rubric = {query: change(inputs.slices[query], value) for query, value in inputs.candidate.rubric.items()}
    return with_candidate(inputs, rubric=rubric)


def break_slice(inputs: GateInputs) -> GateInputs:
    """One slice falls far while the mean of all rises."""
    return with_rubric(inputs, lambda name, value: value - 0.3 if name == "only" else min(1.0, value + 0.12))


def break_collection(inputs: GateInputs) -> GateInputs:
    """One collection loses while the other gains more, so that the mean rises."""
    shift = {"notes": -0.12, "manuals": 0.2}
    ndcg = {
        name: {query: value + shift[name] for query, value in values.items()}
        for name, values in inputs.candidate.ndcg.items()
    }
    return with_candidate(inputs, ndcg=ndcg)


REGRESSIONS: dict[str, tuple[str, Callable[[GateInputs], GateInputs]]] = {
    "lines dropped": ("dropped lines", lambda i: with_rate(i, "dropped_lines", lambda v: min(1, v + 0.12))),
    "lex lines made long": (
        "lex without match",
        lambda i: with_rate(i, "lex_without_match", lambda v: min(1, v + 0.4)),
    ),
    "entities removed": ("entities dropped", lambda i: with_rate(i, "entities_dropped", lambda v: min(1, v + 0.2))),
    "template tokens leaked": ("leaked", lambda i: with_rate(i, "leaked", lambda v: v + 0.05)),
    "never stops": ("cut", lambda i: with_rate(i, "cut", lambda _: 1.0)),
    "falls back": ("fallback", lambda i: with_rate(i, "fallback", lambda v: v + 0.1)),
    "hyde not first": ("valid outputs", lambda i: with_candidate(i, valid=(1320, 1408))),
    "emits nothing": ("valid outputs", lambda i: with_candidate(i, valid=(0, 1408))),
    "rubric lost": ("rubric", lambda i: with_rubric(i, lambda _, v: v - 0.1)),
    "a slice broken while the mean rises": ("slice only", break_slice),
    "a collection broken while the mean rises": ("nDCG@10 on notes", break_collection),
    "more tokens": ("tokens", lambda i: with_candidate(i, tokens=180.0)),
    "slower": ("latency", lambda i: with_candidate(i, latency=1.6)),
    "larger artifact": ("size", lambda i: with_candidate(i, size=540_000_000)),
}


def test_a_model_against_its_equal_passes_in_at_most_five_percent_of_200_runs():
    passed = [decide(simulate(seed), CONFIG).outcome == "PASS" for seed in range(200)]
    assert sum(passed) <= 10


def test_a_first_candidate_that_is_no_better_than_its_base_passes_in_at_most_five_percent_of_200_runs():
    passed = [decide(simulate(seed, first_deployment=True), CONFIG).outcome == "PASS" for seed in range(200)]
    assert sum(passed) <= 10


def test_a_planted_improvement_passes_with_the_power_it_should_have():
    # Each of 300 queries differs with spread .15·√2, so a gain of .04 lies 3.3 standard errors above 0.
    outcomes = [decide(simulate(seed, gain=0.04), CONFIG).outcome for seed in range(50)]
    assert outcomes.count("PASS") >= 40


def test_a_planted_loss_never_passes():
    assert all(decide(simulate(seed, gain=-0.04), CONFIG).outcome == "FAIL" for seed in range(20))


@pytest.mark.parametrize("regression", REGRESSIONS)
def test_a_planted_regression_fails_however_much_retrieval_gains(regression):
    name, plant = REGRESSIONS[regression]
    clean = simulate(1, gain=0.1)
    assert decide(clean, CONFIG).outcome == "PASS"
    decision = decide(plant(clean), CONFIG)
    assert decision.outcome == "FAIL"
    assert any(name in reason for reason in decision.reasons if reason.startswith("A guard is broken"))


def test_a_slice_with_few_queries_warns_and_does_not_decide():
    inputs = simulate(1, gain=0.1)
    slices = {q: ("rare" if q in ("queries/short-0", "queries/short-1") else s) for q, s in inputs.slices.items()}
    inputs = with_rubric(replace(inputs, slices=slices), lambda name, value: 0.2 if name == "rare" else value)
    decision = decide(inputs, CONFIG)
    assert decision.outcome == "PASS"
    (guard,) = [guard for guard in decision.guards if guard.name == "rubric of slice rare"]
    assert not guard.held and not guard.decides
    assert any("rare" in reason for reason in decision.reasons)


def test_too_few_judged_queries_never_pass():
    decision = decide(simulate(3, gain=0.3, per_collection=14), FEW_QUERIES)
    assert decision.gains["over reference"].lower > 0.1
    assert decision.outcome == "INCONCLUSIVE"
    assert any("28 judged queries are too few" in reason for reason in decision.reasons)


def test_an_interval_around_the_minimum_effect_is_inconclusive_and_tells_the_queries_needed():
    inputs = simulate(5, gain=0.02, per_collection=40)
    decision = decide(inputs, FEW_QUERIES)
    assert decision.outcome == "INCONCLUSIVE"
    assert decision.queries_to_decide is not None and decision.queries_to_decide > 80
    assert any(f"About {decision.queries_to_decide:,} queries" in reason for reason in decision.reasons)


def test_the_number_of_queries_that_would_decide_does_decide():
    decision = decide(simulate(1, gain=0.03, per_collection=40), FEW_QUERIES)
    assert decision.outcome == "INCONCLUSIVE" and decision.queries_to_decide is not None
    measured = decision.gains["over reference"].mean
    size = math.ceil(decision.queries_to_decide / 2)
    outcomes = [decide(simulate(s, gain=measured, per_collection=size), FEW_QUERIES).outcome for s in range(60)]
    assert sum(outcome != "INCONCLUSIVE" for outcome in outcomes) >= 42


def test_expansions_that_harm_fail_though_they_beat_the_deployed_model():
    decision = decide(simulate(1, gain=0.1, over_none=-0.3), CONFIG)
    assert decision.gains["over reference"].lower > 0
    assert decision.outcome == "FAIL"
    assert any("do harm" in reason for reason in decision.reasons)


def test_expansions_not_shown_to_help_are_inconclusive_though_they_beat_the_deployed_model():
    decision = decide(simulate(1, gain=0.1, over_none=-0.1), CONFIG)
    assert decision.outcome == "INCONCLUSIVE"


def test_a_first_deployment_passes_on_floors_and_gains_alone():
    decision = decide(simulate(2, gain=0.1, first_deployment=True), CONFIG)
    assert decision.outcome == "PASS"
    names = {guard.name for guard in decision.guards}
    assert "rubric, first deployment" in names
    assert not names & {"tokens, ratio", "latency, ratio", "size, ratio", "dropped lines, increase"}
    assert any("Nothing is deployed yet" in reason for reason in decision.reasons)


def test_a_first_deployment_below_the_rubric_floor_fails():
    inputs = with_rubric(simulate(2, gain=0.1, first_deployment=True), lambda _, v: v - 0.2)
    inputs = replace(inputs, reference=replace(inputs.reference, rubric=dict.fromkeys(inputs.slices, 0.2)))
    decision = decide(inputs, CONFIG)
    assert decision.outcome == "FAIL"
    assert any("rubric, first deployment" in reason for reason in decision.reasons)


def test_the_same_measurements_give_the_same_decision():
    assert decide(simulate(4, gain=0.02), CONFIG) == decide(simulate(4, gain=0.02), CONFIG)


def test_every_reason_is_a_sentence_and_the_first_tells_what_decided():
    passed = decide(simulate(1, gain=0.1), CONFIG).reasons
    failed = decide(with_candidate(simulate(1, gain=0.1), size=10**9), CONFIG).reasons
    assert all(reason[0].isupper() and reason.endswith(".") for reason in [*passed, *failed])
    assert passed[0].startswith("Against the deployed model, nDCG@10 changes by +0.0")
    assert failed[0].startswith("A guard is broken: size, ratio is 3.704, its limit 1.050")


def nan_in_ndcg(inputs: GateInputs) -> GateInputs:
    ndcg = {name: dict(values) for name, values in inputs.candidate.ndcg.items()}
    ndcg["notes"]["notes/0"] = math.nan
    return with_candidate(inputs, ndcg=ndcg)


def a_query_missing(inputs: GateInputs) -> GateInputs:
    rubric = dict(inputs.candidate.rubric)
    del rubric["queries/only-3"]
    return with_candidate(inputs, rubric=rubric)


def a_judged_query_missing(inputs: GateInputs) -> GateInputs:
    ndcg = {name: dict(values) for name, values in inputs.candidate.ndcg.items()}
    del ndcg["manuals"]["manuals/7"]
    return with_candidate(inputs, ndcg=ndcg)


MISSING: dict[str, Callable[[GateInputs], GateInputs]] = {
    "a NaN among the gains": nan_in_ndcg,
    "a query without rubric": a_query_missing,
    "a judged query on one side only": a_judged_query_missing,
    "a collection on one side only": lambda i: with_candidate(i, ndcg={"notes": i.candidate.ndcg["notes"]}),
    "no collection": lambda i: replace(with_candidate(i, ndcg={}), reference=replace(i.reference, ndcg={}), none={}),
    "no rubric": lambda i: with_candidate(i, rubric={}),
    "no ungrammared outputs": lambda i: with_candidate(i, valid=None),
    "a NaN among the rates": lambda i: with_rate(i, "cut", lambda _: math.nan),
    "no rate": lambda i: with_rate_removed(i, "leaked"),
    "a rate of nothing": lambda i: with_candidate(i, rates={**i.candidate.rates, "entities_dropped": {}}),
    "no latency": lambda i: with_candidate(i, latency=None),
    "a NaN for latency": lambda i: with_candidate(i, latency=math.nan),
    "no tokens": lambda i: with_candidate(i, tokens=math.nan),
    "an empty deployed model": lambda i: replace(i, reference=replace(i.reference, size=0)),
}


def with_rate_removed(inputs: GateInputs, name: str) -> GateInputs:
    return with_candidate(inputs, rates={rate: v for rate, v in inputs.candidate.rates.items() if rate != name})


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_or_not_a_number_gives_no_verdict(missing):
    with pytest.raises(IncompleteError):
        decide(MISSING[missing](simulate(1, gain=0.1)), CONFIG)


def test_every_rate_with_a_limit_is_measured():
    limited = {name for name, _ in CONFIG.ceilings} | {name for name, _ in CONFIG.rates}
    assert limited == set(RATES)
