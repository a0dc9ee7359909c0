"""Sequences of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from mlgpu.errors import ShapeError
from mlgpu.ops.join import stack
from mlgpu.ops.pad import pad
from mlgpu.tensor import Tensor

__all__ = ["pad_sequence", "unpad_sequence"]


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
