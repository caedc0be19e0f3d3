"""Child processes: they die with their parent, and share the cores with others."""

import ctypes
import signal
import sys

BRIEF_WAITS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
"""Environment of a process that computes: how long its threads spin while they wait for each other.

As long as GNU's OpenMP lets them by default, they crawl on cores that others use: a step of llama.cpp on two cores
takes 27 times as long beside one busy process, with this twice. Not at all, as `passive` alone has it, which other
runtimes understand as well, takes half as long again on cores that are free.
"""

TRAINING_WAITS = BRIEF_WAITS | {"GOMP_SPINCOUNT": "10000"}
"""The same for PyTorch's backward passes, whose many small operations lie further apart: after brief waits a step
takes 1.4 times as long on free cores, and beside a busy process 1.25 times."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Asks Linux for a signal when this process's parent dies, however that happens; elsewhere it does nothing.

    May run between fork and exec, and outlasts exec.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
