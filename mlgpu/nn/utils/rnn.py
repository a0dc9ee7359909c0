"""Sequences of different lengths as one tensor, padded or packed."""

from __future__ import annotations

from collections.abc import Sequence

from mlgpu.errors import ShapeError
from mlgpu.nn.packed import PackedSequence, inverse
from mlgpu.ops.creation import arange, tensor
from mlgpu.ops.join import cat, stack
from mlgpu.ops.pad import pad
from mlgpu.tensor import Tensor

__all__ = ["PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
           "pad_sequence", "unpack_sequence", "unpad_sequence"]


def pad_sequence(sequences: Sequence[Tensor], batch_first: bool = False,
                 padding_value: float = 0.0, padding_side: str = "right") -> Tensor:
    """Tensors (length, ...) stacked to (longest, n, ...), or (n, longest, ...); differentiable.

    Raises ShapeError unless they agree in all dimensions but the first.
    """
    if padding_side not in ("left", "right"):
        raise ShapeError(f"pad_sequence: padding_side must be 'left' or 'right', got "
                         f"{padding_side!r}")
    if not sequences or any(s.ndim == 0 or s.shape[1:] != sequences[0].shape[1:]
                            for s in sequences):
        raise ShapeError("pad_sequence: expected tensors that differ only in their first "
                         f"dimension, got {[tuple(s.shape) for s in sequences]}")
    longest = max(len(s) for s in sequences)
    rest = [0, 0] * (sequences[0].ndim - 1)
    padded = []
    for sequence in sequences:
        missing = longest - len(sequence)
        sides = [missing, 0] if padding_side == "left" else [0, missing]
        padded.append(pad(sequence, [*rest, *sides], "constant", padding_value))
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
                   ) -> list[Tensor]:
    """The sequences that `pad_sequence` padded on the right, as views."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


def pack_padded_sequence(input: Tensor, lengths: Tensor | Sequence[int],
                         batch_first: bool = False, enforce_sorted: bool = True
                         ) -> PackedSequence:
    """Padded sequences (longest, n, ...), or (n, longest, ...), without their padding.

    `lengths` (n,) on the CPU, each at least 1; falling, unless `enforce_sorted` is False, which
    sorts them.  Differentiable.  Raises ShapeError for lengths that do not fit.
    """
    sizes = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    x = input.transpose(0, 1) if batch_first else input
    if x.ndim < 2 or len(sizes) != x.shape[1] or not sizes or not (
            1 <= min(sizes) <= max(sizes) <= x.shape[0]):
        raise ShapeError("pack_padded_sequence: lengths must be one for each sequence, between 1 "
                         f"and the padded length, got {sizes} for input {tuple(input.shape)}")
    order = None
    if enforce_sorted:
        if sizes != sorted(sizes, reverse=True):
            raise ShapeError(f"pack_padded_sequence: lengths must fall, got {sizes}; pass "
                             "enforce_sorted=False to have them sorted")
    else:
        ranks = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        order = tensor(ranks, device=input.device)
        x, sizes = x.index_select(1, order), [sizes[i] for i in ranks]
    counts = [sum(n > step for n in sizes) for step in range(sizes[0])]
    rows = [x[step, :count] for step, count in enumerate(counts)]
    return PackedSequence(cat(rows), tensor(counts, device="cpu"), order, inverse(order))


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False,
                        padding_value: float = 0.0, total_length: int | None = None
                        ) -> tuple[Tensor, Tensor]:
    """The sequences padded again, (longest, n, ...) in their first order, and their lengths.

    `total_length` pads to more than the longest.  Raises ShapeError for less.
    """
    counts = sequence.batch_sizes.tolist()
    steps = len(counts) if total_length is None else total_length
    if steps < len(counts):
        raise ShapeError(f"pad_packed_sequence: total_length must be at least {len(counts)}, got "
                         f"{steps}")
    rest = [0, 0] * (sequence.data.ndim - 1)
    padded = [pad(part, [*rest, 0, counts[0] - count], "constant", padding_value)
              for part, count in zip(sequence.data.split(counts), counts, strict=True)]
    out = stack(padded)
    out = pad(out, [*rest, 0, 0, 0, steps - len(counts)], "constant", padding_value)
    lengths = (sequence.batch_sizes[:, None] > arange(counts[0], device="cpu")).sum(0)
    if sequence.unsorted_indices is not None:
        out = out.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu()]
    return out.transpose(0, 1) if batch_first else out, lengths


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (length, ...) as one packed sequence."""
    return pack_padded_sequence(pad_sequence(sequences), [len(s) for s in sequences],
                                enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one, in their first order."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences))
