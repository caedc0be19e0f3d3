"""The gate: from what two models did on the same queries to PASS, FAIL or INCONCLUSIVE."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from evaluator.config import GateConfig
from evaluator.guards import guards
from evaluator.paired import ByQuery, GateInputs, IncompleteError, by_collection, differences
from evaluator.statistics import (
    POWER,
    Differences,
    Estimate,
    detectable_gain,
    estimate,
    queries_to_decide,
    sign_flip_p_value,
)
from qmd_schema.verdicts import Guard, Interval, Outcome

OVER_REFERENCE = "over reference"
OVER_NONE = "over no expansion"


@dataclass(frozen=True)
class Decision:
    """What follows, and everything it follows from."""

    outcome: Outcome
    reasons: list[str]
    gains: dict[str, Interval]
    """Gains in nDCG@10 over the reference and over no expansion: over all collections, and "…: NAME" on each."""
    slices: dict[str, Interval]
    """Changes of the rubric score (0 to 1) against the reference, by slice."""
    guards: list[Guard]
    p_value: float
    queries_to_decide: int | None
    detectable_gain: float
    """The gain in nDCG@10 over the reference that this comparison could have shown, with probability POWER."""


@dataclass(frozen=True)
class _Evidence:
    """What the outcome and its reasons are drawn from."""

    inputs: GateInputs
    config: GateConfig
    gain: Estimate
    """In nDCG@10, over the reference."""
    over_none: Estimate
    p_value: float
    guards: Sequence[Guard]

    @property
    def broken(self) -> list[Guard]:
        return [guard for guard in self.guards if guard.decides and not guard.held]

    @property
    def outcome(self) -> Outcome:
        if self.broken or self.gain.upper < self.config.minimum_effect or self.over_none.upper <= 0:
            return "FAIL"
        enough = self.gain.queries >= self.config.minimum_queries
        gained = self.gain.lower > 0 and self.gain.mean >= self.config.minimum_effect
        agreed = self.p_value <= 1 - self.config.confidence
        return "PASS" if enough and gained and agreed and self.over_none.lower > 0 else "INCONCLUSIVE"


def decide(inputs: GateInputs, config: GateConfig) -> Decision:
    """Decides on plain values; the same inputs and config give the same decision.

    PASS: enough queries, no guard broken, the lower bound of the gain over the reference above 0 with its mean at
    least the minimum effect, a permutation test that agrees, and the lower bound of the gain over no expansion above
    0. FAIL: a guard broken, or an upper bound that rules one of these gains out. Otherwise INCONCLUSIVE.
    Raises IncompleteError where a value is missing or not finite, or the sides were measured on different queries.
    """
    bounds = partial(estimate, confidence=config.confidence, resamples=config.resamples, seed=config.seed)
    over_reference = by_collection("nDCG@10", inputs.candidate.ndcg, inputs.reference.ndcg)
    over_none = by_collection("nDCG@10 without expansion", inputs.candidate.ndcg, inputs.none)
    gains = {OVER_REFERENCE: bounds(list(over_reference.values())), OVER_NONE: bounds(list(over_none.values()))}
    on_collections = {name: bounds([gain]) for name, gain in over_reference.items()}
    on_collections_none = {name: bounds([gain]) for name, gain in over_none.items()}
    slices = {name: bounds([change]) for name, change in _by_slice(inputs).items()}
    evidence = _Evidence(
        inputs,
        config,
        gains[OVER_REFERENCE],
        gains[OVER_NONE],
        sign_flip_p_value(list(over_reference.values()), config.resamples, config.seed),
        guards(inputs, config, lambda changes: bounds([changes]), on_collections, slices),
    )
    needed = _queries_to_decide(evidence) if evidence.outcome == "INCONCLUSIVE" else None
    gains |= {f"{OVER_REFERENCE}: {name}": gain for name, gain in on_collections.items()}
    gains |= {f"{OVER_NONE}: {name}": gain for name, gain in on_collections_none.items()}
    return Decision(
        outcome=evidence.outcome,
        reasons=_reasons(evidence, needed),
        gains={name: _interval(gain) for name, gain in gains.items()},
        slices={name: _interval(change) for name, change in slices.items()},
        guards=list(evidence.guards),
        p_value=evidence.p_value,
        queries_to_decide=needed,
        detectable_gain=detectable_gain(evidence.gain, config.confidence),
    )


def _by_slice(inputs: GateInputs) -> dict[str, Differences]:
    """Changes of the rubric score by slice. Raises IncompleteError for a query without a slice."""
    candidate, reference = inputs.candidate.rubric, inputs.reference.rubric
    if inputs.slices.keys() != candidate.keys():
        raise IncompleteError("rubric: the measured queries are not those of the slices.")
    members: dict[str, list[str]] = {}
    for query, name in inputs.slices.items():
        members.setdefault(name, []).append(query)
    return {
        name: differences(f"rubric of slice {name}", _only(candidate, queries), _only(reference, queries))
        for name, queries in sorted(members.items())
    }


def _only(by_query: ByQuery, queries: Sequence[str]) -> ByQuery:
    return {query: by_query[query] for query in queries if query in by_query}


def _queries_to_decide(evidence: _Evidence) -> int | None:
    """Queries that would decide every comparison which is still open; None if no number would."""
    config, gain, over_none = evidence.config, evidence.gain, evidence.over_none
    needed = [max(config.minimum_queries, gain.queries + 1)]
    for open_, comparison, effect in (
        (gain.lower <= 0 or gain.mean < config.minimum_effect, gain, config.minimum_effect),
        (over_none.lower <= 0, over_none, 0.0),
    ):
        if open_:
            queries = queries_to_decide(comparison, effect, config.confidence)
            if queries is None:
                return None
            needed.append(queries)
    return max(needed)


def _reasons(evidence: _Evidence, needed: int | None) -> list[str]:
    """Why, for a reader who was not there: what decided first, then the gains, then what to know besides."""
    config, inputs, gain, over_none = evidence.config, evidence.inputs, evidence.gain, evidence.over_none
    reasons = [
        f"A guard is broken: {g.name} is {g.value:.3f}, its limit {g.limit:.3f} ({g.note})." for g in evidence.broken
    ]
    over_reference = _gain_sentence(gain, inputs.reference_name, config)
    if gain.upper < config.minimum_effect:
        over_reference += f" That rules the minimum effect of {config.minimum_effect:.3f} out."
    elif gain.mean < config.minimum_effect:
        over_reference += f" The minimum effect is {config.minimum_effect:.3f}, and the interval does not rule it out."
    elif gain.lower <= 0:
        over_reference += " The interval holds 0, so this may be chance."
    if evidence.p_value > 1 - config.confidence and gain.lower > 0:
        over_reference += f" But the permutation test does not agree (p = {evidence.p_value:.3f})."
    reasons.append(over_reference)
    reasons.append(_gain_sentence(over_none, "QMD without expansion", config))
    if over_none.upper <= 0:
        reasons[-1] += " Its expansions do harm or nothing."
    elif over_none.lower <= 0:
        reasons[-1] += " So it is not shown that its expansions help."
    if not evidence.broken:
        reasons.append(f"All {sum(guard.decides for guard in evidence.guards)} guards that decide are held.")
    if gain.queries < config.minimum_queries:
        reasons.append(
            f"{gain.queries} judged queries are too few to pass; the config asks for {config.minimum_queries}."
        )
    if evidence.outcome == "INCONCLUSIVE":
        reasons.append(_power_sentence(needed))
    if inputs.first_deployment:
        reasons.append("Nothing is deployed yet, so the candidate was compared with the base model.")
    if weak := [guard.name for guard in evidence.guards if not guard.decides and not guard.held]:
        reasons.append(f"Too few queries to decide, but worth a look: {', '.join(weak)}.")
    return reasons


def _gain_sentence(gain: Estimate, over: str, config: GateConfig) -> str:
    return (
        f"Against {over}, nDCG@10 changes by {gain.mean:+.3f} on average over {gain.queries} queries; with "
        f"{config.confidence:.0%} confidence each by at least {gain.lower:+.3f} and by at most {gain.upper:+.3f}."
    )


def _power_sentence(needed: int | None) -> str:
    if needed is None:
        return "No reachable number of queries would decide a gain of this size and spread."
    return f"About {needed:,} queries would decide it with {POWER:.0%} probability if gain and spread stay as measured."


def _interval(found: Estimate) -> Interval:
    return Interval(mean=found.mean, lower=found.lower, upper=found.upper, queries=found.queries)
