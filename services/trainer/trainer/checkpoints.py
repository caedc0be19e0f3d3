"""What a stage leaves on disk while it trains: progress, and checkpoints to go on from after a kill."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainer.launch import PROGRESS_NAME, SCRATCH_NAME

NOISE = ("_runtime", "_per_second", "total_flos", "num_tokens")
"""Endings of the metrics that say nothing about training."""


class RunCallback(TrainerCallback):
    """Writes a line of progress a logged step, and hands each checkpoint of the Hugging Face trainer to Ray Train."""

    def __init__(self, task: str, folder: Path) -> None:
        """task: what the steps are called; folder: the stage's."""
        self._task = task
        self._progress = folder / PROGRESS_NAME
        self._latest: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        metrics = {
            name: float(value)
            for name, value in logs.items()
            if isinstance(value, int | float) and not name.endswith(NOISE)
        }
        self._latest |= metrics
        if state.is_world_process_zero:
            record_progress(self._progress, self._task, state.global_step, state.max_steps, metrics)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        # Each worker saved its own random state; Ray Train merges the workers' folders into one checkpoint.
        local = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        ray.train.report({"step": state.global_step, **self._latest}, ray.train.Checkpoint.from_directory(local))
        shutil.rmtree(local)


def record_progress(path: Path, task: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Appends one step to a progress file."""
    line = {"task": task, "done": done, "total": total, "metrics": metrics, "time": time.time()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def scratch_folder(folder: Path) -> Path:
    """An empty folder of this worker's own, in which its trainer saves before Ray Train takes the checkpoint over."""
    scratch = folder / SCRATCH_NAME / os.environ.get("RANK", "0")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


@contextmanager
def last_checkpoint() -> Iterator[str | None]:
    """The folder of the newest checkpoint of this run, or None at the first start.

    It holds adapter, optimizer, scheduler, random states and the step, from which the trainer finds its place in the
    data again.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
    else:
        with checkpoint.as_directory() as folder:
            yield folder
