"""The points of a publication at which a crash has to be survived.

Each names itself as it is reached, so that a test can list them by one publication and end the process at every one.
"""

from collections.abc import Callable

observer: Callable[[str], None] | None = None
"""Called with each point; only tests set it."""


def reach(point: str) -> None:
    if observer is not None:
        observer(point)
