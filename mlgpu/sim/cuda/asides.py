"""What happens as soon as some work is done, without a place in any stream's order.

The program takes memory from a pool and gives it back between pieces of work.  That comes at a
point of a stream's order, but unlike work it puts nothing of other streams in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Done(Protocol):
    """Work, or another aside."""

    done: bool
    then: list[Aside]


class Aside:
    """Runs when all that it stands behind is done; at once, if that is so already."""

    __slots__ = ("_missing", "_run", "done", "then")

    def __init__(self, run: Callable[[], None], behind: Iterable[Done]) -> None:
        self._run = run
        self.done = False
        self.then: list[Aside] = []
        before = [b for b in dict.fromkeys(behind) if not b.done]
        self._missing = len(before)
        for b in before:
            b.then.append(self)
        if not before:
            self._go()

    def passed(self) -> None:
        """One of those that it stands behind is done."""
        self._missing -= 1
        if not self._missing:
            self._go()

    def _go(self) -> None:
        self.done = True
        self._run()
        for aside in self.then:
            aside.passed()
