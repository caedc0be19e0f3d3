"""How long a comparison takes: seconds by step of one that begins with nothing, and of one whose sides are known.

Starts an inference service for each engine needed and an evaluator that keeps what it measures in a temporary folder,
and compares a candidate with what would be deployed, on every query of the config. Then the two change places: a
session asks every model once, so what is left is searching, deciding and the report.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import yaml

from evaluator.config import EvaluatorConfig
from evaluator.evalset import load_eval_set
from evaluator.models import GGUF_SUFFIX
from foundry.pipeline import answers
from foundry.services import module_command, service
from qmd_rpc.channel import ServiceError
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.inference import InferenceClient
from qmd_rpc.v1.evaluation_pb2 import Progress
from qmd_schema.config import load_config
from qmd_schema.errors import UserError

EVALUATOR_PORT, INFERENCE_PORT, GGUF_PORT = 8029, 8019, 8018
READY_SECONDS = 600
COLD_MINUTES, CACHED_MINUTES = 25, 1


class Stopwatch:
    """The seconds of each step of a comparison, in the order of the steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def report(self, progress: Progress) -> None:
        """Counts what went by since the last report as time of the step that reports."""
        now = time.perf_counter()
        if progress.task not in self.seconds or progress.done == progress.total:
            print(f"{progress.task}: {progress.done} of {progress.total}", file=sys.stderr, flush=True)
        self.seconds[progress.task] = self.seconds.get(progress.task, 0.0) + now - self._last
        self._last = now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidate", type=Path, help="merged model folder or GGUF file")
    parser.add_argument("deployed", type=Path, help="what it would replace, likewise")
    parser.add_argument("--config", type=Path, default=Path("configs/evaluator.yaml"), help="default: %(default)s")
    parser.add_argument("--inference-config", type=Path, default=Path("configs/cpu/inference.yaml"))
    parser.add_argument("--limit", type=int, help="queries a slice and a collection; default: the config's")
    given = parser.parse_args()
    candidate, deployed = given.candidate.resolve(), given.deployed.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix="qmd-bench-compare-") as scratch, ExitStack() as stack:
            config = isolated(given.config, Path(scratch), given.limit)
            client = start(stack, config, Path(scratch), given.inference_config, [candidate, deployed])
            report_size(config)
            cold = Stopwatch()
            signed = client.compare(candidate, deployed, "benchmark", Path(scratch) / "cold", cold.report)
            turned = Stopwatch()
            client.compare(deployed, candidate, "benchmark", Path(scratch) / "turned", turned.report)
            report_answers(Path(scratch) / "cold" / "samples.jsonl")
    except (UserError, ServiceError) as error:
        print(error, file=sys.stderr)
        return 2
    report_seconds("begun with nothing", cold, COLD_MINUTES)
    report_seconds("both sides known", turned, CACHED_MINUTES)
    known = sum(seconds for task, seconds in cold.seconds.items() if task.endswith(" of the deployed model"))
    print(f"\nwhat the deployed side took, which the session's next candidate is spared: {known:.0f} s")
    print(f"{signed.verdict.outcome}: {signed.verdict.reasons[0]}")
    return 0


def isolated(path: Path, folder: Path, limit: int | None) -> EvaluatorConfig:
    """The config with ports and places of its own, so that it neither finds nor leaves anything."""
    overrides = {
        "server.port": EVALUATOR_PORT,
        "inference_address": f"127.0.0.1:{INFERENCE_PORT}",
        "gguf_inference_address": f"127.0.0.1:{GGUF_PORT}",
        "store": str(folder / "store.sqlite"),
        "signing_key": str(folder / "verdict.key"),
        "search_cache": str(folder / "search"),
    }
    if limit:
        overrides |= {"queries_per_slice": limit, "queries_per_collection": limit}
    return load_config(path, EvaluatorConfig, overrides)


def start(
    stack: ExitStack, config: EvaluatorConfig, folder: Path, inference_config: Path, models: list[Path]
) -> EvaluationClient:
    """Starts the services, which live as long as the stack."""
    for port, is_gguf in ((INFERENCE_PORT, False), (GGUF_PORT, True)):
        served = [model for model in models if (model.suffix == GGUF_SUFFIX) == is_gguf]
        if served:
            options = ["--config", str(inference_config), "--model", str(served[0]), "--port", str(port)]
            inference = stack.enter_context(InferenceClient(f"127.0.0.1:{port}", deadline=10))
            command = module_command("inference_service", *options)
            is_ready = partial(answers, inference)
            stack.enter_context(service(command, folder / f"inference-{port}.log", is_ready, READY_SECONDS))
    (folder / "evaluator.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    client = stack.enter_context(EvaluationClient(f"127.0.0.1:{EVALUATOR_PORT}"))
    command = module_command("evaluator", "--config", str(folder / "evaluator.yaml"))
    stack.enter_context(service(command, folder / "evaluator.log", partial(answers, client), READY_SECONDS))
    return client


def report_size(config: EvaluatorConfig) -> None:
    eval_set = load_eval_set(config)
    judged = sum(len(collection.queries) for collection in eval_set.collections)
    print(f"{len(eval_set.queries)} eval queries, {judged} collection queries, {len(config.seeds)} seeds\n")


def report_answers(path: Path) -> None:
    """Prints how much both sides wrote."""
    print("| side | answers | tokens an answer |\n|---|---|---|")
    tokens: dict[str, list[int]] = {}
    for line in path.read_text().splitlines():
        sample = json.loads(line)
        tokens.setdefault(sample["side"], []).append(sample["tokens"])
    for side, counts in tokens.items():
        print(f"| {side} | {len(counts):,} | {sum(counts) / len(counts):.0f} |")


def report_seconds(title: str, watch: Stopwatch, wanted_minutes: int) -> None:
    print(f"\n| {title} | seconds |\n|---|---|")
    for task, seconds in watch.seconds.items():
        print(f"| {task} | {seconds:.1f} |")
    total = sum(watch.seconds.values())
    print(f"| **all** | **{total:.1f}**, {total / 60:.1f} minutes (wanted: at most {wanted_minutes}) |")


if __name__ == "__main__":
    sys.exit(main())
