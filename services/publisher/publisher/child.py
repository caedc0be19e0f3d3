"""Work in child processes: they can be ended at any time, their memory goes with them, and they die with their parent.

`python -m publisher.child MODULE ARGUMENT…` runs a module so that the kernel ends it when its parent ends.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from qmd_rpc.processes import BRIEF_WAITS, die_with_parent

_POLL_SECONDS = 0.2


class StepError(Exception):
    """A step of a publication that failed; the message holds the end of its log."""


class CalledOffError(Exception):
    """The publication was called off."""


def run_child(module: str, arguments: Sequence[str | Path], cancelled: threading.Event, seconds: float) -> str:
    """Runs a Python module to its end and returns what it wrote to stdout.

    Raises StepError when it fails or takes longer than `seconds`, CalledOffError soon after `cancelled` is set.
    """
    command = [sys.executable, "-m", "publisher.child", module, *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | BRIEF_WAITS
    end = time.monotonic() + seconds
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", env=environment
    ) as process:
        while True:
            try:
                stdout, stderr = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if cancelled.is_set() or time.monotonic() > end:
                    process.kill()
                    process.communicate()
                    if cancelled.is_set():
                        raise CalledOffError from None
                    raise StepError(f"{module} took longer than {seconds:g} s (step_seconds).") from None
    if process.returncode != 0:
        log = "\n".join(stderr.strip().splitlines()[-5:])
        raise StepError(f"{module} ended with code {process.returncode}: {log}")
    return stdout


def main() -> None:
    die_with_parent(signal.SIGKILL)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
