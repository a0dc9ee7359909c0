"""What the kernels over rows choose by: vector widths, lanes for a row, shared memory."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda.loading import load

VECTOR = 16  # bytes that a thread loads at once
WARP = 32
STATIC = 1024  # bytes of shared memory that a kernel may use besides the row it keeps there
DOUBLE = np.dtype(np.float64)


class Plan(NamedTuple):
    """A kernel, its launch, and the numbers that follow the arrays among its arguments."""

    kernel: str
    grid: int
    block: int
    numbers: tuple[Any, ...]
    shared: int = 0


def wide(dtype: Any) -> Any:
    """The NumPy dtype that arithmetic on `dtype` runs in: float32 for the half types."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def vector(n: int, *arrays: Any, most: int = VECTOR) -> int:
    """Elements that can be loaded at once from rows of n in each of these arrays."""
    widest: int = max([a.dtype.itemsize for a in arrays])
    count = max(1, most // widest)
    places = 0
    for a in arrays:
        places |= a.data.ptr
    if not places % most:
        return math.gcd(n, count)
    while count > 1 and (n % count or any(a.data.ptr % (count * a.dtype.itemsize)
                                          for a in arrays)):
        count //= 2
    return count


def power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def lanes(n: int, width: int) -> tuple[int, int]:
    """Lanes of a warp for a row of n, and vectors of `width` elements that each of them holds.

    Few lanes for a short row: more rows of a warp are under way, and they exchange less.
    """
    count = min(WARP, power(-(-n // max(width, 4))))
    return count, few(-(-n // (width * count)))


def few(n: int) -> int:
    """n rounded up to a power of two or three times one: few kernels serve all lengths."""
    two = power(n)
    return two * 3 // 4 if two >= 4 and n <= two * 3 // 4 else two


def threads(n: int, each: int, most: int) -> int:
    """Whole warps for n values of which a thread takes `each`."""
    return min(most, -(-n // (each * WARP)) * WARP)


def shared_limit() -> int:
    """Bytes of dynamic shared memory that a block may have on the current device."""
    return _shared_limit(load().cuda.runtime.getDevice())


@functools.cache
def _shared_limit(device: int) -> int:
    attributes = load().cuda.Device(device).attributes
    return int(attributes["MaxSharedMemoryPerBlockOptin"])


def around(shape: tuple[int, ...], dim: int) -> tuple[int, int, int]:
    """The product of the sizes before `dim`, its own size, and the product of those after."""
    if not shape:
        return 1, 1, 1
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1:])
