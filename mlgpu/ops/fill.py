"""Overwriting a tensor with a value: fill_, zero_."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda import copy as cuda_copy
from mlgpu.errors import ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op
from mlgpu.ops.cast import clone, copy_
from mlgpu.ops.creation import fill_number, zeros_like
from mlgpu.tensor import Tensor

__all__ = ["fill", "fill_", "fill_diagonal_", "zero_"]


class Fill(Op):
    """One number everywhere; what was there before no longer matters."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def forward_into(self, out: Any, target: Any) -> None:
        with np.errstate(all="ignore"):
            out.fill(fill_number(self.value, dtypes.from_numpy(out.dtype)))

    def forward_into_cuda(self, out: Any, target: Any) -> None:
        cuda_copy.fill(out, fill_number(self.value, dtypes.from_numpy(out.dtype)))

    def backward(self, dy: Tensor) -> Tensor:
        return zeros_like(dy)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite every element with a number or a 0-dim tensor (whose gradient flows)."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(f"fill_: the value must have no dimensions, got {tuple(value.shape)}")
        return copy_(self, value)
    return run_inplace(Fill(value), self)


def fill(input: Tensor, value: Any) -> Tensor:
    """A copy of `input` with every element overwritten by a number or a 0-dim tensor."""
    return fill_(clone(input), value)


def zero_(self: Tensor) -> Tensor:
    """Overwrite every element with 0."""
    return run_inplace(Fill(0), self)


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrite the main diagonal of a tensor with at least 2 dimensions (all equal beyond 2)."""
    if self.ndim < 2 or (self.ndim > 2 and len(set(self.shape)) > 1):
        raise ShapeError("fill_diagonal_: expected 2 dimensions, or more of equal length, got "
                         f"{tuple(self.shape)}")
    from mlgpu.op import run
    from mlgpu.ops.part import Diagonal, select

    if self.ndim > 2:
        for i in range(self.shape[0]):
            cell = self
            for _ in range(self.ndim):
                cell = select(cell, 0, i)
            fill_(cell, fill_value)
        return self
    fill_(run(Diagonal(0, 0, 1), self), fill_value)
    rows, columns = self.shape
    if wrap and rows > columns + 1:
        for first in range(columns + 1, rows, columns + 1):
            part = self[first:first + columns]
            fill_(run(Diagonal(0, 0, 1), part), fill_value)
    return self
