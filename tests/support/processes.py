"""The process tree as Linux shows it, for tests of what is left behind."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path


def descendants(process_id: int) -> list[int]:
    """Ids of a process's children, of theirs, and so on."""
    children = [
        int(child) for task in Path(f"/proc/{process_id}/task").glob("*/children") for child in task.read_text().split()
    ]
    return children + [process for child in children for process in descendants(child)]


def command_line(process_id: int) -> str:
    return Path(f"/proc/{process_id}/cmdline").read_text()


def is_alive(process_id: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    """Waits for a condition; fails when it has not come true in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(0.1)


def all_ended(processes: Iterable[int], seconds: float = 30) -> None:
    """Waits until none of the processes runs any more."""
    family = list(processes)
    wait_until(lambda: not any(map(is_alive, family)), seconds)
