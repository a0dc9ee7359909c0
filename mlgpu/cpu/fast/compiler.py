"""How loops are compiled: the one place that calls Numba's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Sums may be taken in lanes and products contracted; NaN, infinities and signed zeros stay.
_REORDERED = {"reassoc", "contract"}
_AS_WRITTEN = {"contract"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A loop over arrays, compiled for each set of dtypes at its first call, without the GIL."""
    loop: Callable[..., Any] = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath=_REORDERED)(function)
    return loop


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers for use in compiled loops."""
    small: Callable[..., Any] = numba.njit(error_model="numpy", fastmath=_REORDERED)(function)
    return small


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `inlined`, but every operation is done as written: what gains digits by its order."""
    small: Callable[..., Any] = numba.njit(
        forceinline=True, error_model="numpy", fastmath=_AS_WRITTEN)(function)
    return small
