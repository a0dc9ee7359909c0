"""Products with weights in NF4 on the device: made in registers, or some rows at a time."""

from __future__ import annotations

from typing import Any

from mlgpu.cuda.accumulate import add_into
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.gemm import gemm
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.rows import wide
from mlgpu.cuda.runtime import contiguous, empty, zeros
from mlgpu.cuda.types import ctype
from mlgpu.dtypes import dtype as DType

FEW = 4  # rows of x that are no product for tensor cores
SLAB = 32 << 20  # bytes of a weight that are made at a time where no kernel makes them on its way


class Weight:
    """A weight (out, in) and what a kernel is told of it."""

    def __init__(self, shape: tuple[int, int], block: int, dtype: DType, codes: Any, scales: Any,
                 values: Any, more: Any = None, mean: Any = None) -> None:
        self.shape, self.block, self.dtype = shape, block, dtype.numpy
        self.arrays = codes, scales, more, mean, values
        self.kind = ctype(scales.dtype)

    def fused(self, x: Any) -> bool:
        """Whether words of 8 codes lie within rows and blocks, and are rounded as x is."""
        return (self.shape[1] % 8 == 0 and self.block % 8 == 0
                and self.block & (self.block - 1) == 0 and x.data.ptr % 16 == 0
                and (self.dtype == x.dtype or self.dtype.itemsize == 4))

    def part(self, rows: slice, dtype: Any) -> Any:
        """Some rows, made whole."""
        width = self.shape[1]
        out = empty((rows.stop - rows.start, width), dtype)
        each = 8 if width % 8 == self.block % 8 == 0 else 1
        launch("nf4", f"nf4_whole<{ctype(dtype)}, {ctype(self.dtype)}, {self.kind}, {each}>",
               blocks(out.size, 256 * each), 256,
               (out, *self.arrays, rows.start * width, out.size, self.block))
        return out


def product(x: Any, weight: Weight, turned: bool) -> Any:
    """x (m, in) times the transposed weight, or, `turned`, x (m, out) times the weight."""
    x = contiguous(x)
    (rows, columns), m = weight.shape, len(x)
    n = columns if turned else rows
    if not x.size or not n:
        return zeros((m, n), x.dtype)
    kinds = f"{ctype(x.dtype)}, {weight.kind}"
    shift = weight.block.bit_length() - 1
    if weight.fused(x):
        y = empty((m, n), x.dtype)
        if m <= FEW and not turned:
            launch("nf4", f"nf4_gemv<{kinds}, {1 if m == 1 else FEW}>", blocks(n, 8), 256,
                   (y, x, *weight.arrays, m, n, columns, shift))
            return y
        if x.itemsize == 2 and x.shape[1] % 8 == 0:
            launch("nf4", f"nf4_gemm<{kinds}, {str(not turned).lower()}>",
                   blocks(m, 64) * blocks(n, 64), 128,
                   (y, x, *weight.arrays, m, n, x.shape[1], columns, shift))
            return y
    return _by_slabs(x, weight, n, turned)


def _by_slabs(x: Any, weight: Weight, n: int, turned: bool) -> Any:
    """The same, some rows of the weight after the other."""
    rows, columns = weight.shape
    each = max(1, SLAB // (columns * x.itemsize))
    cuts = [slice(first, min(rows, first + each)) for first in range(0, rows, each)]
    if len(cuts) == 1:
        whole = weight.part(cuts[0], x.dtype)
        return gemm(x, whole if turned else whole.T)
    y = zeros((len(x), n), wide(x.dtype)) if turned else empty((len(x), n), x.dtype)
    for cut in cuts:
        part = weight.part(cut, x.dtype)
        if turned:
            add_into(y, gemm(x[:, cut], part))
        else:
            copy_into(y[:, cut], gemm(x, part.T))
    if y.dtype == x.dtype:
        return y
    out = empty(y.shape, x.dtype)
    copy_into(out, y)
    return out
