"""Numbers in a binary tree of their sums, so that one is found by its share of the total."""

from __future__ import annotations

import numpy as np

from mlgpu.errors import ShapeError
from mlgpu.rl.spaces import Array


class SumTree:
    """`size` numbers of 0 or more, float64: setting one and finding one take log2(size) steps.

    A node is always the sum of its two children, so the tree follows from its leaves alone.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ShapeError(f"SumTree: size must be at least 1, got {size}")
        self.size = size
        self._depth = (size - 1).bit_length()
        self._first = 1 << self._depth  # the place of leaf 0; the root's is 1
        self._nodes = np.zeros(2 * self._first)

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self._nodes[1])

    def __getitem__(self, index: Array) -> Array:
        found: Array = self._nodes[self._first + np.asarray(index)]
        return found

    def __setitem__(self, index: Array, values: Array | float) -> None:
        places = self._first + np.asarray(index)
        self._nodes[places] = values
        for _ in range(self._depth):
            places = np.unique(places >> 1)
            self._nodes[places] = self._nodes[2 * places] + self._nodes[2 * places + 1]

    def find(self, values: Array) -> Array:
        """For each v in [0, total): the least i for which numbers 0 ... i add up to more than v.

        Never one of 0, as long as there is another.
        """
        left = np.array(values, np.float64)
        places = np.ones(left.shape, np.int64)
        for _ in range(self._depth):
            places *= 2
            below = self._nodes[places]
            # Rounding may leave a rest where there is nothing on the right any more.
            right = (left >= below) & (self._nodes[places + 1] > 0)
            left -= np.where(right, below, 0.0)
            places += right
        return places - self._first

    def leaves(self) -> Array:
        """All numbers."""
        return self._nodes[self._first:self._first + self.size].copy()
