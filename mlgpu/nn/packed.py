"""Sequences of different lengths, one step after the other without padding."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.ops.creation import arange, empty_like
from mlgpu.tensor import Tensor

__all__ = ["PackedSequence"]


class PackedSequence(NamedTuple):
    """What recurrent layers take beside padded tensors, as torch.nn.utils.rnn.PackedSequence.

    `data` (all steps, ...): the first step of all sequences, the longest first, then the second of
    those that have one, ...; `batch_sizes` (longest,), int64 on the CPU: how many have each step.
    `sorted_indices` put the sequences in that order, `unsorted_indices` back (None: they were).
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def with_data(self, data: Tensor) -> PackedSequence:
        """The same sequences of other values."""
        return self._replace(data=data)

    def to(self, *args: Any, **options: Any) -> PackedSequence:
        """The data as `Tensor.to` makes it; indices go along to its device."""
        data: Tensor = self.data.to(*args, **options)
        moved = [None if indices is None else indices.to(data.device)
                 for indices in (self.sorted_indices, self.unsorted_indices)]
        return PackedSequence(data, self.batch_sizes, *moved)

    def segments(self) -> list[tuple[int, int, int]]:
        """(first row, steps, sequences) of each run of steps that as many sequences have."""
        found: list[tuple[int, int, int]] = []
        row = 0
        for size in self.batch_sizes.tolist():
            if found and found[-1][2] == size:
                first, steps, _ = found.pop()
                found.append((first, steps + 1, size))
            else:
                found.append((row, 1, size))
            row += size
        return found


def inverse(indices: Tensor | None) -> Tensor | None:
    """The permutation that undoes one."""
    if indices is None:
        return None
    return empty_like(indices).index_copy(0, indices, arange(
        len(indices), device=indices.device, dtype=indices.dtype))
