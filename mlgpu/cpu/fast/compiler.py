"""How loops are compiled: the one place that calls Numba's compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

# Sums may be taken in lanes and products contracted; NaN, infinities and signed zeros stay.
_REORDERED = {"reassoc", "contract"}
_AS_WRITTEN = {"contract"}


def _shared() -> str:
    """What loops of any file are made with: files that Numba does not look at."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("blas.py", "compiler.py", "maths.py", "recurrent.py", "rows.py",
                 "streams.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


SHARED = _shared()


def compiled(function: Callable[..., Any], *, as_written: bool = False,
             stamp: str | None = None, on_disk: bool = True) -> Callable[..., Any]:
    """A loop over arrays, compiled for each set of dtypes at its first call, without the GIL.

    `as_written` keeps sums in their order.  Machine code on disk serves until the loop's file
    changes, or `stamp`, if given.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy",
               "fastmath": _AS_WRITTEN if as_written else _REORDERED}
    loop: Any = numba.njit(**options)(function)
    if on_disk:
        with suppress(RuntimeError):  # nowhere to write: compiled anew in each process
            loop.enable_caching()
            index = loop._cache._cache_file
            index._source_stamp = (stamp or index._source_stamp, SHARED)
    return loop  # type: ignore[no-any-return]


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers for use in compiled loops."""
    small: Callable[..., Any] = numba.njit(error_model="numpy", fastmath=_REORDERED)(function)
    return small


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `inlined`, but every operation is done as written: what gains digits by its order."""
    small: Callable[..., Any] = numba.njit(
        forceinline=True, error_model="numpy", fastmath=_AS_WRITTEN)(function)
    return small
