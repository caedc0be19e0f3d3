"""Starts vLLM or llama.cpp, waits for its first completion, starts it again when it breaks, and stops it."""

import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from inference_service.command import server_command, server_environment
from inference_service.config import InferenceServiceConfig
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import InferenceClient
from qmd_rpc.processes import die_with_parent

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_CAUSE = re.compile(rb" ERROR .*\] (\w+(?:Error|Exception): .+)")


class EngineError(Exception):
    """The engine did not become ready, or ended once too often; the message holds what it said."""


def run(config: InferenceServiceConfig, model: Path, log: IO[bytes]) -> None:
    """Serves until SIGTERM or SIGINT.

    log: where the engine's output goes. Raises EngineError.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for restarts in range(config.max_restarts + 1):
        if restarts and stop.wait(2.0 ** (restarts - 1)):
            return
        with _started(config, model, log) as engine:
            _wait_ready(config, engine, stop)
            while engine.is_running and not stop.wait(_POLL_SECONDS):
                pass
        if stop.is_set():
            logger.info("stopped")
            return
        logger.error("the engine ended by itself; last line: %s", engine.last_words)
    raise EngineError(f"the engine ended {config.max_restarts + 1} times; last line: {engine.last_words}")


class _Engine:
    """The engine's processes and what they last wrote."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self._cause = self._last_line = b""
        self._reader = threading.Thread(target=self._copy, args=(log,), daemon=True)
        self._reader.start()

    def _copy(self, log: IO[bytes]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            log.write(line)
            log.flush()
            self._last_line = line.strip() or self._last_line
            if not self._cause and (match := _CAUSE.search(line)):
                self._cause = match[1]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def last_words(self) -> str:
        """The first error it logged, since the lines after it only follow from it; else its last line."""
        if not self.is_running:
            self._reader.join(timeout=1)
        return (self._cause or self._last_line).decode(errors="replace")


@contextmanager
def _started(config: InferenceServiceConfig, model: Path, log: IO[bytes]) -> Iterator[_Engine]:
    guard = [sys.executable, "-m", "inference_service.guard", str(config.stop_seconds)]
    process = subprocess.Popen(
        [*guard, *server_command(config, model)],
        env=server_environment(config),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    logger.info("starting the engine (pid %d) with %s", process.pid, model)
    try:
        yield _Engine(process, log)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(config: InferenceServiceConfig, engine: _Engine, stop: threading.Event) -> None:
    """Returns when a completion came back, or on `stop`."""
    started = time.monotonic()
    address = f"{config.host}:{config.port}"
    ready = threading.Event()

    def probe() -> None:
        with InferenceClient(address) as client, suppress(ServiceError):
            client.wait_ready(config.ready_seconds)
            ready.set()

    threading.Thread(target=probe, daemon=True).start()
    while not ready.wait(_POLL_SECONDS) and not stop.is_set():
        seconds = time.monotonic() - started
        if not engine.is_running:
            problem = f"ended after {seconds:.0f} s, before it was ready"
            raise EngineError(f"the engine {problem}; last line: {engine.last_words}")
        if seconds > config.ready_seconds:
            problem = f"did not become ready within {config.ready_seconds:g} s"
            raise EngineError(f"inference service at {address} {problem}; last line: {engine.last_words}")
    if ready.is_set():
        print(f"inference service ready at {address} after {time.monotonic() - started:.0f} s", flush=True)
