"""Runs: folders of stages that know which of them are done."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qmd_schema.artifacts import Manifest, read_manifest, write_text_atomically
from qmd_schema.errors import ArtifactError, UserError
from qmd_schema.verdicts import SignedVerdict, read_signed_verdict

STAGES = ("prepare", "sft", "sft-merged", "grpo", "merged", "evaluate", "publish")
RECORD_NAME = "run.json"


@dataclass(frozen=True)
class Run:
    """One walk through the stages; `folder` is absolute."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def record(self) -> dict[str, str]:
        """Profile, hash of configs and training data, and start time (UTC, ISO 8601), written when the run was made."""
        path = self.folder / RECORD_NAME
        if not path.is_file():
            raise ArtifactError(f"{self.folder}: not a run: it has no {RECORD_NAME}.")
        record: dict[str, str] = json.loads(path.read_text())
        return record

    def stage(self, name: str) -> Path:
        return self.folder / name

    def manifest(self, stage: str) -> Manifest | None:
        return read_manifest(self.stage(stage))

    def done_stages(self) -> list[str]:
        return [stage for stage in STAGES if self.manifest(stage) is not None]

    @property
    def is_finished(self) -> bool:
        return len(self.done_stages()) == len(STAGES)

    def verdict(self) -> SignedVerdict | None:
        path = self.stage("evaluate") / "verdict.json"
        return read_signed_verdict(path) if path.is_file() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; raises UserError when another one walks it."""
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"{self.folder}: another process is walking this run. Wait for it, or stop it."
                ) from error
            yield


def list_runs(folder: Path) -> list[Run]:
    """All runs below a folder, oldest first."""
    return [Run(path.parent.resolve()) for path in sorted(folder.glob(f"*/{RECORD_NAME}"))]


def find_run(folder: Path, run_id: str) -> Run:
    """A run by its id or its folder. Raises UserError that names the runs there are."""
    for candidate in (folder / run_id, Path(run_id)):
        if (candidate / RECORD_NAME).is_file():
            return Run(candidate.resolve())
    known = ", ".join(run.id for run in list_runs(folder)) or "none"
    raise UserError(f"{folder / run_id}: no such run. Runs there: {known}.")


def start_run(folder: Path, profile: str, inputs_sha256: str) -> Run:
    """Makes the next run's folder, named by a number of four digits."""
    numbers = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    run = Run((folder / f"{max(numbers, default=0) + 1:04d}").resolve())
    run.folder.mkdir(parents=True)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"profile": profile, "inputs_sha256": inputs_sha256, "created": created}
    write_text_atomically(run.folder / RECORD_NAME, json.dumps(record, indent=2) + "\n")
    return run


def unfinished_run(folder: Path, profile: str, inputs_sha256: str) -> Run | None:
    """The newest run of this profile, when it is unfinished and was started with these very configs and data."""
    mine = [run for run in list_runs(folder) if run.record["profile"] == profile]
    if not mine or mine[-1].is_finished or mine[-1].record["inputs_sha256"] != inputs_sha256:
        return None
    return mine[-1]
