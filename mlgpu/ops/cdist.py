"""Distances between all pairs of points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import adjoint, cast, gemm, widen
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import cdist as cuda_cdist
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.arrange import triu_indices
from mlgpu.ops.elementwise import fuse
from mlgpu.ops.linalg_check import batch_shape, check_matrix
from mlgpu.ops.matmul import check_same_dtype, matmul
from mlgpu.tensor import Tensor

__all__ = ["cdist", "pdist"]

MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist",
         "donot_use_mm_for_euclid_dist")
# Differences of pairs are formed in blocks of about this many bytes, to stay in cache.
BLOCK_BYTES = 1 << 20


class CDist(Op):
    """|x1[i] - x2[j]|_p for all i, j."""

    saved_inputs = (0, 1)
    saved_outputs = (0,)

    def __init__(self, p: float, by_product: bool) -> None:
        self.p, self.by_product = p, by_product

    def forward(self, x1: Any, x2: Any) -> Any:
        wide1, wide2 = widen(x1), widen(x2)
        if self.by_product:
            return cast(_euclidean(wide1, wide2), x1.dtype)
        batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        out = empty((*batch, x1.shape[-2], x2.shape[-2]), wide1.dtype)
        row_bytes = out.itemsize * x2.shape[-1] * max(1, x2.shape[-2]) * math.prod(batch)
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, x1.shape[-2], rows):
            block = wide1[..., start:start + rows, None, :] - wide2[..., None, :, :]
            out[..., start:start + rows, :] = _lengths(block, self.p)
        return cast(out, x1.dtype)

    def forward_cuda(self, x1: Any, x2: Any) -> Any:
        if self.by_product:
            return on_tensors(_euclidean_tensor, x1, x2)
        return cuda_cdist.cdist(x1, x2, self.p)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x1, x2, y = self.input(0), self.input(1), self.output()
        if self.p == 2:
            zero = y == 0
            weight = (dy / y.masked_fill(zero, 1)).masked_fill(zero, 0)
            dx1 = x1 * weight.sum(-1, keepdim=True) - matmul(weight, x2)
            return dx1, x2 * weight.sum(-2).unsqueeze(-1) - matmul(weight.mT, x1)
        difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
        slope = _slope(difference, y.unsqueeze(-1), self.p) * dy.unsqueeze(-1)
        return slope.sum(-2), -slope.sum(-3)


def _euclidean(x1: Any, x2: Any) -> Any:
    """sqrt(|a|^2 + |b|^2 - 2 a.b): one GEMM; loses digits where points almost coincide."""
    out = gemm(x1, adjoint(x2))
    np.multiply(out, -2, out=out)
    np.add(out, np.vecdot(x1, x1)[..., :, None], out=out)
    np.add(out, np.vecdot(x2, x2)[..., None, :], out=out)
    np.maximum(out, 0, out=out)
    return np.sqrt(out, out=out)


def _euclidean_tensor(x1: Tensor, x2: Tensor) -> Tensor:
    """The same with Tensor operations; half types in float32, for the difference cancels."""
    dtype = x1.dtype
    if dtype.itemsize == 2:
        x1, x2 = x1.float(), x2.float()
    squares = (x1 * x1).sum(-1, keepdim=True), (x2 * x2).sum(-1).unsqueeze(-2)
    return _distance(matmul(x1, x2.mT), *squares).to(dtype)


@fuse
def _distance(product: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The distances of points of these squares."""
    return (first + second - 2 * product).clamp_min(0).sqrt()


def _lengths(difference: Any, p: float) -> Any:
    """The p-norms along the last axis; the argument is overwritten."""
    if p == 2:
        return np.sqrt(np.vecdot(difference, difference))
    size = np.abs(difference, out=difference)
    if p == 0:
        return np.count_nonzero(size, axis=-1)
    if math.isinf(p):
        return np.maximum.reduce(size, axis=-1, initial=0)
    if p != 1:
        np.power(size, p, out=size)
    total = np.add.reduce(size, axis=-1)
    return total if p == 1 else np.power(total, 1 / p)


def _slope(x: Tensor, y: Tensor, p: float) -> Tensor:
    """d|x|_p/dx for differences x with norms y; 0 where it does not exist."""
    if p == 0:
        return x.new_zeros(x.shape)
    if p == 1:
        return x.sign()
    size = x.abs()
    if math.isinf(p):
        return x.sign() * (size == y).to(x.dtype)
    nothing = size == 0
    power = size.masked_fill(nothing, 1).pow(p - 1).masked_fill(nothing, 0)
    zero = y == 0
    return x.sign() * power * y.masked_fill(zero, 1).pow(1 - p).masked_fill(zero, 0)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0,
          compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances of all pairs of points: (..., n, d) and (..., m, d) to (..., n, m).

    Batches broadcast.  With p = 2 and more than 25 points on one side (or as `compute_mode` says)
    they come from one matrix product, which is fast but loses digits for points that almost
    coincide.  The gradient is 0 where a distance is 0.  Raises ShapeError, DTypeError, also for a
    negative p.
    """
    check_matrix("cdist", x1, x2)
    check_same_dtype("cdist", x1, x2)
    if not x1.is_floating_point():
        raise DTypeError(f"cdist: expected floating tensors, got {x1.dtype.name}; convert with "
                         ".to()")
    if x1.shape[-1] != x2.shape[-1]:
        raise ShapeError("cdist: points must have the same number of coordinates, got shapes "
                         f"{tuple(x1.shape)} and {tuple(x2.shape)}")
    batch_shape("cdist", x1, x2)
    if not p >= 0:
        raise ShapeError(f"cdist: p must be at least 0, got {p}")
    if compute_mode not in MODES:
        raise ShapeError(f"cdist: compute_mode must be one of {', '.join(MODES)}, got "
                         f"{compute_mode!r}")
    by_product = p == 2 and compute_mode != MODES[2] and (
        compute_mode == MODES[1] or x1.shape[-2] > 25 or x2.shape[-2] > 25)
    return run(CDist(float(p), by_product), x1, x2)  # type: ignore[no-any-return]


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows: (n, d) to (n (n - 1) / 2,), as (0, 1), (0, 2), ...

    The gradient is 0 where a distance is 0.  Raises ShapeError, DTypeError, as `cdist`.
    """
    if input.ndim != 2:
        raise ShapeError(f"pdist: input must have 2 dimensions (n, d), got {tuple(input.shape)}")
    first, second = triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return cdist(input, input, p, MODES[2])[first, second]
