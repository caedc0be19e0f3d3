"""GRPO on Ray Train with real services: vLLM on a small random model, and the reward service."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from qmd_rpc.inference import InferenceClient
from qmd_schema.artifacts import read_manifest
from qmd_schema.contract import prompt_text
from trainer.dataset import Row

pytestmark = pytest.mark.slow

STEPS = 6
SAVE_STEPS = 2
QUERIES = ("tea storage", "dune repair", "fjord ferry", "kelp recipe", "onyx price", "maple syrup")


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory) -> Path:
    """A random Llama whose heads of 32 vLLM's CPU kernels can serve."""
    folder = tmp_path_factory.mktemp("model")
    config = AutoConfig.from_pretrained(tiny_llama)
    config.head_dim = 32
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def services(root: Path, model: Path, tmp_path_factory) -> Iterator[dict[str, str]]:
    """Addresses of a running inference and reward service."""
    folder = tmp_path_factory.mktemp("services")
    values = yaml.safe_load((root / "configs/cpu/inference.yaml").read_text())
    inference = folder / "inference.yaml"
    inference.write_text(yaml.safe_dump(values | {"port": port(), "max_sequences": 32, "kv_cache_gib": 0.25}))
    reward_port = port()
    commands = [
        ["reward_service", "--config", root / "configs/cpu/reward.yaml", "--port", reward_port],
        ["inference_service", "--config", inference, "--model", model, "--log", folder / "vllm.log"],
    ]
    processes = [subprocess.Popen([sys.executable, "-m", *map(str, command)]) for command in commands]
    addresses = {
        "inference": f"127.0.0.1:{yaml.safe_load(inference.read_text())['port']}",
        "reward": f"127.0.0.1:{reward_port}",
    }
    try:
        with InferenceClient(addresses["inference"], deadline=300) as client:
            client.wait_ready(300)
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(model: Path, services: dict[str, str], tmp_path: Path) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts, or goes on with, one GRPO stage in `tmp_path/grpo`."""
    rows = [Row(query, "short", prompt_text(query, "<|im_start|>"), "hyde: x\n<|im_end|>") for query in QUERIES]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
    config = tmp_path / "grpo.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "prepare": "configs/cpu/prepare.yaml",
                "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
                "ray": {"threads": 1},
                "steps": STEPS,
                "queries": 2,
                "generations": 4,
                "rows_per_forward": 4,
                "learning_rate": 0.01,
                "max_completion": 24,
                "save_steps": SAVE_STEPS,
            }
            | services
        )
    )

    def launch() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "trainer", "grpo", "--config", config, "--data", tmp_path]
        command += ["--model", model, "--output", tmp_path / "grpo"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE)

    return launch


def steps(output: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, metrics) of each training step, in the order they were run."""
    path = output / "progress.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(record["done"], record["metrics"]) for record in records if "reward" in record["metrics"]]


def test_grpo_trains_on_rollouts_of_the_current_policy(start, services, tmp_path):
    process = start()
    assert process.wait(timeout=600) == 0, process.stderr.read().decode()
    course = steps(tmp_path / "grpo")
    assert [step for step, _ in course] == list(range(1, STEPS + 1))
    for _, metrics in course:
        assert metrics["sampling/sampling_logp_difference/mean"] < 0.1
        assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.05)
        assert {"kl", "frac_reward_zero_std", "rewards/reward/std", "reward/format/groups_without_spread"} <= set(
            metrics
        )
    with InferenceClient(services["inference"]) as client:
        assert client.policy() == f"policy-{STEPS - 1:06d}"
    assert read_manifest(tmp_path / "grpo").stage == "grpo"
    assert (tmp_path / "grpo/adapter/adapter_model.safetensors").is_file()


def test_a_killed_run_goes_on_and_brings_its_policy_in_again(start, services, tmp_path):
    output = tmp_path / "grpo"
    process = start()
    while not any(step > SAVE_STEPS for step, _ in steps(output)):
        assert process.poll() is None, process.stderr.read().decode()
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    workers = [
        p for p in psutil.Process(process.pid).children(recursive=True) if "TrainWorker" in " ".join(p.cmdline())
    ]
    process.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    again = start()
    assert again.wait(timeout=600) == 0, again.stderr.read().decode()
    done = [step for step, _ in steps(output)]
    assert sorted(set(done)) == list(range(1, STEPS + 1))
    assert done.count(1) == 1
    with InferenceClient(services["inference"]) as client:
        assert client.policy() == f"policy-{STEPS - 1:06d}"
