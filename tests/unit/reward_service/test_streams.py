import asyncio
from collections.abc import AsyncIterator

import pytest

from qmd_rpc.v1.reward_pb2 import ScoreRequest
from reward_service.streams import taken_together


class Source:
    """Requests numbered by their query, and how many of them were taken."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.taken = count, error, 0

    async def __aiter__(self) -> AsyncIterator[ScoreRequest]:
        for number in range(self.count):
            self.taken += 1
            yield ScoreRequest(query=str(number))
        if self.error:
            raise self.error


def numbers(together: list[ScoreRequest]) -> list[int]:
    return [int(request.query) for request in together]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 23])
def test_all_items_come_in_order_a_few_together(count: int) -> None:
    async def collect() -> list[list[int]]:
        return [numbers(together) async for together in taken_together(aiter(Source(count)), 5, 1_000)]

    lists = asyncio.run(collect())
    assert [number for together in lists for number in together] == list(range(count))
    assert all(1 <= len(together) <= 5 for together in lists)


def test_a_list_ends_where_it_grows_too_long() -> None:
    async def collect() -> list[int]:
        return [len(together) async for together in taken_together(aiter(Source(12)), 64, 6)]

    assert max(asyncio.run(collect())) == 2


def test_little_is_read_ahead_of_what_is_used() -> None:
    async def use_one() -> int:
        source = Source(1_000)
        async for _ in taken_together(aiter(source), 8, 1_000):
            await asyncio.sleep(0.05)
            return source.taken
        return 0

    assert asyncio.run(use_one()) <= 2 * 8 + 1


def test_an_error_comes_after_all_items_before_it() -> None:
    found: list[int] = []

    async def collect() -> None:
        async for together in taken_together(aiter(Source(7, ValueError("bad eighth"))), 5, 1_000):
            found.extend(numbers(together))

    with pytest.raises(ValueError, match="bad eighth"):
        asyncio.run(collect())
    assert found == list(range(7))
