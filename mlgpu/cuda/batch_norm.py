"""Batch norm in training on the device: slices of channels, and their statistics applied.

x is (batch, channels, ...) throughout; statistics are of the dtype that is computed in.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mlgpu.cuda import rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

FEW = 32  # positions below which the columns of (batch, channels * positions) are taken one by one
BLOCKS = 1024  # slices of all channels together, about


class Slices(NamedTuple):
    """How the values of channels are cut: a kernel's suffix, width, grid, and parts per channel."""

    columns: bool
    width: int
    grid: int
    slices: int
    parts: int


def slices(batch: int, channels: int, positions: int, width: int, across: int) -> Slices:
    """`width` values side by side of one channel, or `across` of several, are loaded at once."""
    if positions < FEW:
        inner = channels * positions
        tiles = -(-inner // (rows.WARP * across))
        count = max(1, min(-(-batch // 128), -(-BLOCKS // tiles)))
        return Slices(True, across, tiles * count, count, positions * count)
    values = batch * positions
    count = max(1, min(-(-values // (256 * width * 8)), -(-BLOCKS // channels)))
    return Slices(False, width, channels * count, count, count)


def _shape(x: Any) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def statistics(x: Any, batch: int, channels: int, positions: int, eps: float, rstd: bool = False
               ) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of contiguous x, or mean and 1 / deviation."""
    compute = rows.wide(x.dtype)
    cut = slices(batch, channels, positions, rows.vector(positions, x),
                 rows.vector(channels * positions, x))
    part = empty((channels * cut.parts, 3), compute)
    types = f"{ctype(x.dtype)}, {ctype(compute)}, {cut.width}"
    if cut.columns:
        launch("batch_norm", f"batch_moments_columns<{types}>", cut.grid, 256,
               (part, x, batch, channels * positions, cut.slices))
    else:
        launch("batch_norm", f"batch_moments<{types}>", cut.grid, 256,
               (part, x, batch * positions, channels, positions, cut.slices))
    mean, other = empty((channels,), compute), empty((channels,), compute)
    launch("batch_norm", f"batch_finish<{ctype(compute)}>", -(-channels // 8), 256,
           (mean, *((None, other) if rstd else (other, None)), part, channels, cut.parts, eps))
    return mean, other


def forward(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """x normalised per channel, its mean and its biased variance."""
    x = contiguous(x)
    batch, channels, positions = _shape(x)
    y = empty(x.shape, x.dtype)
    compute = rows.wide(x.dtype)
    if not x.size:
        return y, empty((channels,), compute), empty((channels,), compute)
    mean, variance = statistics(x, batch, channels, positions, eps)
    weight, bias = (None if v is None else contiguous(v) for v in (weight, bias))
    width = rows.vector(positions, y, x)
    launch("batch_norm", f"batch_apply<{_types(x, weight, bias)}, {width}>",
           -(-x.size // (512 * width)), 256,
           (y, x, mean, variance, weight, bias, x.size // width, channels, positions, eps))
    return y, mean, variance


def backward(dy: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float, bias: bool
             ) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias: None where there is no such parameter."""
    dy, x = contiguous(dy), contiguous(x)
    batch, channels, positions = _shape(x)
    dx = empty(x.shape, x.dtype)
    dweight = None if weight is None else empty((channels,), weight.dtype)
    dbias = empty((channels,), weight.dtype) if bias else None
    if not x.size:
        for gradient in (dweight, dbias):
            if gradient is not None:
                gradient.data.memset_async(0, gradient.nbytes)
        return dx, dweight, dbias
    compute = rows.wide(x.dtype)
    cut = slices(batch, channels, positions, rows.vector(positions, dy, x),
                 rows.vector(channels * positions, dy, x))
    part = empty((channels * cut.parts, 2), compute)
    types = f"{ctype(x.dtype)}, {ctype(compute)}, {cut.width}"
    arrays = (part, dy, x, mean, variance)
    if cut.columns:
        launch("batch_norm", f"batch_sums_columns<{types}>", cut.grid, 256,
               (*arrays, batch, channels * positions, positions, cut.slices, eps))
    else:
        launch("batch_norm", f"batch_sums<{types}>", cut.grid, 256,
               (*arrays, batch * positions, channels, positions, cut.slices, eps))
    sums = empty((2, channels), compute)
    parameter = ctype(x.dtype if weight is None else weight.dtype)
    launch("batch_norm", f"batch_gradients<{parameter}, {ctype(compute)}>", -(-channels // 8), 256,
           (dweight, dbias, sums, part, channels, cut.parts))
    weight = None if weight is None else contiguous(weight)
    width = rows.vector(positions, dx, dy, x)
    launch("batch_norm", f"batch_backward<{_types(x, weight)}, {width}>",
           -(-x.size // (512 * width)), 256,
           (dx, dy, x, mean, variance, weight, sums, x.size // width, channels, positions,
            batch * positions, eps))
    return dx, dweight, dbias


def _types(x: Any, *parameters: Any) -> str:
    """Of values, parameters, what is computed in, and a number of all vectors."""
    parameter = next((p.dtype for p in parameters if p is not None), x.dtype)
    index = "int" if x.size < 1 << 30 else "ml_index"
    return f"{ctype(x.dtype)}, {ctype(parameter)}, {ctype(rows.wide(x.dtype))}, {index}"
