"""What comes from the host's side: arrays, dtypes, shapes and places in the caller's source."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.sim.errors import SimError

Array = np.ndarray[Any, Any]
HERE = str(Path(__file__).parent)
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


def array(values: Any, what: str, wanted: np.dtype[Any] | None = None) -> Array:
    """A contiguous array of what a GPU can hold, in its byte order."""
    try:
        found = np.ascontiguousarray(values, wanted)
    except (TypeError, ValueError, OverflowError) as error:
        raise SimError(f"{what}: {type(values).__name__} is no array: {error}") from error
    kind = dtype(found.dtype, what)
    return found if kind.isnative else found.astype(kind.newbyteorder("="))


def dtype(given: Any, what: str) -> np.dtype[Any]:
    """A dtype of numbers or structs of them.  SimError where it is none."""
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError) as error:
        raise SimError(f"{what}: {given!r} is no dtype: {error}") from error
    if kind.hasobject or (kind.kind != "V" and f"{kind.kind}{kind.itemsize}" not in NUMBERS):
        raise SimError(f"{what}: {kind} does not exist on a GPU; bool, numbers of up to 64 bits, "
                       "pairs of them (complex) and structs do")
    return kind


def several(given: Any) -> tuple[Any, ...]:
    """The values of something that can be iterated; else the thing alone."""
    try:
        return tuple(given)
    except TypeError:
        return (given,)


def shape(given: Any, what: str) -> tuple[int, ...]:
    """The dimensions of an array as whole numbers, none negative."""
    sizes = several(given)
    if any(isinstance(n, (bool, np.bool_)) or not hasattr(n, "__index__") for n in sizes):
        raise SimError(f"{what}: the shape {given!r}; whole numbers are needed")
    numbers = tuple(operator.index(n) for n in sizes)
    if any(n < 0 for n in numbers) or len(numbers) > 32:
        raise SimError(f"{what}: the shape {given!r}; at most 32 dimensions, none negative")
    return numbers


def alike(given: np.dtype[Any], own: np.dtype[Any]) -> bool:
    """Whether values of a dtype may be put in a buffer of another as they are."""
    if given == own or given == np.uint8 or own == np.uint8:
        return True
    return given.kind in "iu" and own.kind in "iu" and given.itemsize == own.itemsize


def sequence(what: str, values: Any) -> Sequence[Any]:
    """The values one after the other.  SimError where it is a string, or no sequence at all."""
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        return tuple(values)
    except TypeError:
        raise SimError(f"{what}={values!r}; a list or tuple is needed") from None


def caller() -> str:
    """The "file:line" outside this package that called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
