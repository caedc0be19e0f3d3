"""Takes what has come of a stream together, and reads little ahead of what is used."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message)


class _End(NamedTuple):
    error: Exception | None


async def taken_together(items: AsyncIterator[Item], most: int, most_bytes: int) -> AsyncIterator[list[Item]]:
    """Lists of the items that have come by now, in order, each of one item at least and `most` at most.

    While a list is used, up to `most` further items are read; a sender of more has to wait.
    most_bytes: where a list ends as well. An error of `items` is raised after all items before it were given out.
    """
    come: asyncio.Queue[Item | _End] = asyncio.Queue(most)

    async def read() -> None:
        error = None
        try:
            async for item in items:
                await come.put(item)
        except Exception as problem:
            error = problem
        await come.put(_End(error))

    reading = asyncio.create_task(read())
    try:
        while True:
            together: list[Item] = []
            size = 0
            while not together or (not come.empty() and len(together) < most and size < most_bytes):
                item = await come.get()
                if isinstance(item, _End):
                    if together:
                        yield together
                    if item.error:
                        raise item.error
                    return
                together.append(item)
                size += item.ByteSize()
            yield together
    finally:
        reading.cancel()
