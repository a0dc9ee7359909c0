"""What compiled loops over rows share."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import inlined
from mlgpu.cpu.fast.maths import lowest, of_rank, rank

LANES = 32  # of rows that are as long as whole steps of vector code, no rest is taken one by one


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
