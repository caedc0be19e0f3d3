"""One self-contained page that shows what a training set is like: its size, form, repetitions and worst rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from qmd_schema.examples import LoadedExample
from qmd_schema.expansion import RENDER_ORDER
from trainer.config import PrepareConfig
from trainer.curation import (
    Finding,
    Pair,
    check_training_set,
    group_skeletons,
    near_duplicates,
    score_row,
)
from trainer.dataset import EvalQuery, slice_of

BINS = 20
"""Bars of a histogram; fewer where the values are few whole numbers."""
WORST_ROWS = 10
FINDINGS_SHOWN = 50
SKELETONS_SHOWN = 12
CLUSTERS_SHOWN = 20
PAIRS_SHOWN = 5
"""Closest queries shown where none is too close."""
ALIKE_FROM = 0.1
"""Similarity below which two queries have nothing in common worth showing."""


def render_data_report(
    examples: Sequence[LoadedExample], evaluation: Iterable[EvalQuery], config: PrepareConfig
) -> str:
    """The page as HTML, with everything in it."""
    curation = config.curation
    findings = check_training_set(examples, evaluation, config)
    results = [score_row(loaded.example) for loaded in examples]
    scores = [result.percentage for result in results]
    lowest = min(*scores, curation.rubric_minimum - 1)
    pairs = near_duplicates([loaded.example.query for loaded in examples], ALIKE_FROM)
    worst = sorted(range(len(examples)), key=lambda number: (scores[number], examples[number].where))[:WORST_ROWS]
    template = Environment(
        loader=PackageLoader("foundry"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("data.html")
    return template.render(
        rows=len(examples),
        files=len({loaded.path for loaded in examples}),
        findings=findings[:FINDINGS_SHOWN],
        found=Counter(finding.check for finding in findings),
        rubric_mean=sum(scores) / len(scores),
        rubric_lowest=min(scores),
        slices=_slices(examples, scores, findings),
        kinds=_lines_by_kind(examples),
        plots=[
            (
                "Rubric percentage",
                _histogram(scores, marks=[curation.rubric_minimum], ends=(lowest - lowest % 10, 100)),
            ),
            (
                "Similarity to the most similar other query",
                _histogram(_nearest(pairs, len(examples)), marks=[curation.near_duplicate], ends=(0, 1)),
            ),
            ("Words of a query", _histogram(_lengths(examples, "query", _words))),
            ("Words of a lex line", _histogram(_lengths(examples, "lex", _words))),
            ("Words of a vec line", _histogram(_lengths(examples, "vec", _words))),
            (
                "Characters of a hyde line",
                _histogram(_lengths(examples, "hyde", len), marks=[curation.hyde_minimum, curation.hyde_maximum]),
            ),
        ],
        clusters=[[examples[number] for number in cluster] for cluster in _clusters(pairs, curation.near_duplicate)],
        clusters_shown=CLUSTERS_SHOWN,
        closest=[
            (pair.similarity, examples[pair.first], examples[pair.second])
            for pair in sorted(pairs, key=lambda pair: (-pair.similarity, pair.second))[:PAIRS_SHOWN]
        ],
        skeletons=[
            (skeleton, len(numbers), examples[numbers[0]])
            for skeleton, numbers in list(group_skeletons(examples).items())[:SKELETONS_SHOWN]
        ],
        worst=[(examples[number], results[number]) for number in worst],
        config=config,
    )


def _slices(
    examples: Sequence[LoadedExample], scores: Sequence[float], findings: Iterable[Finding]
) -> list[dict[str, Any]]:
    """Rows, mean rubric percentage and findings of each slice; `share` is of the largest slice, in percent."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, loaded in enumerate(examples):
        members[slice_of(loaded)].append(number)
    where = {(loaded.path, loaded.line): slice_of(loaded) for loaded in examples}
    found = Counter(where.get((finding.path, finding.line or 0)) for finding in findings)
    largest = max(len(numbers) for numbers in members.values())
    return [
        {
            "name": name,
            "rows": len(numbers),
            "share": 100 * len(numbers) / largest,
            "rubric": sum(scores[number] for number in numbers) / len(numbers),
            "findings": found[name],
        }
        for name, numbers in sorted(members.items(), key=lambda slice_: (-len(slice_[1]), slice_[0]))
    ]


def _lines_by_kind(examples: Sequence[LoadedExample]) -> list[dict[str, Any]]:
    """Of each kind: lines in all, and how many answers have none, one, two or three of them, in percent."""
    counts = {
        kind: Counter(len(loaded.example.expansion.of_kind(kind)) for loaded in examples) for kind in RENDER_ORDER
    }
    return [
        {
            "kind": kind,
            "lines": sum(lines * answers for lines, answers in count.items()),
            "shares": [(lines, 100 * count[lines] / len(examples)) for lines in sorted(count)],
        }
        for kind, count in counts.items()
    ]


def _words(text: str) -> int:
    return len(text.split())


def _lengths(examples: Iterable[LoadedExample], part: str, measure: Callable[[str], int]) -> list[float]:
    """part: "query", or a kind of line."""
    if part == "query":
        return [measure(loaded.example.query) for loaded in examples]
    return [measure(line.text) for loaded in examples for line in loaded.example.expansion.lines if line.kind == part]


def _histogram(
    values: Sequence[float], marks: Sequence[float] = (), ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Bars in percent of the plot's size.

    marks: limits that a line is drawn at. ends: of the axis; without them the values are whole numbers.
    """
    if not values:
        return {"count": 0}
    whole = ends is None  # lengths: a bar of a whole number reaches from it to the next
    shown = [*values, *marks]
    low, high = ends or (min(shown), max(shown) + 1)
    bins = int(high - low) if whole and high - low <= BINS else BINS
    width = (high - low) / bins
    counts = Counter(min(int((value - low) / width), bins - 1) for value in values)
    tallest = max(counts.values())
    return {
        "count": len(values),
        "mean": sum(values) / len(values),
        "low": low,
        "high": high - 1 if whole else high,
        "tallest": tallest,
        "bars": [
            {
                "x": 100 * bin_ / bins,
                "width": 100 / bins,
                "height": 100 * count / tallest,
                "from": low + bin_ * width,
                "to": low + (bin_ + 1) * width,
                "count": count,
            }
            for bin_, count in sorted(counts.items())
        ],
        "marks": [(mark, 100 * (mark - low) / (high - low)) for mark in marks],
    }


def _nearest(pairs: Iterable[Pair], rows: int) -> list[float]:
    """Each query's similarity to the most similar other one; 0 where none is alike at all."""
    nearest = [0.0] * rows
    for pair in pairs:
        for number in (pair.first, pair.second):
            nearest[number] = max(nearest[number], pair.similarity)
    return nearest


def _clusters(pairs: Iterable[Pair], threshold: float) -> list[list[int]]:
    """Queries that near-duplicates connect, largest cluster first."""
    cluster_of: dict[int, set[int]] = {}
    for pair in pairs:
        if pair.similarity >= threshold:
            joined = cluster_of.get(pair.first, {pair.first}) | cluster_of.get(pair.second, {pair.second})
            cluster_of |= dict.fromkeys(joined, joined)
    unique = {min(cluster): sorted(cluster) for cluster in cluster_of.values()}
    return sorted(unique.values(), key=lambda cluster: (-len(cluster), cluster))
