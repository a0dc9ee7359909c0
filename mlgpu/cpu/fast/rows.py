"""What compiled loops over rows share."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import inlined

LANES = 32  # a running maximum of one number does not become vector code


@inlined
def largest(row: Any, lanes: Any) -> Any:
    """The largest number of a row; that it may miss NaN does not matter to its exponentials.

    lanes: room for LANES numbers.
    """
    end = len(row) - len(row) % LANES
    lanes[:] = -np.inf
    for start in range(0, end, LANES):
        for lane in range(LANES):
            x = row[start + lane]
            lanes[lane] = x if x > lanes[lane] else lanes[lane]
    half = LANES // 2
    while half:  # by halves: one lane after the other would wait for each
        for lane in range(half):
            x = lanes[half + lane]
            lanes[lane] = x if x > lanes[lane] else lanes[lane]
        half //= 2
    top = lanes[0]
    for column in range(end, len(row)):
        top = row[column] if row[column] > top else top
    return top
