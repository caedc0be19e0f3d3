"""Requests as they come, before they are read: long ones are cut up or refused without reading all of them.

The event loop reads what is short; a full batch of 100 MiB would hold it up for a tenth of a second.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

from qmd_rpc.decoding import RequestError, decode
from reward_service.limits import MAX_BATCH, MAX_EXPANSION_BYTES, MAX_QUERY_CHARACTERS

Decoded = TypeVar("Decoded", bound=Message)

CHUNK_REQUESTS = 64
CHUNK_BYTES = 24 * 1024
"""What is scored in one go: two milliseconds of work, or 40 where the texts are made to be slow."""

SHORT_BYTES = 64 * 1024
_MOST_BYTES = {
    "query": 4 * MAX_QUERY_CHARACTERS,
    "expansion": MAX_EXPANSION_BYTES,
    "collection": 4 * MAX_QUERY_CHARACTERS,
    "request": MAX_EXPANSION_BYTES + 4 * MAX_QUERY_CHARACTERS + 64,
}
_FURTHER_FIELDS = 64
_REQUESTS_FIELD = 1
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Chunk(NamedTuple):
    """Some requests of a batch, one after the other."""

    first: int
    """The index of the first of them in the batch."""
    requests: int
    data: bytes
    """A serialized ScoreBatchRequest: part of one is one too, and so is what several make when they are joined."""


def split_batch(data: bytes) -> list[Chunk]:
    """Cuts a serialized ScoreBatchRequest between its requests. Raises RequestError for one that is bad or too long."""
    chunks: list[Chunk] = []
    start = first = index = 0
    for number, begin, end in _fields(data, MAX_BATCH + _FURTHER_FIELDS):
        if number != _REQUESTS_FIELD:
            continue
        if index == MAX_BATCH:
            raise RequestError(f"requests: has more than {MAX_BATCH:,} entries; wants at most {MAX_BATCH:,}")
        if index - first == CHUNK_REQUESTS or (index > first and end - start > CHUNK_BYTES):
            chunks.append(Chunk(first, index - first, data[start:begin]))
            start, first = begin, index
        index += 1
    if index > first:
        chunks.append(Chunk(first, index - first, data[start:]))
    return chunks


def reader(message_type: type[Decoded]) -> Callable[[bytes], Decoded]:
    """A deserializer that refuses a message far over its limits by the name of the field that is too long."""

    def read(data: bytes) -> Decoded:
        if len(data) > SHORT_BYTES:
            names = message_type.DESCRIPTOR.fields_by_number
            for number, begin, end in _fields(data, _FURTHER_FIELDS):
                name = names[number].name if number in names else "message"
                if end - begin > (most := _MOST_BYTES.get(name, SHORT_BYTES)):
                    raise RequestError(f"{name}: has {end - begin:,} bytes; wants at most {most:,}")
        return decode(message_type, data)

    return read


def _fields(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """The top fields of a serialized message, `most` of them: (number, where its tag begins, where it ends)."""
    position = count = 0
    while position < len(data):
        begin = position
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _LENGTH:
            length, position = _varint(data, position)
            position += length
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            position += 4 if kind == _FOUR_BYTES else 8
        else:
            raise RequestError("message: cannot be read")
        if position > len(data):
            raise RequestError("message: ends too early")
        count += 1
        if count > most:
            raise RequestError(f"message: has more than {most:,} fields")
        yield tag >> 3, begin, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    value = shift = 0
    while shift < 64:
        if position == len(data):
            raise RequestError("message: ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise RequestError("message: cannot be read")
