import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import all_ended, wait_until

GUARD = [sys.executable, "-m", "inference_service.guard"]
# Starts a guard as the service does, and lives on.
CALLER = """
import subprocess, sys, time
from qmd_rpc.processes import die_with_parent
subprocess.Popen(sys.argv[1:], preexec_fn=die_with_parent)
time.sleep(60)
"""


def family(folder: Path, trap: str = "") -> list[str]:
    """A program that starts another and leaves the process ids of both in `folder`."""
    return [
        "sh",
        "-c",
        f"{trap} sh -c '{trap} echo $$ > {folder}/child; sleep 60' & echo $$ > {folder}/program; wait; wait",
    ]


def process_ids(folder: Path) -> list[int]:
    files = [folder / "program", folder / "child"]
    wait_until(lambda: all(file.is_file() and file.read_text().strip() for file in files), seconds=30)
    return [int(file.read_text()) for file in files]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process of its parent's death")
def test_nothing_is_left_when_the_caller_is_killed(tmp_path: Path) -> None:
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *GUARD, "5", *family(tmp_path)])
    started = process_ids(tmp_path)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    all_ended(started, seconds=5)


def test_processes_that_ignore_sigterm_are_killed(tmp_path: Path) -> None:
    guard = subprocess.Popen([*GUARD, "0.5", *family(tmp_path, trap='trap "" TERM;')])
    started = process_ids(tmp_path)
    guard.terminate()
    assert guard.wait(5) == 128 + signal.SIGKILL
    all_ended(started, seconds=1)


def test_a_program_that_ends_takes_its_children_with_it(tmp_path: Path) -> None:
    program = f"sleep 60 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/program; exit 3"
    done = subprocess.run([*GUARD, "5", "sh", "-c", program], timeout=10)
    assert done.returncode == 3
    all_ended(process_ids(tmp_path), seconds=1)
