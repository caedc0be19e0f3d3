"""What every registry does with folders on this machine: holds one for a publication, and seals what is done."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.registry import RegistryBusyError


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Holds a folder's lock, which the kernel takes back when this process ends in any way.

    Raises RegistryBusyError where another process, or another thread of this one, holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RegistryBusyError(f"{home}: another publication is running. Try again when it has ended.") from error
        yield


def seal(folder: Path) -> None:
    """Brings every file to the disk and makes it read-only, readable by all."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
