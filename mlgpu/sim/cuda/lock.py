"""The lock of a simulated system, which knows how deep its thread is in it.

Python's garbage collector may come at any step, also in the midst of a launch, and what it collects
may destroy streams or free memory.  What comes so is done when the call is over that it came into.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Lock:
    """One lock for all threads; the thread that has it may take it again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.depth = 0  # how often the thread that has it has taken it
        self.later: deque[Callable[[], Any]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            while self.depth == 1 and self.later:
                self.later.popleft()()
        finally:
            self.depth -= 1
            self._lock.release()
