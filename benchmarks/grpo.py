"""What a GRPO step costs on this machine: rollouts beside transformers.generate, a new version, and whole steps.

Starts the inference and reward services with a model folder, asks both samplers for the same completions, then trains a
few steps with and without overlap of generation and training, and prints times and ratios.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from foundry.pipeline import answers
from foundry.services import module_command, run_to_end, service
from qmd_rpc.inference import InferenceClient
from qmd_rpc.reward import RewardClient
from qmd_schema.config import load_config
from trainer.config import GrpoConfig, PrepareConfig
from trainer.dataset import load_rows, prepare
from trainer.rollouts import ROLLOUT_DECODE

READY_SECONDS = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="merged SFT model folder")
    parser.add_argument("--configs", type=Path, default=Path("configs/cpu"), help="default: %(default)s")
    parser.add_argument("--prompts", type=int, default=16, help="queries of the rollouts (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=96, help="of a completion, at most (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="of each training (default: %(default)s)")
    given = parser.parse_args()
    config = load_config(given.configs / "grpo.yaml", GrpoConfig)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        prepare(load_config(given.configs / "prepare.yaml", PrepareConfig), folder / "data")
        prompts = [row.prompt for row in load_rows(folder / "data", "train")[: given.prompts]]
        inference = stack.enter_context(InferenceClient(config.inference))
        reward = stack.enter_context(RewardClient(config.reward))
        for client, name, arguments in (
            (inference, "inference", ["inference_service", "--model", str(given.model.resolve())]),
            (reward, "reward", ["reward_service"]),
        ):
            command = module_command(*arguments, "--config", str(given.configs / f"{name}.yaml"))
            log = folder / f"{name}.log"
            stack.enter_context(service(command, log, lambda client=client: answers(client), READY_SECONDS))
        compare_rollouts(inference, given.model, prompts, config.generations, given.tokens)
        compare_steps(given.configs / "grpo.yaml", given.model, folder, given.steps)
    return 0


def compare_rollouts(
    client: InferenceClient, model: Path, prompts: Sequence[str], generations: int, tokens: int
) -> None:
    """The same number of completions of the same prompts, at temperature 1, by the service and by transformers."""
    client.generate(prompts, max_tokens=8, seed=0)
    began = time.perf_counter()
    groups = client.generate(
        prompts, n=generations, decode=ROLLOUT_DECODE, grammar=False, logprobs=True, max_tokens=tokens
    )
    served = sum(len(answer.token_ids) for group in groups for answer in group) / (time.perf_counter() - began)

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    batch = tokenizer(list(prompts), add_special_tokens=False, padding=True, return_tensors="pt")
    began = time.perf_counter()
    with torch.no_grad():
        written = policy.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=generations, max_new_tokens=tokens
        )[:, batch["input_ids"].shape[1] :]
    ended = (written == tokenizer.eos_token_id).cumsum(1)
    own = int((ended - (written == tokenizer.eos_token_id).long() == 0).sum()) / (time.perf_counter() - began)
    print(f"rollouts, {len(prompts)} queries x {generations}, at most {tokens} tokens, temperature 1\n")
    print("| sampler | tokens a second | times transformers |\n|---|---|---|")
    print(f"| inference service | {served:.0f} | {served / own:.1f} |")
    print(f"| transformers.generate, bf16 | {own:.0f} | 1.0 |\n", flush=True)


def compare_steps(config: Path, model: Path, folder: Path, steps: int) -> None:
    """A training with overlap and one without; the first step of each, which warms up, is left out."""
    values = yaml.safe_load(config.read_text())
    medians = {}
    for name, staleness in (("one after the other", 0), ("overlapped", 1)):
        path = folder / f"staleness-{staleness}.yaml"
        path.write_text(yaml.safe_dump(values | {"steps": steps, "save_steps": steps, "max_staleness": staleness}))
        output = folder / f"grpo-{staleness}"
        command = module_command("trainer", "grpo", "--config", str(path), "--data", str(folder / "data"))
        command += ["--model", str(model.resolve()), "--output", str(output)]
        run_to_end(command, folder / "trainer.log", lambda: None)
        medians[name] = step_times(output / "progress.jsonl")
    parts = list(medians["overlapped"])
    print(f"a step, seconds, median of {steps - 1}\n")
    print(f"| training | {' | '.join(parts)} |\n|---|{'---|' * len(parts)}")
    for name, times in medians.items():
        print(f"| {name} | {' | '.join(f'{times[part]:.2f}' for part in parts)} |")
    alone, overlapped = (times["step"] for times in medians.values())
    print(f"\nsteps with overlap are {alone / overlapped:.2f} times as fast")
    print(f"a new version is brought in within {medians['one after the other']['sync']:.2f} s")


def step_times(progress: Path) -> dict[str, float]:
    """Median seconds of a step and of its parts.

    `generate` and `score`, the rewards, may run while the step before trains; `wait` is what is left of them. `sync` is
    what bringing the policy in takes, `forward` all else: the passes of the policy and of the model that it is compared
    with, and the loss.
    """
    records: list[dict[str, Any]] = [json.loads(line) for line in progress.read_text().splitlines()]
    steps = [record for record in records if "reward" in record["metrics"]]
    times = {"step": [after["time"] - before["time"] for before, after in itertools.pairwise(steps)]}
    for metrics in (record["metrics"] for record in steps[1:]):
        parts = {part: metrics[f"seconds/{part}"] for part in ("generate", "score", "wait", "sync", "backward")}
        parts["forward"] = metrics["step_time"] - parts["wait"] - parts["sync"] - parts["backward"]
        for part, value in parts.items():
            times.setdefault(part, []).append(value)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
