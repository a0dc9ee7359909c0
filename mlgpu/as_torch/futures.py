"""torch.futures: what will be there later, which here is there at once."""

from __future__ import annotations

from concurrent.futures import Future as _Future
from typing import Any


class Future(_Future[Any]):
    """A result that a program sets itself."""

    def wait(self) -> Any:
        """The result."""
        return self.result()

    def value(self) -> Any:
        """The result."""
        return self.result()


def wait_all(futures: list[Future]) -> list[Any]:
    """The results."""
    return [future.wait() for future in futures]


def collect_all(futures: list[Future]) -> Future:
    """All of them, as one."""
    made = Future()
    made.set_result(futures)
    return made
