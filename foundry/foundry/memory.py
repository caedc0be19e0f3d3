"""How much memory a run takes: this process and all that descend from it, sampled while they run."""

import threading

import psutil

SAMPLE_SECONDS = 5.0


class PeakMemory:
    """Samples the memory of this process and its descendants while the block runs; `bytes` is the most seen.

    Pages that several processes share count once (proportional set size, Linux).
    """

    def __init__(self, sample_seconds: float = SAMPLE_SECONDS) -> None:
        self.bytes = 0
        self._sample_seconds = sample_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while True:
            self.bytes = max(self.bytes, sum(map(_held, [own, *own.children(recursive=True)])))
            if self._ended.wait(self._sample_seconds):
                return


def _held(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.Error:  # it has just ended
        return 0
    return int(getattr(memory, "pss", memory.rss))
