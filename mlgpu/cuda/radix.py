"""What the passes of a radix sort share: kernels/radix.cuh."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch

THREADS = 512
_TILE = 44 << 10  # bytes of a tile's items in shared memory
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
        self._rows, self._n = rows, n
        sizes = (rows * _DIGITS, rows * self.tiles * _DIGITS, rows, 1)
        memory = runtime.zeros((self.passes * sum(sizes),),
                               np.dtype(np.uint32 if narrow else np.uint64))
        self._parts: list[Any] = []  # totals, status words, steps and tickets of all passes
        for count in sizes:
            self._parts.append(memory[:self.passes * count])
            memory = memory[self.passes * count:]
        self.totals = self._parts[0]
        work = 2 * blocks(rows * n, 8) * 8 * item if self.passes > 1 else 0
        self.work = runtime.empty((work,), np.dtype(np.uint8)) if work else None

    def begin(self, family: str) -> None:
        """Where digits begin and which passes are needed, of the totals."""
        totals, _, steps, _ = self._parts
        launch(family, f"plan_passes<{self.word}>", self._rows, _DIGITS,
               (totals, steps, self._rows, self._n, self.passes))

    def of(self, number: int) -> tuple[Any, ...]:
        """Where digits begin, the steps, the status words and the ticket, for a pass."""
        totals, status, steps, tickets = self._parts
        first, published = totals.size // self.passes, status.size // self.passes
        return (totals[number * first:(number + 1) * first], steps,
                status[number * published:(number + 1) * published], tickets[number:number + 1])
