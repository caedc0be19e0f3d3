"""What a training stage's progress file shows as curves."""

import json
from collections.abc import Mapping
from pathlib import Path

from foundry.plots import Curves
from qmd_reward.composite import CompositeReward

Course = Mapping[str, Mapping[int, float]]
"""The values of each metric by step."""

LENGTH = "completion length in tokens"
PANELS = {
    "loss": {"loss": "training", "eval_loss": "held-out"},
    "reward": {"reward": "mean", "reward_std": "standard deviation"},
    "KL to the reference model": {"kl": "KL"},
    LENGTH: {"reward/tokens/mean": "mean"},
    "shares of groups": {"groups_without_spread": "without spread", "groups_redrawn": "redrawn"},
    "share of missing samples": {"missing": "missing"},
    "staleness in optimizer steps": {"staleness": "mean"},
    "seconds of a step": {f"seconds/{part}": part for part in ("generate", "score", "wait", "sync", "backward")},
    "tokens a second": {"tokens_per_second": "prompt and completion"},
}
"""Title of a panel: the metrics in it, and what each is called there."""
PART_PREFIX, PART_SUFFIX = "reward/", "/mean"
"""Around the name of a part of the reward, of a part of its rubric, and of the retrieval gain."""


def read_course(path: Path) -> Course:
    """The metrics of a progress.jsonl; of steps that were trained again after a kill, the last values.

    Empty where the stage has not logged any.
    """
    course: dict[str, dict[int, float]] = {}
    if path.is_file():
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        for line in whole.splitlines():
            record = json.loads(line)
            for name, value in record.get("metrics", {}).items():
                course.setdefault(name, {})[record["done"]] = value
    return course


def panels(stage: str, course: Course) -> list[Curves]:
    """The curves of a stage, without those it has no values for."""
    parts = {
        name: name.removeprefix(PART_PREFIX).removesuffix(PART_SUFFIX)
        for name in course
        if name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX) and name not in PANELS[LENGTH]
    }
    terms = {*CompositeReward._fields, "gain"}
    chosen: dict[str, dict[str, str]] = {
        **PANELS,
        "terms of the reward": {name: part for name, part in parts.items() if part in terms},
        "points of the rubric": {name: part for name, part in parts.items() if part not in terms},
    }
    if "reward" in course:  # then the loss only tells how far the policy moved from the one it is compared with
        del chosen["loss"]
    curves = [
        Curves(f"{stage}: {title}", {label: course[name] for name, label in names.items() if name in course})
        for title, names in chosen.items()
    ]
    return [panel for panel in curves if panel.values]
