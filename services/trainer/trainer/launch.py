"""A training loop on Ray Train: the cluster, its workers, their logs, and how it all ends."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qmd_rpc.processes import TRAINING_WAITS
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError
from trainer.config import RaySettings
from trainer.tracking import tracker_environment

CHECKPOINTS_NAME = "checkpoints"
LOGS_NAME = "logs"
PROGRESS_NAME = "progress.jsonl"
SCRATCH_NAME = "scratch"
STARTED_NAME = "started.json"
OBJECT_STORE_BYTES = 80 * 2**20
"""Nothing but small metrics passes through Ray's object store."""
KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""Lets a worker keep the memory of its activations, in huge pages, instead of fetching it anew for each operation: a
step on a CPU takes 1.4 to 3 times as long without. Other C libraries ignore it. GLIBC_TUNABLES has room for one
setting: of several only the first would reach a child's child."""

_MEMORY_USED = re.compile(r"was ([\d.]+)GB used / ([\d.]+)GB limit")
"""In Ray's message of a process that it ended before the kernel would."""

logger = logging.getLogger(__name__)


class StageFailedError(Exception):
    """A stage that could not be finished; the message says why and where its log is."""


def claim(folder: Path, config: StrictModel, inputs: dict[str, str]) -> None:
    """Notes what a stage is started with. Raises ArtifactError where the folder holds the start of another one."""
    path = folder / STARTED_NAME
    own = {"config": config.model_dump(mode="json"), "inputs": inputs}
    if not path.is_file():
        write_text_atomically(path, json.dumps(own, indent=2) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != own:
        raise ArtifactError(
            f"{folder}: holds a stage that was started with another config or other inputs, see {STARTED_NAME}. "
            "Give another --output, or delete the folder."
        )


def record_progress(path: Path, task: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Appends one step to a progress file."""
    line = {"task": task, "done": done, "total": total, "metrics": metrics, "time": time.time()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def train_on_ray(loop: Callable[..., None], arguments: dict[str, Any], settings: RaySettings, folder: Path) -> None:
    """Runs `loop(folder=folder, **arguments)` in every worker and returns when all have ended.

    Checkpoints that the loop reports are kept in `folder/checkpoints`; a second call with the same folder goes on from
    the newest. Joins the Ray cluster of RAY_ADDRESS, as in a job, or else starts one of its own and stops it.
    Raises StageFailedError when workers failed more often than the settings allow.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray looks this often for what workers report, and till then neither knows of their newest checkpoint after a kill
    # nor lets them report again.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    _drop_broken_snapshot(folder / CHECKPOINTS_NAME)
    threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
    trainer = TorchTrainer(
        _in_worker,
        train_loop_config={"loop": loop, "arguments": arguments, "folder": str(folder), "threads": threads},
        torch_config=TorchConfig(backend="nccl" if settings.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=settings.gpu),
        run_config=RunConfig(
            name=CHECKPOINTS_NAME,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=settings.checkpoints_kept),
            worker_runtime_env={"env_vars": _worker_environment(settings, threads, folder)},
        ),
    )
    try:
        _join_cluster(settings)
        with _sigterm_as_sigint():
            trainer.fit()
    except TrainingFailedError as error:
        raise _explain(error, folder) from error
    except SystemExit as error:  # Ray Train's way out after Ctrl-C
        raise KeyboardInterrupt from error
    finally:
        ray.shutdown()
        shutil.rmtree(folder / SCRATCH_NAME, ignore_errors=True)


def _worker_environment(settings: RaySettings, threads: int, folder: Path) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"} | tracker_environment(folder)
    return environment if settings.gpu else environment | KEPT_MEMORY | TRAINING_WAITS


def _join_cluster(settings: RaySettings) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        ray.init(
            address="local",
            num_cpus=settings.workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Lets SIGTERM end the run as Ctrl-C does, which Ray Train handles. To be entered after `ray.init`, which sets
    a handler of its own."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker: the loop, with its output in the stage's folder."""
    import ray.train
    import torch

    folder = Path(config["folder"])
    log = folder / LOGS_NAME / f"worker-{ray.train.get_context().get_world_rank()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(config["threads"])
    config["loop"](folder=folder, **config["arguments"])


def _drop_broken_snapshot(checkpoints: Path) -> None:
    """Removes Ray Train's list of checkpoints where a kill hit while it was written; training then starts over."""
    snapshot = checkpoints / "checkpoint_manager_snapshot.json"
    if snapshot.is_file():
        try:
            json.loads(snapshot.read_bytes())
        except ValueError:
            logger.warning("%s was cut off by a kill; training starts over", snapshot)
            snapshot.unlink()


def _explain(error: Exception, folder: Path) -> StageFailedError:
    failures = getattr(error, "worker_failures", {}).values()
    for text in map(str, (error, *failures)):
        if used := _MEMORY_USED.search(text):
            return StageFailedError(
                f"{folder.name}: Ray ended the training: {used[1]} of the machine's {used[2]} GiB of memory are used. "
                "End what else needs much and run the same command, which goes on at the last checkpoint; or begin "
                f"anew in another folder with a smaller `rows_per_forward`. Log: {folder / LOGS_NAME}"
            )
    reasons = sorted({str(failure).strip().splitlines()[-1] for failure in failures})
    return StageFailedError(f"{folder.name}: {'; '.join(reasons) or error}. Log: {folder / LOGS_NAME}")
