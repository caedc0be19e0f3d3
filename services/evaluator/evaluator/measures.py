"""What answers are worth: retrieval, rubric, contract and cost, per query and as figures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet
from evaluator.models import Model
from evaluator.paired import RATES, ByQuery, IncompleteError, SideValues
from evaluator.retrieval import Lines, Retrieval
from evaluator.statistics import wilson_lower
from evaluator.store import Answer
from qmd_reward.features import read_query
from qmd_reward.rubric import score
from qmd_schema.contract import ServedExpansion, serve
from qmd_schema.expansion import keeps_rules, parse, split_only
from qmd_search.metrics import METRICS

Values = dict[str, dict[str, list[float]]]
"""Measure -> query key -> one value a seed."""


@dataclass(frozen=True)
class Measured:
    """One model on the eval set."""

    by_query: Mapping[str, ByQuery]
    """Measure -> query key -> mean over seeds."""
    valid: Mapping[str, Sequence[bool]] | None
    """Whether each ungrammared output of a query keeps the rules; None where it was not measured."""
    latencies: Sequence[float] | None
    """Seconds an expansion, asked one at a time; None where it was not measured."""
    weight_bytes: int
    memory_bytes: int
    """Of weights and a whole context's keys and values."""


def measure_model(
    model: Model,
    answers: Sequence[Answer],
    latencies: Sequence[float] | None,
    eval_set: EvalSet,
    retrieval: Retrieval,
    config: EvaluatorConfig,
) -> Measured:
    """Raises IncompleteError when an answer of a query and seed is missing."""
    served = {a: serve(eval_set.texts[a.query], a.text) for a in answers if a.grammar}
    judged = {a: expansion for a, expansion in served.items() if a.query not in eval_set.eval_texts}
    retrieval.embed(line for expansion in judged.values() for line in expansion.lines)
    values: Values = defaultdict(lambda: defaultdict(list))
    for seed in config.seeds:
        expansions = {a.query: expansion.lines for a, expansion in served.items() if a.seed == seed}
        if missing := eval_set.texts.keys() - expansions.keys():
            raise IncompleteError(f"{len(missing)} answers are missing for seed {seed}, such as {min(missing)}.")
        for query, metrics in retrieval.measure(expansions).items():
            for metric, value in metrics.items():
                values[metric][query].append(value)
    for answer, expansion in served.items():
        _add_contract(values, answer, eval_set, expansion, retrieval)
    for answer in answers:
        values["leaked"][answer.query].append(answer.leaked)
    free: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        if not answer.grammar:
            free[answer.query].append(is_valid(eval_set.texts[answer.query], answer))
    expected = len(eval_set.queries) * config.ungrammared_seeds
    if free and sum(map(len, free.values())) != expected:
        raise IncompleteError(f"{sum(map(len, free.values()))} of {expected} outputs without grammar are there.")
    by_query = {name: {query: fmean(v) for query, v in queries.items()} for name, queries in values.items()}
    memory = model.weight_bytes + model.cache_bytes
    return Measured(by_query, dict(free) or None, latencies, model.weight_bytes, memory)


def measure_none(eval_set: EvalSet, retrieval: Retrieval) -> dict[str, dict[str, float]]:
    """Metric -> query key -> value, of searches without expansion."""
    measured = retrieval.measure(dict.fromkeys(eval_set.texts, ()))
    return {metric: {query: metrics[metric] for query, metrics in measured.items()} for metric in METRICS}


def is_valid(query: str, answer: Answer) -> bool:
    """Whether an output written without grammar ends by itself and keeps every rule of an expansion."""
    return answer.ended and not answer.leaked and keeps_rules(query, answer.text)


def entities_dropped(query: str, lines: Lines) -> float | None:
    """The share of the query's entities that no lex or vec line holds; None for a query without entities.

    Where there is neither kind, as in a `/only:hyde` expansion, the hyde line counts.
    """
    entities = read_query(split_only(query)[0]).entities
    if not entities:
        return None
    looked_at = [line.text for line in lines if line.kind != "hyde"] or [line.text for line in lines]
    text = " ".join(looked_at).lower()
    return sum(entity not in text for entity in entities) / len(entities)


def side_values(measured: Measured) -> SideValues:
    """What the gate looks at."""
    return SideValues(
        ndcg=by_source(measured.by_query["ndcg@10"]),
        rubric=measured.by_query["rubric"],
        rates={name: measured.by_query[name] for name in RATES},
        valid=None if measured.valid is None else _count_valid(measured.valid),
        tokens=fmean(measured.by_query["tokens"].values()),
        latency=None if measured.latencies is None else float(np.median(measured.latencies)),
        size=measured.weight_bytes,
    )


def retrieval_figures(by_query: Mapping[str, ByQuery]) -> dict[str, float]:
    """The retrieval metrics, over all collections, each of which weighs the same, and as "METRIC: NAME" on each."""
    figures = {}
    for metric in METRICS:
        means = {name: fmean(queries.values()) for name, queries in by_source(by_query[metric]).items()}
        figures[metric] = fmean(means.values())
        figures |= {f"{metric}: {name}": mean for name, mean in means.items()}
    return figures


def model_figures(measured: Measured, slices: Mapping[str, str], confidence: float) -> dict[str, float]:
    """Every figure of a model by name; what was not measured is absent.

    Rubric, excellent and valid_outputs also come by slice, as "rubric: NAME". Shares and scores are 0 to 1.
    """
    by_query = measured.by_query
    figures = retrieval_figures(by_query)
    figures |= {name: fmean(by_query[name].values()) for name in ("rubric", "excellent", *RATES, "tokens")}
    names = sorted(set(slices.values()))
    for figure in ("rubric", "excellent"):
        for name in names:
            figures[f"{figure}: {name}"] = fmean(v for query, v in by_query[figure].items() if slices[query] == name)
    if measured.valid is not None:
        valid, outputs = _count_valid(measured.valid)
        figures["valid_outputs"] = valid / outputs
        figures["valid_outputs_lower"] = wilson_lower(valid, outputs, confidence)
        for name in names:
            valid, outputs = _count_valid({q: flags for q, flags in measured.valid.items() if slices[q] == name})
            figures[f"valid_outputs: {name}"] = valid / outputs
    if measured.latencies is not None:
        p50, p95 = np.quantile(measured.latencies, (0.5, 0.95))
        figures |= {"latency_p50": float(p50), "latency_p95": float(p95)}
    return figures | {"weight_bytes": float(measured.weight_bytes), "memory_bytes": float(measured.memory_bytes)}


def by_source(by_query: ByQuery) -> dict[str, ByQuery]:
    """Splits values by the first part of the query's key: the collection."""
    sources: dict[str, dict[str, float]] = defaultdict(dict)
    for query, value in by_query.items():
        sources[query.partition("/")[0]][query] = value
    return dict(sources)


def _count_valid(valid: Mapping[str, Sequence[bool]]) -> tuple[int, int]:
    return sum(sum(flags) for flags in valid.values()), sum(len(flags) for flags in valid.values())


def _add_contract(
    values: Values, answer: Answer, eval_set: EvalSet, served: ServedExpansion, retrieval: Retrieval
) -> None:
    query = eval_set.texts[answer.query]

    def add(name: str, value: float) -> None:
        values[name][answer.query].append(value)

    # An answer without a line keeps nothing, so all of it counts as dropped.
    written = len(parse(answer.text).expansion.lines)
    add("dropped_lines", len(served.dropped) / written if written else 1.0)
    add("fallback", served.is_fallback)
    add("cut", not answer.ended)
    add("tokens", answer.tokens)
    lost = entities_dropped(query, served.lines)
    if lost is not None:
        add("entities_dropped", lost)
    if answer.query in eval_set.eval_texts:
        points = score(query, answer.text)
        add("rubric", points.percentage / 100)
        add("excellent", points.rating == "Excellent")
    else:
        # No lex line finds as little as lex lines that match nothing.
        lex = [line.text for line in served.lines if line.kind == "lex"]
        add("lex_without_match", fmean(retrieval.finds_nothing(answer.query, line) for line in lex) if lex else 1.0)
