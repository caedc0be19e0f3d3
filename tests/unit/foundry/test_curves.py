"""Curves of training, from progress files as the trainer's callback writes them."""

from pathlib import Path

import pytest

from foundry.curves import panels, read_course
from foundry.plots import Curves, save_curves
from trainer.launch import record_progress

SFT = {"loss": 2.0, "grad_norm": 0.1, "tokens_per_second": 400.0}
GRPO = {
    "loss": 0.01,
    "reward": 0.5,
    "reward_std": 0.1,
    "kl": 0.002,
    "reward/tokens/mean": 80.0,
    "groups_without_spread": 0.25,
    "groups_redrawn": 0.5,
    "reward/retrieval/mean": 0.1,
    "reward/retrieval/std": 0.1,
    "reward/format/mean": 28.0,
    "staleness": 1.0,
    "missing": 0.0,
    "seconds/generate": 4.0,
    "seconds/sync": 0.5,
}


@pytest.fixture
def progress(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def curves_of(stage: str, progress: Path) -> dict[str, dict[str, dict[int, float]]]:
    return {panel.title: dict(panel.values) for panel in panels(stage, read_course(progress))}


def test_sft_shows_both_losses(progress):
    for step in (1, 2):
        record_progress(progress, "sft", step, 2, SFT | {"loss": 3.0 - step})
    record_progress(progress, "sft", 2, 2, {"eval_loss": 1.5})
    assert curves_of("sft", progress) == {
        "sft: loss": {"training": {1: 2.0, 2: 1.0}, "held-out": {2: 1.5}},
        "sft: tokens a second": {"prompt and completion": {1: 400.0, 2: 400.0}},
    }


def test_grpo_shows_the_reward_its_parts_and_how_the_rollouts_went(progress):
    record_progress(progress, "grpo", 1, 1, GRPO)
    assert curves_of("grpo", progress) == {
        "grpo: reward": {"mean": {1: 0.5}, "standard deviation": {1: 0.1}},
        "grpo: KL to the reference model": {"KL": {1: 0.002}},
        "grpo: completion length in tokens": {"mean": {1: 80.0}},
        "grpo: shares of groups": {"without spread": {1: 0.25}, "redrawn": {1: 0.5}},
        "grpo: share of missing samples": {"missing": {1: 0.0}},
        "grpo: staleness in optimizer steps": {"mean": {1: 1.0}},
        "grpo: seconds of a step": {"generate": {1: 4.0}, "sync": {1: 0.5}},
        "grpo: terms of the reward": {"retrieval": {1: 0.1}},
        "grpo: points of the rubric": {"format": {1: 28.0}},
    }


def test_steps_that_were_trained_again_count_once_and_a_line_under_way_does_not(progress):
    for loss in (2.0, 1.0):
        record_progress(progress, "sft", 1, 2, {"loss": loss})
    with progress.open("a") as file:
        file.write('{"task": "sft", "done": 2')
    assert read_course(progress) == {"loss": {1: 1.0}}


def test_a_stage_without_metrics_has_no_curves(progress):
    assert panels("sft", read_course(progress)) == []
    record_progress(progress, "prepare", 1, 1, {})
    assert panels("prepare", read_course(progress)) == []


def test_the_page_is_a_picture(tmp_path: Path):
    path = tmp_path / "curves.png"
    save_curves(path, "run 0001", [Curves("sft: loss", {"training": {1: 2.0, 2: 1.0}, "held-out": {2: 1.5}})])
    assert path.read_bytes().startswith(b"\x89PNG")
