"""Products with weights in NF4 (Dettmers et al. 2023), which are never made whole.

A weight (out, in) is its bytes of two codes each; a scale for each `block` of weights, row by row;
and `values` (256, 2), the two values that each byte means.  Scales are float32, or bytes: 8-bit
floats times `more`, a float32 for each 256 of them, plus the float32 `mean`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mlgpu.cpu import nf4 as cpu_nf4
from mlgpu.cpu.gemm import contiguous
from mlgpu.cuda import nf4 as cuda_nf4
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.tensor import Tensor

__all__ = ["Layout", "product", "whole"]


class Layout(NamedTuple):
    """What the codes are of."""

    shape: tuple[int, int]
    block: int
    dtype: DType  # of the weight, to which it is rounded when it is made


class Nf4Linear(Op):
    """x @ weight.T over the last dimension, or x @ weight; each is the other's gradient."""

    name = "linear"

    def __init__(self, layout: Layout, turned: bool) -> None:
        self.layout = layout
        self.turned = turned

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(1, len(needs)))

    def forward(self, x: Any, *weight: Any) -> Any:
        rows = contiguous(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
        y = cpu_nf4.product(rows, cpu_nf4.Weight(*self.layout, *weight), self.turned)
        return y.reshape(*x.shape[:-1], y.shape[1])

    def forward_cuda(self, x: Any, *weight: Any) -> Any:
        rows = cuda_runtime.reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        y = cuda_nf4.product(rows, cuda_nf4.Weight(*self.layout, *weight), self.turned)
        return y.reshape(*x.shape[:-1], y.shape[1])

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        weight = [self.input(i) for i in range(1, len(self.needs))]
        return run(Nf4Linear(self.layout, not self.turned), dy, *weight), *(None for _ in weight)


class Nf4Whole(Op):
    """The weight itself."""

    differentiable = False

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def forward(self, *weight: Any) -> Any:
        made = cpu_nf4.Weight(*self.layout, *weight)
        return made.part(slice(0, self.layout.shape[0]), self.layout.dtype.numpy)

    def forward_cuda(self, *weight: Any) -> Any:
        made = cuda_nf4.Weight(*self.layout, *weight)
        return made.part(slice(0, self.layout.shape[0]), self.layout.dtype.numpy)


def product(x: Tensor, layout: Layout, weight: tuple[Tensor, ...]) -> Tensor:
    """x (..., in) @ weight.T; weight: codes, scales, values; for scales in bytes more and mean."""
    if not x.is_floating_point():
        raise DTypeError(f"linear: input must be floating, got {x.dtype.name}; convert with .to()")
    if x.shape[-1:] != (layout.shape[1],):
        raise ShapeError(f"linear: input must be (..., {layout.shape[1]}) to match weight "
                         f"{layout.shape}, got {tuple(x.shape)}")
    return run(Nf4Linear(layout, False), x, *weight)  # type: ignore[no-any-return]


def whole(layout: Layout, weight: tuple[Tensor, ...]) -> Tensor:
    """The weight (out, in), in its own dtype, without a gradient."""
    return run(Nf4Whole(layout), *weight)  # type: ignore[no-any-return]
