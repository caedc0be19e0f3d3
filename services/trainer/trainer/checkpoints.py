"""What a stage leaves on disk while it trains: progress, and checkpoints to go on from after a kill."""

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

from trainer.launch import PROGRESS_NAME, SCRATCH_NAME, record_progress

NOISE = ("_runtime", "_samples_per_second", "_steps_per_second", "total_flos", "num_tokens")
"""Endings of the metrics that a progress file leaves out: they say nothing about training."""


class RunCallback(TrainerCallback):
    """Writes a line of progress a logged step, and hands each checkpoint of the Hugging Face trainer to Ray Train."""

    def __init__(self, task: str, folder: Path) -> None:
        """task: what the steps are called; folder: the stage's."""
        self._task = task
        self._progress = folder / PROGRESS_NAME
        self._tokens: float | None = None
        self._step_began = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        self._step_began = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        metrics = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "num_tokens" in metrics:  # since training began
            if self._tokens is not None:
                seconds = time.monotonic() - self._step_began
                metrics["tokens_per_second"] = (metrics["num_tokens"] - self._tokens) / seconds
            self._tokens = metrics["num_tokens"]
        state.log_history[-1] |= metrics
        if state.is_world_process_zero:
            told = {name: value for name, value in metrics.items() if not name.endswith(NOISE)}
            record_progress(self._progress, self._task, state.global_step, state.max_steps, told)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        # Each worker saved its own random state; Ray Train merges the workers' folders into one checkpoint.
        local = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        report(state, ray.train.Checkpoint.from_directory(local))
        shutil.rmtree(local)


def report(state: TrainerState, checkpoint: ray.train.Checkpoint | None = None) -> None:
    """Gives Ray Train the newest value of every metric that was logged. With each checkpoint and at the end, not with
    each step: a report waits until the one before was fetched, which takes up to two seconds."""
    newest: dict[str, Any] = {}
    for entry in state.log_history:
        newest |= entry
    ray.train.report(newest, checkpoint)


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
