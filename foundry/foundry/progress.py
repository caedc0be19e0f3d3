"""Progress of long work: a bar with ETA on a terminal, a line now and then elsewhere."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from qmd_rpc.v1 import evaluation_pb2

LINE_SECONDS = 15.0
SHOWN_METRICS = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "reward": "reward",
    "kl": "kl",
    "reward/tokens/mean": "length",
    "tokens_per_second": "tokens/s",
}
"""What stands beside a bar, and how it is called there; a stage's progress.jsonl holds all its metrics."""
BAR_WIDTH = 20
"""Characters; leaves room for the metrics on a line of 120."""


class StageProgress:
    """The progress of one stage, by task: start it with `with`, feed it with `update` or `follow`."""

    def __init__(self, console: Console, stage: str) -> None:
        self._console = console
        self._stage = stage
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._offsets: dict[Path, int] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "StageProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Shows that `done` of `total` units of a task are behind us, with figures beside the bar."""
        note = _note(metrics or {})
        label = f"{self._stage}: {task}"
        if self._console.is_terminal:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(label, total=total, note=note)
            self._bars.update(self._tasks[task], completed=done, total=total, note=note)
        elif done >= total or time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"  {label} {done}/{total}  {note}".rstrip(), highlight=False)

    def report(self, progress: evaluation_pb2.Progress) -> None:
        """Shows what a service says of its own progress."""
        self.update(progress.task, progress.done, progress.total)

    def follow(self, path: Path) -> None:
        """Shows what was appended to a stage's progress.jsonl since the last call."""
        if not path.is_file():
            return
        offset = self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            fresh = file.read()
        whole, newline, _ = fresh.rpartition(b"\n")
        self._offsets[path] = offset + len(whole) + len(newline)
        for line in whole.splitlines():
            step = json.loads(line)
            self.update(step["task"], step["done"], step["total"], step.get("metrics"))


def _note(metrics: Mapping[str, float]) -> str:
    """The shown metrics on one line; a loss only where it is what is learnt from, not beside a reward."""
    shown = [name for name in SHOWN_METRICS if name in metrics and not (name == "loss" and "reward" in metrics)]
    return "  ".join(f"{SHOWN_METRICS[name]} {metrics[name]:.4g}" for name in shown)
