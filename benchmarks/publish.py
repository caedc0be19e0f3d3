"""What a publication takes: seconds a step, and the most memory of all its processes.

Publishes a model folder into a registry in a temporary folder, with a verdict made for it, and prints tables.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from foundry.memory import PeakMemory
from publisher.admission import Submission
from publisher.config import PublisherConfig
from publisher.publication import publish
from publisher.registry import Deployment, open_registry
from qmd_schema.artifacts import sha256_folder, write_manifest
from qmd_schema.config import StrictModel, load_config
from qmd_schema.verdicts import Interval, ModelIdentity, Verdict, load_signing_key, sign

SAMPLE_SECONDS = 0.5
MAX_SECONDS = 240
GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a merged model in bf16")
    parser.add_argument("--config", type=Path, default=Path("configs/cpu/publisher.yaml"), help="default: %(default)s")
    parser.add_argument("--answers", type=int, help="queries that every file answers; default: the config's")
    given = parser.parse_args()
    model = given.model.resolve()
    with tempfile.TemporaryDirectory(prefix="qmd-bench-publish-") as scratch:
        overrides = {"folder": str(Path(scratch) / "registry"), "signing_key": str(Path(scratch) / "verdict.key")}
        if given.answers:
            overrides["parity.answers"] = given.answers
        config = load_config(given.config, PublisherConfig, overrides)
        submission = submit(Path(scratch), model, config)
        began = time.perf_counter()
        times: list[tuple[str, float]] = []

        def report(task: str, _done: int, _total: int) -> None:
            times.append((task, time.perf_counter()))
            print(f"{times[-1][1] - began:7.1f} s  {task}", file=sys.stderr, flush=True)

        with PeakMemory(SAMPLE_SECONDS) as memory:
            deployment = publish(submission, config, open_registry(config), report, threading.Event())
        ended = time.perf_counter()
        print_report(times, began, ended, memory.bytes, model, deployment)
    return 0


def print_report(
    times: list[tuple[str, float]], began: float, ended: float, peak: int, model: Path, deployment: Deployment
) -> None:
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    limit = 3 * weights + GIB
    print("| step | seconds |\n|---|---|")
    for (task, start), stop in zip(times, [time_ for _, time_ in times[1:]] + [ended], strict=True):
        print(f"| {task} | {stop - start:.1f} |")
    print(f"| **all** | **{ended - began:.1f}** (wanted: at most {MAX_SECONDS}) |\n")
    print(f"most memory: {peak / GIB:.2f} GiB (wanted: at most 3 × bf16 + 1 GiB = {limit / GIB:.2f} GiB)\n")
    print(f"for QMD: {deployment.default_quantisation}\n")
    columns = ["file", "MB", "total variation", "valid", "rubric", "gain in nDCG@10", "margins broken"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in json.loads((next(iter(deployment.gguf.values())).parent / "parity.json").read_text()):
        worth = row["worth"]
        gain = "–" if worth["gain"] is None else f"{worth['gain']:+.3f}"
        cells = [row["quantisation"], f"{row['bytes'] / 1e6:.0f}", f"{row['total_variation']:.4f}"]
        cells += [f"{worth['valid']:.3f}", f"{worth['rubric']:.3f}", gain, "; ".join(row["broken"]) or "none"]
        print(f"| {' | '.join(cells)} |")


def submit(folder: Path, model: Path, config: PublisherConfig) -> Submission:
    """A submission of a model with a PASS that nobody gave it."""
    verdict = Verdict(
        id="benchmark",
        created=datetime.now(UTC).isoformat(),
        outcome="PASS",
        reasons=["made for a benchmark"],
        candidate=ModelIdentity(reference=str(model), sha256=sha256_folder(model)),
        reference_kind="base",
        reference=ModelIdentity(reference=str(model), sha256="0" * 64),
        gains={"over reference": Interval(mean=0.02, lower=0.01, upper=0.03, queries=100)},
        p_value=0.01,
        minimum_effect=0.01,
        queries_to_decide=None,
        guards=[],
        figures={},
        seeds=[1],
        qmd_contract="2.8",
        data_sha256="0" * 64,
        config_sha256="0" * 64,
        code_version="benchmark",
    )
    evaluation, data = folder / "evaluate", folder / "prepare"
    evaluation.mkdir()
    data.mkdir()
    (evaluation / "verdict.json").write_text(sign(verdict, load_signing_key(config.signing_key)).model_dump_json())
    (evaluation / "report.html").write_text("")
    (data / "train.jsonl").write_text("")
    write_manifest(data, "prepare", StrictModel(), {}, seconds=0.0, packages=[])
    return Submission(evaluation / "verdict.json", model, {}, data / "manifest.json", evaluation)


if __name__ == "__main__":
    sys.exit(main())
