"""Starts the project's programs as child processes that never outlive this one."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qmd_rpc.processes import die_with_parent
from qmd_schema.errors import UserError

STOP_SECONDS = 30.0
MAX_RESTARTS = 5
"""How often a service that ended by itself is started again, after 1, 2, 4, … seconds."""


class StageError(Exception):
    """A stage or a service of the run failed; the message holds the end of its log."""


def module_command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def spawn(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own, so that Ctrl-C reaches this process first and stops it in order."""
    return subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program: SIGTERM, then SIGKILL when it is still there after STOP_SECONDS."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_to_end(command: Sequence[str], log_path: Path, on_tick: Callable[[], None], tick_seconds: float = 0.5) -> None:
    """Runs a program until it ends, calling `on_tick` meanwhile.

    Raises UserError with its message when it exits with 2 (bad input), StageError when it fails otherwise.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        start = log.tell()
        process = spawn(command, log)
        try:
            while True:
                try:
                    code = process.wait(tick_seconds)
                    break
                except subprocess.TimeoutExpired:
                    on_tick()
        finally:
            stop(process)
    on_tick()
    if code == 2:
        raise UserError(_written_since(log_path, start).strip())
    if code != 0:
        raise StageError(f"{' '.join(command[2:4])} ended with {code}. {describe_log(log_path)}")


@contextmanager
def service(
    command: Sequence[str], log_path: Path, is_ready: Callable[[], bool], ready_seconds: float
) -> Iterator[Callable[[], None]]:
    """Runs a service while the block runs; the block starts once the service answers.

    Yields a function to be called now and then, which starts the service again where it has ended by itself; it raises
    StageError once that was more than MAX_RESTARTS times.
    Raises UserError when the service refuses to start (exit code 2), StageError when it ends or stays silent.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        start = log.tell()
        process = spawn(command, log)
        restarts = 0
        due: float | None = None

        def keep_up() -> None:
            nonlocal process, restarts, due
            if process.poll() is None:
                return
            if restarts == MAX_RESTARTS:
                raise StageError(f"{command[2]} ended {restarts + 1} times. {describe_log(log_path)}")
            due = due or time.monotonic() + 2.0**restarts
            if time.monotonic() >= due:
                process, restarts, due = spawn(command, log), restarts + 1, None

        try:
            deadline = time.monotonic() + ready_seconds
            while not is_ready():
                code = process.poll()
                if code == 2:
                    raise UserError(_written_since(log_path, start).strip())
                if code is not None:
                    raise StageError(f"{command[2]} ended with {code} before it was ready. {describe_log(log_path)}")
                if time.monotonic() > deadline:
                    raise StageError(
                        f"{command[2]} did not become ready within {ready_seconds:.0f} s. {describe_log(log_path)}"
                    )
                time.sleep(0.2)
            yield keep_up
        finally:
            stop(process)


def describe_log(path: Path, lines: int = 15) -> str:
    """The end of a log and where the rest of it is."""
    tail = path.read_text(errors="replace").splitlines()[-lines:]
    return f"The end of {path}:\n" + "\n".join(f"  {line}" for line in tail)


def _written_since(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")
