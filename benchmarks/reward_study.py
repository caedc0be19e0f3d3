"""Does the rubric see what helps the search? Real outputs, by both scores; prints tables and draws a plot.

The outputs are those that `foundry run` and `foundry compare` leave in samples.jsonl: answers of two models to judged
queries. Each is scored with the rubric and run through QMD's search of its collection, line by line.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from qmd_reward.composite import searched_share
from qmd_reward.rubric import score
from qmd_rpc.scores import kind_name, kind_number
from qmd_rpc.v1 import reward_pb2
from qmd_schema.errors import UserError
from qmd_search.collections import load_collection
from qmd_search.hybrid import cache_folder
from qmd_search.vectors import Embedder
from reward_service.retrieval import JudgedSearch
from reward_service.retrieval_queue import Job

Numbers = NDArray[np.float64]

PARTS = ("format", "diversity", "hyde", "quality", "entity")
MEASURES = ("rubric", *PARTS, "lines searched with", "lex lines that find", "characters")
SIDES = ("candidate", "reference")
RESAMPLES = 1_000
TOGETHER = 256
"""Samples whose texts are embedded in one go."""


@dataclass(frozen=True)
class Sample:
    """One answer of a model to a judged query."""

    model: str
    collection: str
    query: str
    answer: str


@dataclass(frozen=True)
class Scored:
    """What both scores say of a sample."""

    sample: Sample
    measures: tuple[float, ...]
    """In the order of MEASURES: points, shares, characters."""
    retrieval: reward_pb2.RetrievalScore


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path, metavar="SAMPLES", help="samples.jsonl files")
    parser.add_argument(
        "--collections", nargs="+", type=Path, required=True, metavar="FOLDER", help="BEIR folders the queries are from"
    )
    parser.add_argument(
        "--models", nargs="+", metavar="NAME", help="what to call candidate and reference of each file, in turn"
    )
    parser.add_argument("--split", default="test", help="judgements to use: qrels_SPLIT.tsv (default: test)")
    parser.add_argument("--plot", type=Path, required=True, metavar="PNG", help="file that receives the plot")
    arguments = parser.parse_args()
    names = arguments.models or [f"{path.parent.name} {side}" for path in arguments.samples for side in SIDES]
    if len(names) != len(SIDES) * len(arguments.samples):
        parser.error("--models wants two names for each file")
    try:
        scored = measure(arguments.samples, names, arguments.collections, arguments.split)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    gains = np.array([one.retrieval.gain for one in scored])
    measures = np.array([one.measures for one in scored])
    groups = [(one.sample.collection, one.sample.query) for one in scored]
    correlations = correlate(measures, gains, groups)
    print(*table_of_models(scored), "", *table_of_correlations(correlations), "", sep="\n")
    parts = measures[:, [MEASURES.index(part) for part in PARTS]]
    print(f"All parts together explain {explained(parts, gains):.1%} of the variance of the gain.", "", sep="\n")
    print(*table_of_lines(scored), sep="\n")
    draw(arguments.plot, scored, correlations)
    return 0


def read_samples(paths: Sequence[Path], names: Sequence[str], collections: set[str]) -> list[Sample]:
    """Answers under QMD's grammar to queries of the collections. names: of candidate and reference of each file."""
    samples = []
    for number, path in enumerate(paths):
        name_of = dict(zip(SIDES, names[len(SIDES) * number :], strict=False))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            collection = row["key"].partition("/")[0]
            if row["grammar"] and collection in collections:
                samples.append(Sample(name_of[row["side"]], collection, row["query"], row["answer"]))
    return samples


def measure(paths: Sequence[Path], names: Sequence[str], folders: Sequence[Path], split: str) -> list[Scored]:
    """Scores all samples. Raises UserError for a collection that cannot be read."""
    embedder = Embedder(cache_folder() / "embeddings.sqlite")
    collections = {folder.name: load_collection(folder, split) for folder in folders}
    samples = read_samples(paths, names, set(collections))
    scored = []
    for name, collection in collections.items():
        search = JudgedSearch(collection, split, embedder, cache_folder())
        ours = [sample for sample in samples if sample.collection == name]
        for start in range(0, len(ours), TOGETHER):
            jobs = [Job(sample.query, sample.answer, name) for sample in ours[start : start + TOGETHER]]
            embedder.embed_queries([text for job in jobs for text in search.texts(job)])
            scored += [
                Scored(sample, measures_of(job, found := search.score(job)), found)
                for sample, job in zip(ours[start : start + TOGETHER], jobs, strict=True)
            ]
            print(f"\r{name}: {start + len(jobs)} of {len(ours)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return scored


def measures_of(job: Job, retrieval: reward_pb2.RetrievalScore) -> tuple[float, ...]:
    """In the order of MEASURES."""
    result = score(job.query, job.expansion)
    parts = [float(getattr(result, part)) for part in PARTS]
    lex = [bool(line.found) for line in retrieval.lines if line.kind == kind_number("lex")]
    finding = sum(lex) / len(lex) if lex else 0.0
    return (result.score, *parts, searched_share(job.query, job.expansion), finding, float(len(job.expansion)))


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a measure with the gain, with its bootstrapped 95 % interval."""

    measure: str
    over_all: tuple[float, float, float]
    """Estimate, lower and upper bound."""
    within: tuple[float, float, float]
    """Of the differences between answers to the same query, which is what training by groups sees."""


def correlate(measures: Numbers, gains: Numbers, groups: Sequence[object]) -> list[Correlation]:
    """measures: [samples, MEASURES]; gains: [samples]; groups: the query of each sample, which resampling draws."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([numbers[group] for group in groups])
    ranked_gains = rankdata(gains)
    found = []
    for name, column in zip(MEASURES, measures.T, strict=True):
        ranked = rankdata(column)
        within = centred(ranked, group_of), centred(ranked_gains, group_of)
        found.append(Correlation(name, with_interval(ranked, ranked_gains, group_of), with_interval(*within, group_of)))
    return found


def centred(values: Numbers, group_of: NDArray[np.int64]) -> Numbers:
    """Values less the mean of their group."""
    means = np.bincount(group_of, values) / np.bincount(group_of)
    return values - means[group_of]


def with_interval(first: Numbers, second: Numbers, group_of: NDArray[np.int64]) -> tuple[float, float, float]:
    """Pearson's correlation, and its 2.5 and 97.5 % quantiles when whole groups are drawn again with replacement."""
    products = np.stack([np.ones_like(first), first, second, first * first, second * second, first * second])
    sums = np.stack([np.bincount(group_of, product) for product in products], axis=1)
    chosen = np.random.default_rng(0)
    count = len(sums)
    drawn = [correlation(sums[chosen.integers(0, count, count)].sum(axis=0)) for _ in range(RESAMPLES)]
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return correlation(sums.sum(axis=0)), float(lower), float(upper)


def correlation(sums: Numbers) -> float:
    """Pearson's, from the sums of 1, x, y, x², y² and xy; 0 where one of them never changes."""
    count, x, y, xx, yy, xy = sums
    spread = (count * xx - x * x) * (count * yy - y * y)
    return float((count * xy - x * y) / np.sqrt(spread)) if spread > 0 else 0.0


def explained(parts: Numbers, gains: Numbers) -> float:
    """R² of the least-squares fit of the gain by the parts. parts: [samples, parts]."""
    design = np.column_stack([np.ones(len(gains)), parts])
    fitted = design @ np.linalg.lstsq(design, gains, rcond=None)[0]
    return float(1 - ((gains - fitted) ** 2).sum() / ((gains - gains.mean()) ** 2).sum())


def table_of_models(scored: Sequence[Scored]) -> list[str]:
    by_model: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        by_model[one.sample.model].append(one)
    rows = []
    for model, ours in by_model.items():
        gains = np.array([one.retrieval.gain for one in ours])
        rubric = np.mean([one.measures[0] for one in ours])
        shares = [f"{share:.0%}" for share in ((gains > 0).mean(), (gains == 0).mean(), (gains < 0).mean())]
        rows.append([model, str(len(ours)), f"{rubric:.1%}", f"{gains.mean():+.3f}", *shares])
    return table(["model", "answers", "rubric", "gain", "gained", "unchanged", "lost"], rows)


def table_of_correlations(correlations: Sequence[Correlation]) -> list[str]:
    def cell(values: tuple[float, float, float]) -> str:
        return "{:+.2f} ({:+.2f} to {:+.2f})".format(*values)

    rows = [[found.measure, cell(found.over_all), cell(found.within)] for found in correlations]
    return table(["measure", "over all answers", "among answers to one query"], rows)


def table_of_lines(scored: Sequence[Scored]) -> list[str]:
    groups: dict[tuple[str, str], list[reward_pb2.LineScore]] = defaultdict(list)
    for one in scored:
        if not one.retrieval.is_strong_signal:
            for line in one.retrieval.lines:
                groups[one.sample.model, str(kind_name(line.kind))].append(line)
    rows = []
    for (model, kind), lines in sorted(groups.items()):
        searched = [line for line in lines if not line.is_dropped]
        credit = np.array([line.credit for line in searched])
        shares = (
            1 - len(searched) / len(lines),
            np.mean([not line.found for line in searched]),
            np.mean([bool(line.relevant) for line in searched]),
            (credit > 0).mean(),
            (credit < 0).mean(),
        )
        error = 1.96 * credit.std() / np.sqrt(len(credit))
        cells = [f"{share:.0%}" for share in shares]
        rows.append([model, kind, str(len(lines)), *cells, f"{credit.mean():+.4f} ± {error:.4f}"])
    columns = [
        "model",
        "kind",
        "lines",
        "dropped",
        "find nothing",
        "find a relevant one",
        "help",
        "harm",
        "mean credit",
    ]
    return table(columns, rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """As markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def draw(path: Path, scored: Sequence[Scored], correlations: Sequence[Correlation]) -> None:
    """Scatter plots of rubric and gain, over all answers and within queries; the correlations of the parts."""
    rubric = np.array([one.measures[0] for one in scored]) * 100
    gains = np.array([one.retrieval.gain for one in scored])
    queries = [(one.sample.collection, one.sample.query) for one in scored]
    numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
    group_of = np.array([numbers[query] for query in queries])
    models = [one.sample.model for one in scored]
    figure = Figure(figsize=(15, 5), layout="constrained")
    everything, within, bars = figure.subplots(1, 3)
    for number, model in enumerate(dict.fromkeys(models)):
        chosen = np.array([other == model for other in models])
        dots = {"s": 9, "alpha": 0.4, "linewidths": 0, "color": f"C{number}", "label": model}
        everything.scatter(rubric[chosen], gains[chosen], **dots)
        within.scatter(centred(rubric, group_of)[chosen], centred(gains, group_of)[chosen], **dots)
    for axis, x, y in (
        (everything, rubric, gains),
        (within, centred(rubric, group_of), centred(gains, group_of)),
    ):
        axis.plot(*trend(x, y), color="black", marker="o", markersize=4, label="mean of a tenth of the answers")
        axis.axhline(0, color="grey", linewidth=0.7)
    everything.set(xlabel="rubric, %", ylabel="gain over no expansion", title="Every answer")
    within.set(
        xlabel="rubric, % less the query's mean", ylabel="gain less the query's mean", title="Answers to one query"
    )
    everything.legend(fontsize=7, markerscale=2)
    draw_intervals(bars, correlations)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def trend(x: Numbers, y: Numbers) -> tuple[list[float], list[float]]:
    """The means of both over tenths of the points, by x."""
    tenths = np.array_split(np.argsort(x, kind="stable"), 10)
    return [float(x[tenth].mean()) for tenth in tenths], [float(y[tenth].mean()) for tenth in tenths]


def draw_intervals(axis: Axes, correlations: Sequence[Correlation]) -> None:
    kinds: list[tuple[str, Callable[[Correlation], tuple[float, float, float]]]] = [
        ("over all answers", lambda found: found.over_all),
        ("among answers to one query", lambda found: found.within),
    ]
    for number, (label, values_of) in enumerate(kinds):
        values = np.array([values_of(found) for found in correlations])
        errors = np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]])
        places = np.arange(len(correlations)) + 0.2 * number - 0.1
        axis.errorbar(values[:, 0], places, xerr=errors, fmt="o", markersize=4, capsize=2, label=label)
    axis.set_yticks(range(len(correlations)), [found.measure for found in correlations])
    axis.invert_yaxis()
    axis.axvline(0, color="grey", linewidth=0.7)
    axis.locator_params(axis="x", nbins=6)
    axis.set(xlabel="Spearman's correlation with the gain, 95 % interval", title="What goes with a gain")
    axis.legend(loc="upper left", fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
