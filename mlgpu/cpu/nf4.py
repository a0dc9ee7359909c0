"""Products with weights in NF4 on the CPU: a block of the weight's rows is made at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from mlgpu.cpu.gemm import cast, gemm, widen
from mlgpu.cpu.rows import BLOCK
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.dtypes import dtype as DType

Array = np.ndarray[Any, Any]


class Weight:
    """A weight (out, in): its codes, scales, both values of each byte; see `mlgpu.ops.nf4`."""

    def __init__(self, shape: tuple[int, int], block: int, dtype: DType, codes: Array,
                 scales: Array, values: Array, more: Array | None = None,
                 mean: Array | None = None) -> None:
        self.shape, self.block, self.dtype = shape, block, dtype.numpy
        self.codes, self.scales, self.values = codes, scales, values
        self.more, self.mean = more, mean

    def blocks(self) -> Iterator[slice]:
        """Rows whose weights stay in the caches."""
        rows, columns = self.shape
        each = max(1, 4 * BLOCK // max(1, columns))
        for first in range(0, rows, each):
            yield slice(first, min(rows, first + each))

    def part(self, rows: slice, dtype: Any) -> Array:
        """Some rows, made whole."""
        width = self.shape[1]
        first, last = rows.start * width, rows.stop * width
        low, high = first // self.block, -(-last // self.block)
        codes = self.codes[low * self.block // 2:high * self.block // 2]
        made = empty((len(codes), 2), self.values.dtype)
        np.take(self.values, codes, axis=0, out=made)
        lines = made.reshape(-1, self.block)
        np.multiply(lines, self._scales(low, high)[:, None], out=lines)
        flat = lines.reshape(-1)[first - low * self.block:last - low * self.block]
        part: Array = flat.reshape(-1, width)
        return cast(cast(part, self.dtype), dtype)

    def _scales(self, low: int, high: int) -> Array:
        here: Array = self.scales[low:high]
        if self.more is None or self.mean is None:
            return here
        near = eighths()[here]
        scales: Array = near * self.more[np.arange(low, high) // 256] + self.mean
        return scales


@functools.cache
def eighths() -> Array:
    """The floats of 4 bits of exponent and 3 of mantissa that bytes are; largest: 448."""
    every: Array = np.arange(256, dtype=np.uint8)
    return every.view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # type: ignore[no-any-return]


def product(x: Array, weight: Weight, turned: bool) -> Array:
    """x (m, in) times the transposed weight, or, `turned`, x (m, out) times the weight."""
    given = widen(x)
    y = zeros((len(x), weight.shape[1] if turned else weight.shape[0]), given.dtype)
    for rows in weight.blocks():
        part = widen(weight.part(rows, x.dtype))
        if turned:
            np.add(y, gemm(given[:, rows], part), out=y)
        else:
            y[:, rows] = gemm(given, part.T)
    return cast(y, x.dtype)
