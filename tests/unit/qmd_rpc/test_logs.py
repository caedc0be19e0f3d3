import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from qmd_rpc.logs import JsonLog, request_id


class Pipe:
    """A logger that writes into a pipe."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self.reader = os.fdopen(read_end)
        self.writer = os.fdopen(write_end, "w")
        self.handler = JsonLog(self.writer)
        self.logger = logging.Logger("tea", logging.INFO)
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, object]]:
        self.handler.close()
        self.writer.close()
        return [json.loads(line) for line in self.reader]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.reader.close()


def test_a_line_is_an_object_with_the_id_of_the_call_and_what_is_added(pipe: Pipe) -> None:
    token = request_id.set("r1")
    pipe.logger.info("steeped %d times", 2, extra={"fields": {"seconds": 0.5}})
    request_id.reset(token)
    pipe.logger.debug("not shown")
    [line] = pipe.lines()
    assert line.pop("time")
    expected = {"level": "INFO", "logger": "tea", "message": "steeped 2 times", "request_id": "r1", "seconds": 0.5}
    assert line == expected


def test_an_exception_stays_in_its_line(pipe: Pipe) -> None:
    try:
        raise ValueError("cold")
    except ValueError:
        pipe.logger.exception("failed")
    [line] = pipe.lines()
    assert "ValueError: cold" in str(line["exception"])


def test_a_reader_that_stands_still_holds_nobody_up_but_loses_lines(pipe: Pipe) -> None:
    def flood() -> None:
        for number in range(30_000):
            pipe.logger.info("line %d", number)

    flooding = threading.Thread(target=flood)
    flooding.start()
    flooding.join(60)
    assert not flooding.is_alive()
    reading: list[str] = []
    reader = threading.Thread(target=lambda: reading.extend(pipe.reader))
    reader.start()
    pipe.handler.close()
    pipe.writer.close()
    reader.join()
    assert 10_000 <= len(reading) < 30_000
