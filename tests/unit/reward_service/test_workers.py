import asyncio
import os
import signal
import time

import pytest

from reward_service.retrieval_queue import Answer, Job, RetrievalQueue
from reward_service.workers import Workers, end_processes


def end_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def closed(workers: Workers) -> None:
    workers.close()
    end_processes()
    await asyncio.sleep(0)


def test_work_runs_in_another_process_or_in_a_thread_of_this_one() -> None:
    async def run() -> tuple[int, int]:
        processes, thread = Workers("p", 1), Workers("t", 0)
        try:
            return await processes.run(os.getpid), await thread.run(os.getpid)
        finally:
            await closed(processes)
            await closed(thread)

    elsewhere, here = asyncio.run(run())
    assert here == os.getpid() != elsewhere


def test_a_worker_that_dies_is_replaced_and_only_its_work_is_lost_when_it_kills_again() -> None:
    async def run() -> int:
        workers = Workers("p", 1)
        try:
            first = await workers.run(os.getpid)
            os.kill(first, signal.SIGKILL)
            second = await workers.run(os.getpid)
            assert second != first
            with pytest.raises(Exception, match="terminated abruptly"):
                await workers.run(end_oneself)
            return await workers.run(abs, -7)
        finally:
            await closed(workers)

    assert asyncio.run(run()) == 7


def test_closing_ends_workers_in_the_middle_of_their_work() -> None:
    async def run() -> None:
        workers = Workers("p", 1)
        await workers.warm_up()
        sleeping = asyncio.create_task(workers.run(time.sleep, 600))
        await asyncio.sleep(0.2)
        sleeping.cancel()
        await closed(workers)

    started = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - started < 60


def test_jobs_that_come_while_the_worker_is_busy_are_done_together_in_order() -> None:
    together: list[int] = []

    async def work(jobs: list[Job]) -> list[Answer]:
        together.append(len(jobs))
        await asyncio.sleep(0.01)
        return [job.query.encode() for job in jobs]

    async def run() -> list[Answer]:
        queue = RetrievalQueue(work)  # type: ignore[arg-type]
        return await asyncio.gather(*(queue.score(Job(str(number), "", "")) for number in range(40)))

    assert asyncio.run(run()) == [str(number).encode() for number in range(40)]
    assert sum(together) == 40 and len(together) <= 3


def test_long_jobs_are_done_a_few_together_so_that_others_do_not_wait_for_all_of_them() -> None:
    together: list[int] = []

    async def work(jobs: list[Job]) -> list[Answer]:
        together.append(len(jobs))
        return [b"" for _ in jobs]

    async def run() -> None:
        queue = RetrievalQueue(work)  # type: ignore[arg-type]
        await asyncio.gather(*(queue.score(Job("tea", "vec: tea\n" * 200, "")) for _ in range(9)))

    asyncio.run(run())
    assert sum(together) == 9 and max(together) == 2


def test_the_error_of_a_job_reaches_those_that_were_done_with_it_and_no_others() -> None:
    async def work(jobs: list[Job]) -> list[Answer]:
        if any(job.query == "bad" for job in jobs):
            raise RuntimeError("worker is broken")
        return [b"" for _ in jobs]

    async def run() -> Answer:
        queue = RetrievalQueue(work)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="worker is broken"):
            await queue.score(Job("bad", "", ""))
        return await queue.score(Job("good", "", ""))

    assert asyncio.run(run()) == b""
