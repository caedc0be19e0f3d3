"""Training examples: the one JSONL format and the one way it is read."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from qmd_schema.errors import DataError
from qmd_schema.expansion import KINDS, Expansion, Kind, Line

MAX_LINE_BYTES = 1_000_000
_MAX_PROBLEMS_SHOWN = 50


class TrainingExample(BaseModel):
    """One query and the expansion a model should write for it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    query: str = Field(min_length=1)
    output: list[tuple[Kind, str]] = Field(min_length=1)
    category: str | None = None
    intent: str | None = None
    is_short: bool | None = None

    @field_validator("query")
    @classmethod
    def _query_is_one_line(cls, value: str) -> str:
        if not value.strip() or len(value.splitlines()) > 1:
            raise ValueError("wants a non-empty query on one line")
        return value

    @field_validator("output", mode="before")
    @classmethod
    def _output_is_pairs(cls, value: Any) -> Any:
        if not isinstance(value, list) or not value:
            raise ValueError("wants a non-empty list of [kind, text] pairs")
        for index, pair in enumerate(value):
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
                raise ValueError(f"output[{index}]: {_shorten(pair)} is not a [kind, text] pair of strings")
            kind, text = pair
            if kind not in KINDS:
                raise ValueError(f'output[{index}]: kind "{kind}" is none of {", ".join(KINDS)}')
            if not text.strip():
                raise ValueError(f"output[{index}]: the {kind} text is empty")
            if len(text.splitlines()) > 1:
                raise ValueError(f"output[{index}]: the {kind} text {_shorten(text)} has more than one line")
        return [tuple(pair) for pair in value]

    @property
    def expansion(self) -> Expansion:
        return Expansion(tuple(Line(kind, text) for kind, text in self.output))


@dataclass(frozen=True)
class LoadedExample:
    """An example with the place it came from."""

    example: TrainingExample
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def load_examples(paths: Iterable[Path]) -> list[LoadedExample]:
    """Reads JSONL files of training examples, in order.

    Raises DataError that lists the bad lines of every file, each with file, line, field, value and remedy.
    """
    loaded: list[LoadedExample] = []
    problems: list[str] = []
    for path in paths:
        for where, line, result in _read(path):
            if isinstance(result, str):
                problems.append(f"{where}: {result}")
            else:
                loaded.append(LoadedExample(result, path, line))
    if problems:
        shown = problems[:_MAX_PROBLEMS_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"… and {len(problems) - len(shown)} more")
        raise DataError("\n".join(shown))
    return loaded


def _read(path: Path) -> Iterable[tuple[str, int, TrainingExample | str]]:
    """Yields (where, line number, example or what is wrong with the line)."""
    if not path.is_file():
        yield str(path), 0, "no such data file"
        return
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(raw) > MAX_LINE_BYTES:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE_BYTES)
                yield where, number, f"longer than {MAX_LINE_BYTES:,} bytes; an example is one short line"
                continue
            yield where, number, _parse_line(raw, first=number == 1)
    if number == 0:
        yield str(path), 0, "the file is empty; it wants at least one example, or remove it"


def _parse_line(raw: bytes, first: bool) -> TrainingExample | str:
    if first and raw.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte order mark (BOM); save the file as UTF-8 without BOM"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"invalid UTF-8 at byte {error.start}: {raw[error.start : error.start + 1]!r}; save the file as UTF-8"
    if not text.strip():
        return "empty line; remove it"
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return f"not JSON at column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return str(error)
    if not isinstance(value, dict):
        return f'{_shorten(value)} is not an object; wants {{"query": …, "output": [[kind, text], …]}}'
    try:
        return TrainingExample.model_validate(value)
    except ValidationError as error:
        return "; ".join(_describe(dict(entry)) for entry in error.errors())


def _describe(entry: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "missing":
        return f"{field}: missing; every example has query and output"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error" and message.startswith("output["):
        return message
    return f"{field}: {_shorten(entry['input'])}: {message}"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'key "{key}" occurs twice in one object; keep one')
    return dict(pairs)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; use a number, a string or null")


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"
