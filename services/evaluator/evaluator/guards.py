"""The guards: conditions beside the gain in retrieval that a candidate must hold."""

import math
from collections.abc import Callable, Mapping

from evaluator.config import GateConfig
from evaluator.paired import RATES, GateInputs, IncompleteError, differences, values
from evaluator.statistics import Differences, Estimate, wilson_lower
from qmd_schema.verdicts import Guard

Estimator = Callable[[Differences], Estimate]


def guards(
    inputs: GateInputs,
    config: GateConfig,
    estimator: Estimator,
    collections: Mapping[str, Estimate],
    slices: Mapping[str, Estimate],
) -> list[Guard]:
    """Every guard of this comparison, held or not.

    estimator: bounds of a mean of paired differences. collections: gain in nDCG@10 over the reference by collection;
    slices: change of the rubric score by slice. Raises IncompleteError where a value is missing or not finite.
    """
    checked = [_valid(inputs, config), *_ceilings(inputs, config), _rubric(inputs, config, estimator)]
    checked += [_not_worse(f"rubric of slice {name}", s, config.slice_margin, config) for name, s in slices.items()]
    if len(collections) > 1:
        checked += [
            _not_worse(f"nDCG@10 on {name}", gain, config.collection_margin, config)
            for name, gain in collections.items()
        ]
    if inputs.first_deployment:
        return [*checked, _first_rubric(inputs, config)]
    return [*checked, *_rate_increases(inputs, config, estimator), *_costs(inputs, config)]


def _valid(inputs: GateInputs, config: GateConfig) -> Guard:
    if inputs.candidate.valid is None:
        raise IncompleteError("outputs without grammar: nothing was measured for the candidate.")
    valid, outputs = inputs.candidate.valid
    lower = wilson_lower(valid, outputs, config.confidence)
    note = f"{valid} of {outputs} outputs without grammar keep the rules; the Wilson lower bound is compared"
    return _at_least("valid outputs", lower, config.valid_outputs, note)


def _ceilings(inputs: GateInputs, config: GateConfig) -> list[Guard]:
    return [
        _at_most(
            f"{_words(name)}, ceiling",
            float(values(RATES[name], inputs.candidate.rates.get(name, {})).mean()),
            ceiling,
            f"share of {RATES[name]}, mean",
        )
        for name, ceiling in config.ceilings
    ]


def _rubric(inputs: GateInputs, config: GateConfig, estimator: Estimator) -> Guard:
    change = estimator(differences("rubric", inputs.candidate.rubric, inputs.reference.rubric))
    note = f"changes by {change.mean:+.3f} against {inputs.reference_name}; the lower bound is compared"
    return _at_least("rubric", change.lower, -config.rubric_margin, note)


def _not_worse(name: str, change: Estimate, margin: float, config: GateConfig) -> Guard:
    decides = change.queries >= config.minimum_queries
    note = f"changes by {change.mean:+.3f} over {change.queries} queries; the lower bound is compared"
    if not decides:
        note += f"; fewer than {config.minimum_queries} queries warn and never decide"
    return _at_least(name, change.lower, -margin, note, decides)


def _first_rubric(inputs: GateInputs, config: GateConfig) -> Guard:
    mean = float(values("rubric", inputs.candidate.rubric).mean())
    return _at_least("rubric, first deployment", mean, config.first_rubric, "mean over the eval queries")


def _rate_increases(inputs: GateInputs, config: GateConfig, estimator: Estimator) -> list[Guard]:
    checked = []
    for name, margin in config.rates:
        candidate, deployed = (side.rates.get(name, {}) for side in (inputs.candidate, inputs.reference))
        change = estimator(differences(RATES[name], candidate, deployed))
        note = f"share of {RATES[name]} changes by {change.mean:+.3f}; the upper bound is compared"
        checked.append(_at_most(f"{_words(name)}, increase", change.upper, margin, note))
    return checked


def _costs(inputs: GateInputs, config: GateConfig) -> list[Guard]:
    candidate, deployed = inputs.candidate, inputs.reference
    if candidate.latency is None or deployed.latency is None:
        raise IncompleteError("seconds an expansion: not measured on both sides.")
    return [
        _ratio("tokens", candidate.tokens, deployed.tokens, config.tokens_ratio, "{:.0f} mean tokens an expansion"),
        _ratio("latency", candidate.latency, deployed.latency, config.latency_ratio, "{:.2f} s median an expansion"),
        _ratio("size", candidate.size, deployed.size, config.size_ratio, "{:,.0f} bytes of weights"),
    ]


def _ratio(name: str, candidate: float, deployed: float, limit: float, unit: str) -> Guard:
    if not (0 < candidate < math.inf and 0 < deployed < math.inf):
        raise IncompleteError(f"{name}: {candidate} for the candidate and {deployed} for the deployed model.")
    note = f"{unit.format(candidate)}, the deployed model {unit.format(deployed)}; their ratio is compared"
    return _at_most(f"{name}, ratio", candidate / deployed, limit, note)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _at_least(name: str, value: float, limit: float, note: str, decides: bool = True) -> Guard:
    return Guard(name=name, value=value, limit=limit, held=value >= limit, decides=decides, note=note)


def _at_most(name: str, value: float, limit: float, note: str) -> Guard:
    return Guard(name=name, value=value, limit=limit, held=value <= limit, decides=True, note=note)
