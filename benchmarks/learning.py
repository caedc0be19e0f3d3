"""What training made of a model, on the queries that recipes are chosen by: gains over it, and over no expansion.

`python benchmarks/learning.py SFT 60-steps/1=FOLDER 60-steps/2=FOLDER --collections evals/collections/notes PATH
--output RESULTS` compares each merged model with the one that it was trained from (SFT), as the gate would: QMD's
decode and search, the same queries and seeds on both sides. It prints a table in markdown and draws RESULTS/gains.png;
verdict and report of each comparison stand beside it, in a folder of the model's name. Called again it goes on where it
was, and asks no model twice.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluator.config import EvaluatorConfig
from evaluator.evaluation import Evaluator
from evaluator.gate import OVER_NONE, OVER_REFERENCE
from foundry.pipeline import answers
from foundry.services import module_command, service
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient
from qmd_schema.config import load_config
from qmd_schema.errors import UserError
from qmd_schema.verdicts import Interval, Verdict
from qmd_search.hybrid import cache_folder

INFERENCE_PORT = 8019
READY_SECONDS = 600
TWO_SIDED = 0.975
"""Confidence of each bound, so that both together hold 95 %."""
OVER = {OVER_REFERENCE: "over the model it was trained from", OVER_NONE: "over no expansion"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "reference", type=Path, metavar="SFT", help="merged folder of the model that training began with"
    )
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="merged folders of what it became")
    parser.add_argument("--collections", nargs="+", type=Path, required=True, metavar="FOLDER", help="BEIR folders")
    parser.add_argument("--split", default="dev", help="judgements to use: qrels_SPLIT.tsv (default: %(default)s)")
    parser.add_argument("--queries", type=int, help="judged queries of a collection at most; default: all")
    parser.add_argument("--seeds", type=int, default=2, help="answers to each query (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives plot, verdicts and reports")
    parser.add_argument("--config", type=Path, default=Path("configs/cpu/evaluator.yaml"), help="default: %(default)s")
    parser.add_argument("--inference-config", type=Path, default=Path("configs/cpu/inference.yaml"))
    given = parser.parse_args()
    models = dict(model.partition("=")[::2] for model in given.models)
    if not all(name and folder for name, folder in models.items()):
        parser.error("models are given as NAME=FOLDER")
    try:
        config = on_collections(given.config, given.output, given.collections, given.split, given.queries, given.seeds)
        verdicts = compare(config, given.reference, models, given.output, given.inference_config)
    except (UserError, ServiceError) as error:
        print(error, file=sys.stderr)
        return 2
    print(*table(verdicts), sep="\n")
    draw(given.output / "gains.png", verdicts)
    return 0


def on_collections(
    path: Path, output: Path, collections: Sequence[Path], split: str, queries: int | None, seeds: int
) -> EvaluatorConfig:
    """The config at `path`, asking other collections, with the answers kept in `output`."""
    overrides: dict[str, Any] = {
        "collections": [{"path": str(folder), "split": split} for folder in collections],
        "queries_per_collection": queries,
        "seeds": list(range(1, seeds + 1)),
        "inference_address": f"127.0.0.1:{INFERENCE_PORT}",
        "gate.confidence": TWO_SIDED,
        "store": str(output / "store.sqlite"),
        "signing_key": str(output / "verdict.key"),
        "search_cache": str(cache_folder()),
    }
    return load_config(path, EvaluatorConfig, overrides)


def compare(
    config: EvaluatorConfig, reference: Path, models: Mapping[str, str], output: Path, inference_config: Path
) -> dict[str, Verdict]:
    """The verdict on each model beside the reference, by name."""
    options = ["--config", str(inference_config), "--model", str(reference), "--port", str(INFERENCE_PORT)]
    verdicts = {}
    with ExitStack() as stack:
        client = stack.enter_context(InferenceClient(config.inference_address, deadline=10))
        command = module_command("inference_service", *options)
        stack.enter_context(service(command, output / "inference.log", partial(answers, client), READY_SECONDS))
        evaluator = Evaluator(config)
        for name, folder in models.items():
            report = partial(report_progress, name)
            signed = evaluator.compare(
                Path(folder).resolve(), reference.resolve(), "trained from", output / name, report
            )
            verdicts[name] = signed.verdict
    return verdicts


def report_progress(name: str, task: str, done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{name}: {task}: {done} of {total}\x1b[K", end=end, file=sys.stderr, flush=True)


def table(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Markdown: a row a model, its gains in nDCG@10 with 95 % bounds, and what it keeps of form."""
    names = collections_of(verdicts)
    lines = []
    for over, words in OVER.items():
        lines += [f"Gain in nDCG@10 {words}, with 95 % bounds:", ""]
        lines += [f"| model | {' | '.join(names)} | all alike |", "|---" * (len(names) + 2) + "|"]
        for model, verdict in verdicts.items():
            lines.append(f"| {model} | {' | '.join(map(written, gains_of(verdict, over, names)))} |")
        lines.append("")
    lines += ["| model | rubric | valid outputs | lex lines that match nothing | tokens |", "|---|---|---|---|---|"]
    sides = {"(trained from)": next(iter(verdicts.values())).figures["reference"]}
    sides |= {model: verdict.figures["candidate"] for model, verdict in verdicts.items()}
    for model, figures in sides.items():
        lines.append(
            f"| {model} | {100 * figures['rubric']:.1f} | {figures['valid_outputs']:.3f} "
            f"| {figures['lex_without_match']:.0%} | {figures['tokens']:.0f} |"
        )
    return lines


def collections_of(verdicts: Mapping[str, Verdict]) -> list[str]:
    prefix = f"{OVER_NONE}: "
    gains = next(iter(verdicts.values())).gains
    return [name.removeprefix(prefix) for name in gains if name.startswith(prefix)]


def gains_of(verdict: Verdict, over: str, names: Sequence[str]) -> list[Interval]:
    """On each collection, then over all of them."""
    return [verdict.gains[f"{over}: {name}"] for name in names] + [verdict.gains[over]]


def written(gain: Interval) -> str:
    return f"{gain.mean:+.3f} ({gain.lower:+.3f}, {gain.upper:+.3f})"


def draw(path: Path, verdicts: Mapping[str, Verdict]) -> None:
    """Gains with their bounds: a panel for what they are over, a group for each collection, a mark for each model."""
    names = collections_of(verdicts)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, len(OVER), sharey=True)
    for axis, (over, words) in zip(axes, OVER.items(), strict=True):
        places = np.arange(len(names) + 1)
        for number, (model, verdict) in enumerate(verdicts.items()):
            gains = gains_of(verdict, over, names)
            means = [gain.mean for gain in gains]
            below, above = [g.mean - g.lower for g in gains], [g.upper - g.mean for g in gains]
            shift = 0.6 * ((number + 0.5) / len(verdicts) - 0.5)
            axis.errorbar(places + shift, means, yerr=[below, above], fmt="o", capsize=3, markersize=4, label=model)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(places, [*names, "all alike"], rotation=20)
        axis.set_title(f"gain in nDCG@10 {words}", fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
