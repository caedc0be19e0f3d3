"""SFT on Ray Train with a two-layer model: kills, resumption, two workers, clean stops."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qmd_schema.artifacts import read_manifest
from trainer.config import MergeConfig, PrepareConfig
from trainer.dataset import prepare
from trainer.merge import merge

STEPS = 24
SAVE_STEPS = 4
TOPICS = (
    "anchor",
    "basil",
    "copper",
    "dune",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "ivory",
    "juniper",
    "kelp",
    "lantern",
    "maple",
    "nectar",
    "onyx",
    "prism",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_llama: Path) -> Path:
    """Rows that `prepare` wrote from 48 small examples."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "data").mkdir()
    (root / "evals").mkdir()
    (root / "evals" / "queries.jsonl").write_text('{"id": "1", "query": "zeppelin mooring", "slice": "short"}\n')
    lines = []
    for number, (topic, word) in enumerate((t, w) for t in TOPICS for w in ("storage", "history", "repair")):
        output = [
            ["hyde", f"The {topic} is kept dry " + "and cool " * (number % 7)],
            ["lex", f"{topic} {word}"],
            ["vec", f"what to know about {topic} {word}"],
        ]
        output[0][1] = output[0][1].strip()
        lines.append(json.dumps({"query": f"{topic} {word}", "output": output, "category": word}))
    (root / "data" / "all.jsonl").write_text("\n".join(lines) + "\n")
    config = PrepareConfig(model=str(tiny_llama), data=root / "data", evals=root / "evals", near_duplicate=1.0)
    prepare(config, root / "rows")
    return root / "rows"


@pytest.fixture(scope="module")
def write_config(tmp_path_factory, tiny_llama: Path) -> Callable[..., Path]:
    """Writes an SFT config for the tiny model, with some keys changed."""

    def write(**changes: object) -> Path:
        values = {
            "model": str(tiny_llama),
            "prepare": "configs/cpu/prepare.yaml",
            "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "up_proj"]},
            "ray": {"threads": 1},
            "epochs": 1,
            "max_steps": STEPS,
            "batch": 4,
            "rows_per_forward": 2,
            "learning_rate": 5.0e-3,
            "save_steps": SAVE_STEPS,
        } | changes
        path = tmp_path_factory.mktemp("config") / "sft.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, prepared: Path, write_config) -> Path:
    """The stage folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("unbroken") / "sft"
    assert start(write_config(), prepared, output).wait(timeout=300) == 0
    return output


def start(config: Path, data: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer", "sft", "--config", config, "--data", data, "--output", output]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE)


def losses(output: Path) -> list[tuple[int, float]]:
    """(step, loss) of each training step, in the order they were run."""
    path = output / "progress.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(record["done"], record["metrics"]["loss"]) for record in records if "loss" in record["metrics"]]


def wait_for_step(process: subprocess.Popen[bytes], output: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read().decode()
        if any(done >= step for done, _ in losses(output)):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def training_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "TrainWorker" in " ".join(child.cmdline())]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


def assert_same_run(broken: Path, unbroken: Path) -> None:
    """The same steps with the same losses, and a resumption after the last checkpoint instead of a new start."""
    steps = [step for step, _ in losses(broken)]
    assert dict(losses(broken)) == pytest.approx(dict(losses(unbroken)), abs=1e-5)
    assert steps.count(1) == 1
    assert len(steps) - len(set(steps)) <= 2 * SAVE_STEPS
    assert read_manifest(broken).figures["steps"] == STEPS
    mine, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (broken, unbroken))
    assert all(mine[name].allclose(other[name], atol=1e-4) for name in other)


def test_the_answer_is_learnt(unbroken):
    course = losses(unbroken)
    assert [step for step, _ in course] == list(range(1, STEPS + 1))
    assert course[-1][1] < course[0][1]


def test_only_the_adapter_is_written(unbroken):
    assert {path.name for path in (unbroken / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (unbroken / "scratch").exists()


def test_a_killed_worker_is_replaced_and_goes_on_at_the_last_checkpoint(tmp_path, prepared, write_config, unbroken):
    output = tmp_path / "sft"
    process = start(write_config(), prepared, output)
    wait_for_step(process, output, STEPS // 2)
    (worker,) = training_workers(process)
    worker.kill()
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    assert_same_run(output, unbroken)


def test_the_same_command_goes_on_after_everything_was_killed(tmp_path, prepared, write_config, unbroken):
    output = tmp_path / "sft"
    config = write_config()
    process = start(config, prepared, output)
    wait_for_step(process, output, STEPS // 2)
    workers = training_workers(process)
    process.kill()
    assert workers and gone(workers)
    assert read_manifest(output) is None
    again = start(config, prepared, output)
    assert again.wait(timeout=300) == 0, again.stderr.read().decode()
    assert_same_run(output, unbroken)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, prepared: Path, write_config) -> Path:
    """The stage folder of a run with two workers, each with the whole base."""
    output = tmp_path_factory.mktemp("two-workers") / "sft"
    process = start(write_config(ray={"threads": 1, "workers": 2}), prepared, output)
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    return output


@pytest.mark.slow
def test_two_workers_learn_what_one_learns(two_workers, unbroken):
    assert dict(losses(two_workers)) == pytest.approx(dict(losses(unbroken)), abs=0.1)
    assert losses(two_workers)[0][1] == pytest.approx(losses(unbroken)[0][1], abs=1e-3)


@pytest.mark.slow
def test_workers_that_share_the_base_learn_what_others_learn_and_go_on_after_a_kill(
    tmp_path, prepared, write_config, two_workers, tiny_llama
):
    output = tmp_path / "sft"
    process = start(write_config(ray={"threads": 1, "workers": 2, "sharding": "fsdp"}), prepared, output)
    wait_for_step(process, output, STEPS // 2)
    training_workers(process)[0].kill()
    assert process.wait(timeout=600) == 0, process.stderr.read().decode()
    assert [step for step, _ in losses(output)].count(1) == 1
    assert dict(losses(output)) == pytest.approx(dict(losses(two_workers)), abs=2e-3)
    merge(MergeConfig(base=str(tiny_llama), adapter=output / "adapter"), tmp_path / "merged")
    assert read_manifest(tmp_path / "merged").figures["total_variation"] > 0


def test_tensorboard_holds_every_step(unbroken):
    events = EventAccumulator(str(unbroken / "tensorboard")).Reload()
    held = {event.step: event.value for event in events.Scalars("train/loss")}
    assert held == pytest.approx(dict(losses(unbroken)))
    assert "eval/loss" in events.Tags()["scalars"]


def test_ray_train_is_told_every_metric(unbroken):
    (snapshot,) = unbroken.glob("checkpoints/checkpoint_manager_snapshot.json")
    told = json.loads(snapshot.read_text())["checkpoint_results"][-1]["metrics"]
    records = [json.loads(line) for line in (unbroken / "progress.jsonl").read_text().splitlines()]
    logged = {name for record in records if record["done"] < STEPS for name in record["metrics"]}
    assert logged | {"num_tokens", "step"} <= set(told)
    assert told["step"] == STEPS


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_training_and_ray(number, tmp_path, prepared, write_config):
    output = tmp_path / "sft"
    process = start(write_config(), prepared, output)
    wait_for_step(process, output, 2)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert descendants
    process.send_signal(number)
    assert process.wait(timeout=60) == 130, process.stderr.read().decode()
    assert gone(descendants)
    assert read_manifest(output) is None


def test_a_finished_stage_is_not_run_again(prepared, write_config, unbroken):
    before = (unbroken / "manifest.json").stat().st_mtime_ns
    assert start(write_config(), prepared, unbroken).wait(timeout=120) == 0
    assert (unbroken / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_of_another_config_is_refused(tmp_path, prepared, write_config):
    output = tmp_path / "sft"
    output.mkdir()
    (output / "started.json").write_text('{"config": {}, "inputs": {}}')
    process = start(write_config(), prepared, output)
    assert process.wait(timeout=120) == 2
    assert "another config" in process.stderr.read().decode()


def test_a_row_that_is_too_long_is_refused_before_training(tmp_path, prepared, write_config):
    process = start(write_config(max_length=96), prepared, tmp_path / "sft")
    assert process.wait(timeout=120) == 2
    assert "max_length is 96" in process.stderr.read().decode()
    assert not (tmp_path / "sft").exists()
