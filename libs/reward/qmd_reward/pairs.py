"""Files of queries and expansions to score: JSON lines, read one at a time."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qmd_schema.errors import DataError

MAX_LINE_BYTES = 1_000_000


class Pair(BaseModel):
    """One line of a file of pairs; further fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    query: str
    expansion: str


def read_pairs(path: Path) -> Iterator[Pair]:
    """Yields the pairs of a JSONL file, one line in memory at a time. Raises DataError at the first bad line."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}.") from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{path}:{number}: longer than {MAX_LINE_BYTES:,} bytes; a pair is one short line.")
            try:
                yield Pair.model_validate_json(line)
            except ValidationError as error:
                problems = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in error.errors())
                raise DataError(f'{path}:{number}: {problems}; wants {{"query": text, "expansion": text}}.') from error
