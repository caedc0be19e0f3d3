"""`python -m inference_service.guard SECONDS COMMAND…`: runs a program that leaves no process behind.

vLLM's engine and worker outlive an API server that was killed. So all of them share a process group, and this small
process ends the group when the program ends, on SIGTERM, and when its own parent dies, were it by SIGKILL.
"""

import os
import signal
import subprocess
import sys
import time

from qmd_rpc.processes import die_with_parent

_POLL_SECONDS = 0.2


def run(command: list[str], stop_seconds: float) -> int:
    """Runs the command until it ends or SIGTERM comes; returns its exit code, as a shell would give it.

    stop_seconds: how long its processes may take to end after SIGTERM before they are killed.
    """
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        del number, frame
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    program = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)
    while program.poll() is None and not stopping:
        time.sleep(_POLL_SECONDS)
    if _signal_group(program.pid, signal.SIGTERM):
        deadline = time.monotonic() + stop_seconds
        while time.monotonic() < deadline and _signal_group(program.pid, 0):
            program.poll()
            time.sleep(_POLL_SECONDS)
        _signal_group(program.pid, signal.SIGKILL)
    code = program.wait()
    return code if code >= 0 else 128 - code


def _signal_group(group: int, number: int) -> bool:
    """Whether the group still had a process to send the signal to; 0 only asks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(run(sys.argv[2:], float(sys.argv[1])))
