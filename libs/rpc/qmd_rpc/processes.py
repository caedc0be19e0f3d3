"""Child processes that die with their parent."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Asks Linux for a signal when this process's parent dies, however that happens; elsewhere it does nothing.

    May run between fork and exec, and outlasts exec.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
