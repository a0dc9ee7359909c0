"""What compiled loops over rows share."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import inlined
from mlgpu.cpu.fast.maths import lowest, of_rank, rank

LANES = 32  # of rows that are as long as whole steps of vector code, no rest is taken one by one
SHORT = 4096  # numbers added in their own dtype, before such sums are added in float64


@inlined
def largest(row: Any) -> Any:
    """The largest number of a row, or NaN if there is one with its sign bit clear.

    Of ranks, which are integers: a running maximum of floating numbers does not become vector code.
    """
    top = lowest(row.dtype.type(0))
    for column in range(len(row)):
        place = rank(row[column])
        top = place if place > top else top
    return of_rank(top)


@inlined
def total(row: Any) -> float:
    """The sum of a row."""
    found = 0.0
    for start in range(0, len(row), SHORT):
        part = row[start:start + SHORT]
        short = row.dtype.type(0)
        for at in range(len(part)):
            short += part[at]
        found += short
    return found


@inlined
def squares(row: Any, mean: Any) -> float:
    """The sum of (row - mean)**2."""
    found = 0.0
    for start in range(0, len(row), SHORT):
        part = row[start:start + SHORT]
        short = row.dtype.type(0)
        for at in range(len(part)):
            short += (part[at] - mean) * (part[at] - mean)
        found += short
    return found


@inlined
def products(dy: Any, row: Any, mean: Any) -> float:
    """The sum of dy * (row - mean)."""
    found = 0.0
    for start in range(0, len(row), SHORT):
        part, grad = row[start:start + SHORT], dy[start:start + SHORT]
        short = row.dtype.type(0)
        for at in range(len(part)):
            short += grad[at] * (part[at] - mean)
        found += short
    return found
