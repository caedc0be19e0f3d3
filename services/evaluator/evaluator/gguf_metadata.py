"""What a GGUF file says of itself, read without its weights.

Source: the file format's description, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3).
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its form in `struct`."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


def read_metadata(path: Path) -> dict[str, Any]:
    """Key -> number, bytes of a text, or list of these. Raises ValueError for what is no GGUF file, or half of one."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != b"GGUF":
            raise ValueError("it does not begin as a GGUF file does")
        (version,) = _numbers(file, "I", 1)
        if version not in _VERSIONS:
            raise ValueError(f"its format is {version}, known are {_VERSIONS}")
        _, count = _numbers(file, "Q", 2)
        return {_string(file).decode(): _value(file, *_numbers(file, "I", 1)) for _ in range(count)}


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _numbers(file, _form(kind), 1)[0]
    (items,) = _numbers(file, "I", 1)
    (count,) = _numbers(file, "Q", 1)
    if items == _STRING:
        return [_string(file) for _ in range(count)]
    return list(_numbers(file, _form(items), count))


def _form(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"a value has the unknown type {kind}")
    return _NUMBERS[kind]


def _string(file: BinaryIO) -> bytes:
    return _read(file, _numbers(file, "Q", 1)[0])


def _numbers(file: BinaryIO, form: str, count: int) -> tuple[Any, ...]:
    return struct.unpack(f"<{count}{form}", _read(file, count * struct.calcsize(f"<{form}")))


def _read(file: BinaryIO, length: int) -> bytes:
    """Exactly so many bytes; a length of nonsense is never allocated."""
    data = file.read(min(length, 2**28))
    if len(data) < length:
        raise ValueError("it ends in the middle")
    return data
