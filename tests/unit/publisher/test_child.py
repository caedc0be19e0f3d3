import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from publisher.child import CalledOffError, StepError, run_child
from support.processes import all_ended, is_alive, wait_until


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a module `sleeper` on the path of child processes: it writes its process id and sleeps."""
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "pid"


def wait_for(path: Path) -> int:
    wait_until(lambda: path.is_file() and bool(path.read_text()), seconds=30)
    return int(path.read_text())


def test_a_child_hands_back_what_it_printed() -> None:
    assert "usage: python -m publisher.probe" in run_child("publisher.probe", ["--help"], threading.Event(), 60)


def test_a_failing_child_is_reported_with_the_end_of_its_log() -> None:
    with pytest.raises(StepError, match=r"publisher\.probe ended with code 2: .*\n?.*invalid choice: 'dance'"):
        run_child("publisher.probe", ["dance"], threading.Event(), 60)


def test_a_child_that_takes_too_long_is_ended(sleeper: Path) -> None:
    with pytest.raises(StepError, match="sleeper took longer than 1 s"):
        run_child("sleeper", [sleeper], threading.Event(), 1)
    assert not sleeper.is_file() or not is_alive(int(sleeper.read_text()))


def test_a_child_is_ended_when_the_publication_is_called_off(sleeper: Path) -> None:
    cancelled = threading.Event()
    threading.Thread(target=lambda: (wait_for(sleeper), cancelled.set())).start()
    with pytest.raises(CalledOffError):
        run_child("sleeper", [sleeper], cancelled, 60)
    assert not is_alive(wait_for(sleeper))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_dies_with_its_parent(sleeper: Path) -> None:
    code = (
        "import sys, threading\n"
        "from publisher.child import run_child\n"
        "run_child('sleeper', sys.argv[1:], threading.Event(), 60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(sleeper)])
    child = wait_for(sleeper)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    all_ended([child])
