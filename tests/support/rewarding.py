"""The reward service as a process of its own, and texts that it has trouble with."""

import itertools
import json
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from qmd_rpc.reward import RewardClient
from qmd_rpc.security import Access

_TWO_LETTERS = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=2)]
_NAMES = " ".join(name.upper() for name in _TWO_LETTERS[:660])
SLOW_PAIR = (_NAMES, "\n".join(f"lex:{number:04}" for number in range(1_400)) + f"\nlex:{_NAMES[:1_900]}")
"""Within the limits, and as long to score as they allow: each line is looked through for hundreds of names."""


class RewardProcess:
    """`python -m reward_service` on a port of its own, started as often as it is told to."""

    def __init__(self, folder: Path, port: int, config: dict[str, Any] | None = None, *options: str) -> None:
        """folder: receives config and log. config: what differs from the shipped one; its `server` is merged."""
        root = Path(__file__).resolve().parents[2]
        values = yaml.safe_load((root / "configs/cpu/reward.yaml").read_text())
        changes = config or {}
        values |= changes | {"server": values["server"] | changes.get("server", {})}
        path = folder / "reward.yaml"
        path.write_text(yaml.safe_dump(values))
        self.command = [sys.executable, "-m", "reward_service", "--config", str(path), "--port", str(port), *options]
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "reward.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits. Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def running(
    folder: Path, port: int, config: dict[str, Any] | None = None, *options: str, access: Access | None = None
) -> Iterator[tuple[RewardProcess, RewardClient]]:
    """A service that is ready, and a client of it."""
    service = RewardProcess(folder, port, config, *options)
    try:
        with RewardClient(service.address, deadline=60, access=access) as client:
            client.wait_ready(120)
            yield service, client
    finally:
        service.end(signal.SIGKILL)
