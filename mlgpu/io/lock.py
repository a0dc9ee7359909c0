"""Locks on files, which the system lets go of when their process ends, whichever way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT = 0.1  # seconds between two looks at a lock that another process holds


def try_lock(descriptor: int) -> None:
    """Lock an open file for its holder alone.  OSError while another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Run the block while no other process or thread runs one for this folder: it waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as file:
        while True:
            try:
                try_lock(file.fileno())
                break
            except (BlockingIOError, PermissionError):  # held; the latter is how Windows says it
                time.sleep(_WAIT)
        yield
