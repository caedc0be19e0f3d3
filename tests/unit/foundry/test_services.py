import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foundry.services import StageError, run_to_end, service
from qmd_schema.errors import UserError
from support.processes import all_ended, wait_until


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_bad_input_of_a_stage_is_passed_on_as_it_was_said(tmp_path: Path) -> None:
    command = python("import sys; print('data/x.jsonl:3: kind', file=sys.stderr); sys.exit(2)")
    with pytest.raises(UserError, match=r"^data/x\.jsonl:3: kind$"):
        run_to_end(command, tmp_path / "a.log", on_tick=lambda: None)


def test_a_failed_stage_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="out of memory"):
        run_to_end(python("raise SystemExit('out of memory')"), tmp_path / "a.log", on_tick=lambda: None)


def test_progress_is_looked_at_while_a_stage_runs_and_once_after(tmp_path: Path) -> None:
    ticks: list[float] = []
    run_to_end(
        python("import time; time.sleep(0.5)"), tmp_path / "a.log", lambda: ticks.append(time.time()), tick_seconds=0.1
    )
    assert len(ticks) >= 3


def test_a_service_that_ends_before_it_is_ready_is_an_error(tmp_path: Path) -> None:
    command = python("raise SystemExit('no such model')")
    with pytest.raises(StageError, match="no such model"), service(command, tmp_path / "a.log", lambda: False, 10):
        pass


def test_a_service_that_stays_silent_is_stopped(tmp_path: Path) -> None:
    command = python("import time; print('loading', flush=True); time.sleep(60)")
    started = time.monotonic()
    silent = service(command, tmp_path / "a.log", lambda: False, 1)
    with pytest.raises(StageError, match="not become ready within 1 s"), silent:
        pass
    assert time.monotonic() - started < 20


def test_a_service_is_stopped_when_the_block_ends(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = python(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with service(command, tmp_path / "a.log", lambda: pid_file.exists() and bool(pid_file.read_text()), 10):
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_service_that_was_killed_is_started_again_so_many_times(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("foundry.services.MAX_RESTARTS", 1)
    pid_file = tmp_path / "pid"
    command = python(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")

    def is_up() -> bool:
        keep_up()
        return pid_file.exists() and bool(pid_file.read_text())

    with service(command, tmp_path / "a.log", pid_file.exists, 10) as keep_up:
        for _ in range(2):
            wait_until(is_up, 30)
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
            pid_file.unlink()
        with pytest.raises(StageError, match="ended 2 times"):
            wait_until(is_up, 30)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_service_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from foundry.services import service\n"
        f"with service([sys.executable, '-c', {child!r}], Path({str(tmp_path / 'a.log')!r}), lambda: True, 10):\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(python(parent))
    wait_until(lambda: pid_file.exists() and bool(pid_file.read_text()), seconds=30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    all_ended([int(pid_file.read_text())])
