"""Collects retrieval requests while the worker is busy and hands them over together: texts embed faster in numbers."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

_TOGETHER = 32
"""Jobs handed over at most, so that those which come meanwhile do not wait long."""
_LINES_TOGETHER = 256
"""Lines from which on no further job is added to them: more than so many jobs of usual length have."""


class Job(NamedTuple):
    """One expansion to measure."""

    query: str
    expansion: str
    collection: str


class NotJudgedError(Exception):
    """The collection is not loaded, or the query is not judged in it."""


Answer = bytes | NotJudgedError
"""A serialized ScoreRetrievalResponse, or why there is none."""


class RetrievalQueue:
    """The jobs that wait for the one worker that holds the collections."""

    def __init__(self, work: Callable[[Sequence[Job]], Awaitable[Sequence[Answer]]]) -> None:
        """work: gives an answer for each job."""
        self._work = work
        self._waiting: deque[tuple[Job, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def score(self, job: Job) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            together: list[tuple[Job, asyncio.Future[Answer]]] = []
            lines = 0
            while self._waiting and len(together) < _TOGETHER and lines < _LINES_TOGETHER:
                job, future = self._waiting.popleft()
                if not future.done():  # as it is where the caller has gone
                    together.append((job, future))
                    lines += job.expansion.count("\n") + 1
            try:
                answers = await self._work([job for job, _ in together])
            except Exception as error:
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
