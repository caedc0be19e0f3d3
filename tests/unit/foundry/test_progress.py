import io
import re
from pathlib import Path

from rich.console import Console

from foundry.progress import StageProgress
from trainer.launch import record_progress

GRPO = {
    "loss": 0.0123,
    "grad_norm": 0.2,
    "reward": 0.5,
    "reward_std": 0.1,
    "kl": 0.002,
    "reward/tokens/mean": 80.25,
    "tokens_per_second": 412.34,
}


def told(tmp_path: Path, metrics: dict[str, float], **terminal: object) -> str:
    """What a console shows of a step with these metrics."""
    output = io.StringIO()
    record_progress(tmp_path / "progress.jsonl", "grpo", 6, 6, metrics)
    with StageProgress(Console(file=output, **terminal), "[4/7] grpo") as progress:
        progress.follow(tmp_path / "progress.jsonl")
    return output.getvalue()


def test_a_step_of_grpo_is_told_by_reward_kl_length_and_speed(tmp_path: Path) -> None:
    line = told(tmp_path, GRPO)
    assert line == "  [4/7] grpo: grpo 6/6  reward 0.5  kl 0.002  length 80.25  tokens/s 412.3\n"


def test_all_of_it_stands_on_one_line_of_a_terminal(tmp_path: Path) -> None:
    shown = told(tmp_path, GRPO, force_terminal=True, width=120)
    lines = [line for line in re.split(r"[\r\n]", shown) if "grpo" in line]
    assert lines and all("reward 0.5" in line and "tokens/s 412.3" in line and "0:00:00" in line for line in lines)


def test_a_step_of_sft_is_told_by_its_losses(tmp_path: Path) -> None:
    assert told(tmp_path, {"loss": 1.5, "eval_loss": 1.75, "grad_norm": 3.0}).endswith("loss 1.5  eval_loss 1.75\n")
