"""Runs work beside the event loop: in worker processes, which are started again when one dies, or in a thread."""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from qmd_rpc.processes import die_with_parent

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Workers:
    """Some worker processes; or one thread of this process, where there are none."""

    def __init__(self, name: str, processes: int) -> None:
        """name: for the log and for threads. Processes are started when the first work comes."""
        self.name = name
        self._processes = processes
        self._executor = self._start()

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The result of a function that can be pickled, as can its arguments.

        When a worker dies meanwhile, all are replaced and the work is done again; the second time it fails.
        """
        try:
            return await self._attempt(function, *arguments)
        except BrokenProcessPool:
            return await self._attempt(function, *arguments)

    async def _attempt(self, function: Callable[..., Result], *arguments: object) -> Result:
        executor = self._executor
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
        except BrokenProcessPool:
            if executor is self._executor:
                logger.error("a %s worker died; starting new ones", self.name)
                self._executor = self._start()
            raise

    async def warm_up(self) -> None:
        """Starts the processes; returns when the first can work."""
        await asyncio.gather(*(self.run(_nothing) for _ in range(self._processes)))

    def close(self) -> None:
        """Lets no further work begin."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> Executor:
        if not self._processes:
            return ThreadPoolExecutor(1, thread_name_prefix=self.name)
        # Not forked: gRPC's threads would be missing in the copy, and what they hold locked would stay so.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._processes, mp_context=context, initializer=_begin, initargs=(os.getpid(),))


def end_processes() -> None:
    """Ends the worker processes of all closed `Workers`, whatever they are doing."""
    for process in multiprocessing.active_children():
        process.terminate()


def _begin(parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it died before it could be noticed
        os._exit(1)
    # Ctrl-C reaches the whole process group; the parent lets running calls finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _nothing() -> None:
    pass
