"""GRPO on Ray Train with real services: vLLM on a small model, and the reward service."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from qmd_rpc.inference import InferenceClient
from qmd_schema.artifacts import read_manifest
from qmd_schema.contract import prompt_text
from support.processes import all_ended, command_line, descendants, wait_until
from support.rewarding import RewardProcess
from support.searching import small_collection, write_collection
from support.serving import Service, running_service
from trainer.dataset import Row
from trainer.likelihood import score_answers

pytestmark = pytest.mark.slow

STEPS = 8
SAVE_STEPS = 2
QUERIES = ("tea storage", "storing tea", "keep tea dry", "tea tin", "tea shelf life", "store green tea")
ANSWERS = ("hyde: Store tea in a dry, dark tin.\nlex: store tea\nvec: how to store tea\n", "tea tea tea tea\n")
"""What the model is taught to answer, each as often: the first keeps QMD's form, of the second no line is kept."""


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory) -> Path:
    """A Llama of two layers that knows two answers."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    rows = []
    for query in QUERIES:
        prompt = tokenizer(prompt_text(query, "<|im_start|>"), add_special_tokens=False)["input_ids"]
        for text in ANSWERS:
            answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            rows.append((torch.tensor(prompt + answer), torch.tensor([-100] * len(prompt) + answer)))
    ids = pad_sequence([row for row, _ in rows], batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row, _ in rows], batch_first=True)
    labels = pad_sequence([label for _, label in rows], batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        score_answers(model, ids, mask, labels, 1.0).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("model")
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Services:
    inference: Service
    reward: RewardProcess
    collection: Path
    """What the reward service searches."""


@pytest.fixture(scope="module")
def services(root: Path, model: Path, free_port: Callable[[], int], tmp_path_factory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    collection = folder / "notes"
    write_collection(small_collection(), collection, "train")
    searched = {"collections": [{"path": str(collection), "split": "train"}], "cache": str(folder / "cache")}
    reward = RewardProcess(folder, free_port(), searched)
    try:
        with running_service(root, folder, model, free_port()) as inference:
            yield Services(inference, reward, collection)
    finally:
        reward.end()


class Stage:
    """One GRPO stage in a folder, started as often as it is told to."""

    def __init__(self, folder: Path, model: Path, services: Services, **changes: object) -> None:
        rows = [Row(query, "short", prompt_text(query, "<|im_start|>"), "hyde: x\n<|im_end|>") for query in QUERIES]
        (folder / "train.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows))
        values = {
            "prepare": "configs/cpu/prepare.yaml",
            "inference": services.inference.address,
            "reward": services.reward.address,
            "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]},
            "ray": {"threads": 1},
            "steps": STEPS,
            "queries": 2,
            "generations": 8,
            "rows_per_forward": 8,
            "learning_rate": 0.01,
            "max_completion": 80,
            "save_steps": SAVE_STEPS,
        }
        (folder / "grpo.yaml").write_text(yaml.safe_dump(values | changes))
        self.output = folder / "grpo"
        self._command = [sys.executable, "-m", "trainer", "grpo", "--config", folder / "grpo.yaml", "--data", folder]
        self._command += ["--model", model, "--output", self.output]
        self._log = folder / "stage.log"

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(list(map(str, self._command)), env=environment, stderr=log)

    def finish(self) -> None:
        assert self.process.wait(timeout=600) == 0, self._log.read_text()

    def course(self) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of each training step, in the order they were run."""
        path = self.output / "progress.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(record["done"], record["metrics"]) for record in records if "reward" in record["metrics"]]

    def wait_for_step(self, step: int) -> None:
        while not any(done >= step for done, _ in self.course()):
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "TrainWorker" in " ".join(child.cmdline())]

    def worker_log(self) -> str:
        return "".join(path.read_text() for path in (self.output / "logs").glob("*.log"))


@pytest.fixture
def stage(model: Path, services: Services, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes a stage of some changes to the config; what still runs of it after the test is killed."""
    made: list[Stage] = []

    def make(**changes: object) -> Stage:
        made.append(Stage(tmp_path, model, services, **changes))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()


@pytest.fixture(scope="module")
def unbroken(model: Path, services: Services, tmp_path_factory) -> Stage:
    """A run that nothing disturbed, exactly on-policy."""
    stage = Stage(tmp_path_factory.mktemp("unbroken"), model, services, max_staleness=0)
    stage.start()
    stage.finish()
    return stage


def test_grpo_trains_on_rollouts_of_the_current_policy(unbroken, services):
    assert [step for step, _ in unbroken.course()] == list(range(1, STEPS + 1))
    for _, metrics in unbroken.course():
        assert metrics["sampling/logp_difference/mean"] < 0.1
        assert metrics["sampling/importance_ratio/mean"] == pytest.approx(1, abs=0.05)
        assert metrics["staleness"] == metrics["missing"] == 0
        assert {"kl", "frac_reward_zero_std", "rewards/reward/std", "reward/format/groups_without_spread"} <= set(
            metrics
        )
    with InferenceClient(services.inference.address) as client:
        assert client.policy() == f"policy-{STEPS - 1:06d}"
    assert read_manifest(unbroken.output).stage == "grpo"
    assert (unbroken.output / "adapter/adapter_model.safetensors").is_file()


def test_answers_to_judged_queries_earn_what_their_search_gains(stage, services):
    run = stage(steps=2, queries=8, collections=[{"path": str(services.collection), "split": "train"}])
    run.start()
    run.finish()
    assert all("reward/gain/mean" in metrics for _, metrics in run.course())


def test_the_reward_rises_while_each_batch_is_written_a_step_ahead(stage):
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]}
    run = stage(steps=20, save_steps=20, queries=6, learning_rate=0.003, lora=lora)
    run.start()
    run.finish()
    metrics = [metrics for _, metrics in run.course()]
    assert [each["staleness"] for each in metrics] == [0] + [1] * 19
    rewards = [each["reward"] for each in metrics]
    # The untrained policy wrote the first two batches. A reward's deviation is .3, so .1 is three standard errors.
    assert statistics.fmean(rewards[-5:]) > statistics.fmean(rewards[:2]) + 0.1


def test_a_run_whose_driver_was_killed_repeats_what_it_would_have_done(stage, unbroken):
    run = stage(max_staleness=0)
    run.start()
    run.wait_for_step(SAVE_STEPS + 1)
    workers = run.workers()
    run.process.kill()
    assert workers and not psutil.wait_procs(workers, timeout=30)[1]
    run.start()
    run.finish()
    assert_went_on_at_a_checkpoint(run)
    assert_same_course(run, unbroken)


def test_a_worker_in_place_of_a_killed_one_repeats_what_that_would_have_done(stage, unbroken):
    run = stage(max_staleness=0)
    run.start()
    run.wait_for_step(SAVE_STEPS + 1)
    (worker,) = run.workers()
    worker.kill()
    run.finish()
    assert_went_on_at_a_checkpoint(run)
    assert_same_course(run, unbroken)


def test_a_run_goes_on_once_a_killed_reward_service_is_back(stage, services):
    run = stage(reward_seconds=15)
    run.start()
    run.wait_for_step(SAVE_STEPS + 1)
    services.reward.end(signal.SIGKILL)
    try:
        wait_until(lambda: run.worker_log().count("a sample is left out") > 1, 120)
    finally:
        services.reward.start()
    run.finish()
    assert_went_on_at_a_checkpoint(run)
    assert all(metrics["missing"] == 0 for _, metrics in run.course())


def test_a_run_goes_on_after_vllm_was_killed(stage, services):
    run = stage()
    run.start()
    run.wait_for_step(SAVE_STEPS + 1)
    (engine,) = (one for one in descendants(services.inference.process.pid) if "VLLM::Worker" in command_line(one))
    os.kill(engine, signal.SIGKILL)
    run.finish()
    assert_answered_by_its_policies(run, services)


def test_a_run_goes_on_once_a_killed_inference_service_is_back(stage, services):
    run = stage()
    run.start()
    run.wait_for_step(SAVE_STEPS + 1)
    family = descendants(services.inference.process.pid)
    services.inference.process.kill()
    services.inference.process.wait()
    all_ended(family)
    services.inference.start_again()
    run.finish()
    assert_answered_by_its_policies(run, services)


def assert_went_on_at_a_checkpoint(run: Stage) -> None:
    """Every step was run, and those after the last checkpoint twice, the first of them with rollouts of the policy
    restored. That this was brought in again before them is certain: the service refuses a request that names another
    version than the loaded one."""
    steps = [step for step, _ in run.course()]
    (turn,) = (place for place in range(1, len(steps)) if steps[place] != steps[place - 1] + 1)
    assert steps[:turn] == list(range(1, turn + 1))
    assert steps[turn:] == list(range(steps[turn], STEPS + 1))
    assert steps[turn] > 1 and (steps[turn] - 1) % SAVE_STEPS == 0
    assert run.course()[turn][1]["staleness"] == 0
    assert read_manifest(run.output).figures["steps"] == STEPS


def assert_same_course(run: Stage, unbroken: Stage) -> None:
    for name in ("reward", "kl", "completions/mean_length"):
        course, expected = ({step: metrics[name] for step, metrics in one.course()} for one in (run, unbroken))
        assert course == pytest.approx(expected, abs=0.01)


def assert_answered_by_its_policies(run: Stage, services: Services) -> None:
    """Every step was run with all of its rollouts, the first one once, and the service ended with the last policy.

    Whether steps were repeated depends on whether the kill hit rollouts, or the bringing in of a policy, which waits
    for the server and is tried again.
    """
    steps = [step for step, _ in run.course()]
    assert steps.count(1) == 1
    assert set(steps) == set(range(1, STEPS + 1))
    assert all(metrics["missing"] == 0 for _, metrics in run.course())
    with InferenceClient(services.inference.address) as client:
        assert client.policy() == f"policy-{STEPS - 1:06d}"
