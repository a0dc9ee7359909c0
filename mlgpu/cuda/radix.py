"""What the passes of a radix sort share: kernels/radix.cuh."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks

THREADS = 512
_TILE = 48 << 10  # bytes of a tile's items in shared memory
_DIGITS = 256
_COUNTING = 1024  # blocks that count digits
_NARROW = 1 << 30  # elements of a row whose sums, with two bits more, fit 32 bits


def each(item: int) -> int:
    """How many items of so many bytes a thread holds."""
    return _TILE // (THREADS * item)


class Plan:
    """Tiles and passes for rows of keys, and the zeros where passes count and publish."""

    def __init__(self, rows: int, n: int, bits: int, item: int) -> None:
        size = THREADS * each(item)
        self.shared = size * item
        self.tiles = blocks(n, size)
        self.passes = blocks(bits, 8)
        self.counting = rows * min(self.tiles, max(1, _COUNTING // rows))
        narrow = n < _NARROW
        self.word = "unsigned" if narrow else "unsigned long long"
        self._cuts = [self.passes * rows * _DIGITS, self.passes * rows * self.tiles * _DIGITS]
        self._memory = runtime.zeros((sum(self._cuts) + self.passes,),
                                     np.dtype(np.uint32 if narrow else np.uint64))
        self.totals: Any = self._memory[:self._cuts[0]]

    def of(self, number: int) -> tuple[Any, Any, Any]:
        """The totals, the status words and the ticket of a pass."""
        totals, status = (cut // self.passes for cut in self._cuts)
        first, end = self._cuts[0] + number * status, sum(self._cuts) + number
        return (self._memory[number * totals:(number + 1) * totals],
                self._memory[first:first + status], self._memory[end:end + 1])
