"""Loops whose steps launch the same kernels, on memory further along: Python prepares one step.

An eager launch takes the host several times as long as the driver alone: what is to run is chosen,
and what it is given is checked.  In a loop over the steps of a sequence nothing of that changes but
addresses.  So one step runs as it is and its launches are noted; the others only start them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlgpu.cuda.launch import noted

_ALIGNED = 16  # bytes: which kernel it is depends on addresses modulo this at most


def repeat(step: Callable[[int], None], start: int, stop: int,
           moving: Sequence[tuple[Any, int]], period: int = 1) -> None:
    """step(start), ..., step(stop - 1).

    A step launches kernels and does nothing else; it gives them the same each time, but for parts
    of the arrays in `moving`: those lie so many bytes further along than the step's before.  With
    `period` that is so of every second step, say, compared with the last but one.
    """
    moves = [(x.data.ptr, x.data.ptr + x.nbytes, by) for x, by in moving if x is not None]
    whole = not any(by % _ALIGNED for _, _, by in moves)
    prepared = min(start + period, stop) if whole else stop
    launches = []
    for at in range(start, prepared):
        with noted() as taken:
            step(at)
        launches.append([(launch, _moved(launch[3], moves)) for launch in taken])
    for at in range(prepared, stop):
        turns, which = divmod(at - start, period)
        for (kernel, grid, block, given, shared), moved in launches[which]:
            arguments = list(given)
            for place, address, by in moved:
                arguments[place] = address + turns * period * by
            kernel.start(grid, block, arguments, shared)


def _moved(given: Sequence[Any], moves: Sequence[tuple[int, int, int]]
           ) -> list[tuple[int, int, int]]:
    """Which arguments move: their places, addresses, and bytes for a step."""
    found = []
    for place, argument in enumerate(given):
        # Of an array, or where it starts.
        address = getattr(getattr(argument, "data", argument), "ptr", None)
        if address is not None:
            found += [(place, address, by) for first, end, by in moves if first <= address < end]
    return found
