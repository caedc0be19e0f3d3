"""The report: one self-contained page that says what was decided and shows why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluator.config import EvaluatorConfig, GateConfig
from evaluator.evalset import EvalSet
from evaluator.gate import OVER_NONE, OVER_REFERENCE, Decision
from evaluator.measures import Measured
from evaluator.models import Engine
from evaluator.paired import RATES, ByQuery, differences
from evaluator.retrieval import Lines, Retrieval
from evaluator.statistics import estimate
from evaluator.store import Answer
from qmd_schema.contract import serve
from qmd_schema.verdicts import Guard, Interval, SignedVerdict
from qmd_search.metrics import METRICS

MOVERS = 10
"""Queries shown that gained most, and as many that lost most."""
MAX_LINES_SHOWN = 8


@dataclass(frozen=True)
class Side:
    """One model of a comparison: what it answered and what that is worth."""

    label: str
    """Such as "candidate" or "base model"."""
    engine: Engine
    answers: Sequence[Answer]
    measured: Measured
    figures: dict[str, float]


def render_report(
    signed: SignedVerdict,
    decision: Decision,
    sides: Mapping[str, Side],
    none: ByQuery,
    eval_set: EvalSet,
    retrieval: Retrieval,
    config: EvaluatorConfig,
) -> str:
    """The page as HTML, with everything in it. none: nDCG@10 without expansion, by query key."""
    candidate = sides["candidate"].measured.by_query["ndcg@10"]
    reference = sides["reference"].measured.by_query["ndcg@10"]
    gains = {query: candidate[query] - reference[query] for query in candidate}
    ordered = sorted(gains, key=lambda query: (-gains[query], query))
    movers = {
        "gained most": [query for query in ordered[:MOVERS] if gains[query] > 0],
        "lost most": [query for query in reversed(ordered[-MOVERS:]) if gains[query] < 0],
    }
    template = Environment(
        loader=PackageLoader("evaluator"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    return template.render(
        verdict=signed.verdict,
        public_key=signed.public_key,
        decision=decision,
        engines={name: side.engine for name, side in sides.items()},
        parity=engine_parity(sides, decision, config.gate),
        labels={name: side.label for name, side in sides.items()} | {"none": "no expansion"},
        plots=[
            (
                "Gain in nDCG@10",
                _forest(_retrieval_rows(decision, sides["reference"].label), config.gate.minimum_effect),
            ),
            (f"Change of the rubric score against the {sides['reference'].label}, by slice", _forest(decision.slices)),
        ],
        by_query=[gains[query] for query in ordered],
        tables=_tables(signed.verdict.figures),
        slices=_slices(sides, eval_set),
        guards=[(guard, _sign(guard)) for guard in decision.guards],
        movers={
            title: [_mover(query, sides, none, eval_set, retrieval) for query in queries]
            for title, queries in movers.items()
        },
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        confidence=config.gate.confidence,
    )


def _retrieval_rows(decision: Decision, reference: str) -> dict[str, Interval]:
    """The gains on all collections, and on each where there are several."""
    totals = (OVER_REFERENCE, OVER_NONE)
    several = len(decision.gains) > 2 * len(totals)
    return {
        name.replace(OVER_REFERENCE, f"over {reference}"): gain
        for name, gain in decision.gains.items()
        if several or name in totals
    }


def _forest(rows: Mapping[str, Interval], mark: float | None = None) -> dict[str, Any]:
    """A forest plot: each interval's place in percent of the plot's width, and those of 0 and of `mark`."""
    ends = [end for row in rows.values() for end in (row.lower, row.upper)] + [0.0, mark or 0.0]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "zero": place(0.0),
        "mark": None if mark is None else place(mark),
        "mark_value": mark,
        "rows": [
            {"name": name, "interval": row, "from": place(row.lower), "to": place(row.upper), "at": place(row.mean)}
            for name, row in rows.items()
        ],
    }


def _tables(figures: Mapping[str, Mapping[str, float]]) -> dict[str, list[tuple[str, list[str]]]]:
    """Tables of figures: title -> rows of name and the values of candidate, reference and no expansion."""
    retrieval = [name for name in figures["none"] if name in METRICS]
    if len(figures["none"]) > 2 * len(METRICS):
        retrieval = list(figures["none"])
    quality = {"rubric": "rubric score", "excellent": "rated Excellent", "valid_outputs": "valid without grammar"}
    costs = {"tokens": "tokens, mean", "latency_p50": "seconds, median", "latency_p95": "seconds, 95th percentile"}
    sizes = {"weight_bytes": "bytes of weights", "memory_bytes": "bytes of memory, with a whole context"}
    sides = ("candidate", "reference", "none")

    def rows(names: Mapping[str, str], form: str) -> list[tuple[str, list[str]]]:
        return [
            (title, [form.format(figures[side][name]) if name in figures[side] else "–" for side in sides])
            for name, title in names.items()
        ]

    return {
        "Retrieval": rows({name: name for name in retrieval}, "{:.3f}"),
        "Expansions": rows(quality | RATES, "{:.1%}"),
        "Cost of an expansion": [*rows(costs, "{:,.2f}"), *rows(sizes, "{:,.0f}")],
    }


def engine_parity(sides: Mapping[str, Side], decision: Decision, config: GateConfig) -> list[dict[str, Any]]:
    """How far two engines are apart, beside the margin a guard would allow; empty where one engine ran both sides."""
    candidate, reference = sides["candidate"], sides["reference"]
    if candidate.engine == reference.engine:
        return []
    changes = differences("rubric", candidate.measured.by_query["rubric"], reference.measured.by_query["rubric"])
    rubric = estimate([changes], config.confidence, config.resamples, config.seed)
    rows = (
        ("nDCG@10", decision.gains[OVER_REFERENCE], config.collection_margin),
        ("rubric score", rubric, config.rubric_margin),
    )
    return [
        {"name": name, "change": change, "margin": margin, "agree": -margin <= change.lower <= change.upper <= margin}
        for name, change, margin in rows
    ]


def _slices(sides: Mapping[str, Side], eval_set: EvalSet) -> list[dict[str, Any]]:
    candidate, reference = sides["candidate"].figures, sides["reference"].figures
    names = list(eval_set.slices.values())
    return [
        {
            "name": name,
            "queries": names.count(name),
            "candidate": candidate[f"rubric: {name}"],
            "reference": reference[f"rubric: {name}"],
            "valid": candidate[f"valid_outputs: {name}"],
        }
        for name in sorted(set(names))
    ]


def _sign(guard: Guard) -> str:
    """On which side of its limit a guard's value has to be."""
    return "≤" if (guard.value <= guard.limit) == guard.held else "≥"


def _mover(
    query: str, sides: Mapping[str, Side], none: ByQuery, eval_set: EvalSet, retrieval: Retrieval
) -> dict[str, Any]:
    """A query with both expansions of the first seed and the relevant document that each finds first."""
    text = eval_set.texts[query]
    shown = []
    for side in sides.values():
        answer = min((a for a in side.answers if a.query == query and a.grammar), key=lambda a: a.seed)
        served = serve(text, answer.text)
        shown.append(
            {
                "label": side.label,
                "ndcg": side.measured.by_query["ndcg@10"][query],
                "lines": served.lines[:MAX_LINES_SHOWN],
                "more": max(0, len(served.lines) - MAX_LINES_SHOWN),
                "dropped": len(served.dropped),
                "is_fallback": served.is_fallback,
                "found": _found(query, served.lines, retrieval),
            }
        )
    return {"text": text, "key": query, "none": none[query], "without": _found(query, (), retrieval), "sides": shown}


def _found(query: str, lines: Lines, retrieval: Retrieval) -> str:
    best = retrieval.best_relevant(query, lines)
    if best is None:
        return "finds no relevant document"
    rank, hit = best
    lists = ", ".join(f"{found.list} ({found.rank})" for found in hit.found_by)
    return f"finds {hit.id} at rank {rank}, by {lists}"
