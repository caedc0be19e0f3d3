"""Logs as JSON, one object a line on stderr. Who reads too slowly loses lines; the service is never held up."""

import json
import logging
import queue
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that is being handled; stands in every line that is logged meanwhile."""

_PENDING_LINES = 10_000
_FLUSH_SECONDS = 2.0


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message, request_id, and what `extra={"fields": {…}}` adds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if call := request_id.get():
            line["request_id"] = call
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class JsonLog(logging.Handler):
    """Writes lines from a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_PENDING_LINES)
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._stream.write(f"{line}\n")
            self._stream.flush()
            if self._lost and self._lines.empty():
                lost, self._lost = self._lost, 0
                logging.getLogger(__name__).warning("%d lines were lost, since nobody read them in time", lost)

    def close(self) -> None:
        """Writes what is pending, for two seconds at most."""
        try:
            self._lines.put(None, timeout=_FLUSH_SECONDS)
        except queue.Full:
            return
        self._writer.join(_FLUSH_SECONDS)
        super().close()


def configure_logging(level: str) -> None:
    """Sends the logs of this process to stderr as JSON from `level` on. Call it once, at the start of a program."""
    logging.basicConfig(level=level.upper(), handlers=[JsonLog(sys.stderr)])
