"""Matrix products on the CPU: the one place where two matrices are multiplied with NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

from mlgpu.cpu import blas
from mlgpu.cpu.fast import load
from mlgpu.cpu.pool import SMALLEST
from mlgpu.cpu.runtime import copy, empty
from mlgpu.cpu.threads import get_num_threads, parallel
from mlgpu.device import CPU
from mlgpu.memory import Charge, account, expect

Array = np.ndarray[Any, Any]

_books = account(CPU)
_BLAS = "fdFD"
_EXACT = 2**53  # float64 holds every integer up to here

# OpenBLAS gives a product of more multiplications than this to threads of its own, and those then
# go on for 50 ms without sleeping: whatever the parallel loop does meanwhile finds no free core.
# So larger products are cut among the threads of that loop, with BLAS on one thread.
_ALONE = 1 << 18
_WORTH_CUTTING = 1 << 22
_MULTIPLE = 16  # of rows or columns of a part, which BLAS computes in such tiles


def gemm(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a @ b, + bias, over the last two axes, in fresh memory; leading axes broadcast.

    Half types are multiplied in float32 and rounded once; integers wrap around.  A bias has one
    element for each column.
    """
    if a.dtype.char not in _BLAS:
        if a.dtype.kind in "iu":
            product = _gemm_integers(a, b)
            return product if bias is None else np.add(product, bias, out=product)
        wide = gemm(widen(a), widen(b), None if bias is None else widen(bias))
        return cast(wide, a.dtype)
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous and a.size:
        # One GEMM over all rows: NumPy would call BLAS once per leading index.
        product = gemm(a.reshape(-1, a.shape[-1]), b, bias)
        return product.reshape(*a.shape[:-1], b.shape[-1])
    if a.ndim == b.ndim == 2 and len(a) * b.shape[1] * a.itemsize < SMALLEST and (
            len(a) == 1 or a.size * b.shape[1] <= _ALONE):
        product = _small(a, b)
        return product if bias is None else np.add(product, bias, out=product)
    return multiply(blas_ready(a), blas_ready(b), empty(_product_shape(a, b), a.dtype), bias)


def gemms(*pairs: tuple[Array, Array]) -> list[Array]:
    """a @ b of each pair of matrices, all in one run of the parallel loop where that pays."""
    work = sum(a.size * b.shape[1] for a, b in pairs)
    if work < _WORTH_CUTTING or any(a.dtype.char not in _BLAS for a, _ in pairs):
        return [gemm(a, b) for a, b in pairs]
    outs = [empty((len(a), b.shape[1]), a.dtype) for a, b in pairs]
    multiply_all(*((blas_ready(a), blas_ready(b), out, None)
                   for (a, b), out in zip(pairs, outs, strict=True)))
    return outs


def _small(a: Array, b: Array) -> Array:
    """As `gemm`, of two matrices: `dot` starts in a third of the time, but makes the result."""
    shape = (len(a), b.shape[1])
    charge = Charge(_books, shape[0] * shape[1] * a.itemsize, shape, a.dtype)
    product: Array = a.dot(b)
    expect(product, charge)
    return product


def multiply(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """out = a @ b, + bias, in one of BLAS's dtypes, of arrays that BLAS can read (or write)."""
    # One row, as of an inference, waits for memory more than for the cores.
    if out.ndim == 2 and (len(out) == 1 or out.size * a.shape[-1] <= _ALONE):
        np.matmul(a, b, out=out)
        return out if bias is None else np.add(out, bias, out=out)
    multiply_all((a, b, out, bias))
    return out


Product = tuple[Array, Array, Array, Array | None]


def multiply_all(*products: Product) -> None:
    """out = a @ b + bias for each (a, b, out, bias), the parts of all of them in one loop.

    The arrays are such that BLAS can read (or write) them.
    """
    work = sum(map(_work, products))
    threads = 1 if work < _WORTH_CUTTING else get_num_threads()
    parts = [part for product in products for part in _parts(*product, threads)]
    begin = _worker(parts, work, threads)
    if len(parts) == 1 or threads == 1:
        with blas.one_thread():
            product = begin()
            for part in parts:
                product(*part)
        return

    def start() -> Callable[[int], None]:
        product = begin()
        return lambda task: product(*parts[task])

    parallel(len(parts), start, work >> 4)


Multiply = Callable[[Array, Array, Array, Array | None], None]


def _worker(products: Sequence[Product], work: int, threads: int) -> Callable[[], Multiply]:
    """What makes, for each of so many threads, the function that does one of these products.

    `work`: the multiplications of all of them.
    """
    suited = [p for p in products if _wide_enough(*p)] if _WIDE else []
    loops = load("gemm", work >> 5) if suited else None
    if loops is None:
        return lambda: _by_blas
    dtype = suited[0][2].dtype
    columns, depth = max(p[2].shape[1] for p in suited), max(p[0].shape[1] for p in suited)
    spaces = iter(loops.workspaces(min(threads, len(products)), columns, depth, dtype))

    def start() -> Multiply:
        space = next(spaces)

        def multiply(a: Array, b: Array, out: Array, bias: Array | None) -> None:
            if out.dtype == dtype and _wide_enough(a, b, out, bias):
                loops.multiply(a, b, out, bias, space)
            else:
                _by_blas(a, b, out, bias)

        return multiply

    return start


def _by_blas(a: Array, b: Array, out: Array, bias: Array | None) -> None:
    np.matmul(a, b, out=out)
    if bias is not None:
        np.add(out, bias, out=out)


# Where vectors have 512 bits, compiled loops multiply faster than the BLAS in NumPy's wheels.
_WIDE = getattr(_multiarray_umath, "__cpu_features__", {}).get("AVX512F", False)
_FEWEST = 16  # rows, or places of the depth, from which that is so
_NARROWEST = 32  # columns


def _wide_enough(a: Array, b: Array, out: Array, bias: Array | None) -> bool:
    """Whether compiled loops may and should multiply these matrices."""
    return (out.ndim == 2 and out.dtype.char in "fd" and len(out) >= _FEWEST
            and out.shape[1] >= _NARROWEST and a.shape[1] >= _FEWEST
            and out.strides[1] == out.itemsize
            and (bias is None or (bias.dtype == out.dtype and bias.flags.c_contiguous)))


def _work(product: Product) -> int:
    """The multiplications, or what takes as long as the one pass over memory of a single row."""
    a, _, out, _ = product
    return int(out.size * a.shape[-1] * (16 if out.shape[-2] == 1 else 1))


def _parts(a: Array, b: Array, out: Array, bias: Array | None, threads: int) -> list[Product]:
    """Parts for all threads, along the longest axis of a stack or the longer one of a matrix."""
    if threads == 1:
        return [(a, b, out, bias)]
    rows, columns = out.shape[-2:]
    if out.ndim == 2:
        if rows >= columns:
            return [(a[some], b, out[some], bias) for some in _cuts(rows, threads, _MULTIPLE)]
        return [(a, b[:, some], out[:, some], None if bias is None else bias[some])
                for some in _cuts(columns, threads, _MULTIPLE)]
    axis = max(range(out.ndim - 2), key=lambda d: out.shape[d], default=None)
    if axis is None or out.shape[axis] < 2:
        axis = out.ndim - (2 if rows >= columns else 1)
    cuts = _cuts(out.shape[axis], threads, _MULTIPLE if axis >= out.ndim - 2 else 1)
    behind = axis - out.ndim  # counted from the end, because operands may have fewer axes

    def part(operand: Array, some: slice) -> Array:
        if operand.ndim < -behind or operand.shape[behind] == 1:
            return operand
        where: Any = (..., some, *[slice(None)] * (-behind - 1))
        cut: Array = operand[where]
        return cut

    return [(a if behind == -1 else part(a, some), b if behind == -2 else part(b, some),
             part(out, some), None if bias is None else part(bias, some)) for some in cuts]


@functools.lru_cache(maxsize=1024)
def _cuts(length: int, threads: int, multiple: int) -> list[slice]:
    step = -(-length // threads)
    step = -(-step // multiple) * multiple
    return [slice(first, min(length, first + step)) for first in range(0, length, step)]


def widen(a: Array) -> Array:
    """`a` in the dtype that arithmetic on it runs in: float32 for the half types."""
    return a if a.dtype.char in _BLAS or a.dtype.kind in "biu" else cast(a, np.float32)


def cast(a: Array, dtype: Any) -> Array:
    """`a` converted to `dtype` in fresh memory, or itself if it has it."""
    if a.dtype == dtype:
        return a
    converted = empty(a.shape, dtype)
    np.copyto(converted, a, casting="unsafe")
    return converted


def scale(a: Array, factor: complex) -> Array:
    """a * factor in the dtype that arithmetic on `a` runs in; `a` itself for the factor 1."""
    if factor == 1:
        return a
    wide = widen(a)
    out: Array = empty(a.shape, wide.dtype)
    return np.multiply(wide, factor, out=out)


def contiguous(a: Array) -> Array:
    """`a` itself if it is C-contiguous, or else a copy that is."""
    return a if a.flags.c_contiguous else copy(a)


def adjoint(a: Array) -> Array:
    """The conjugate transpose of the matrices: a view where `a` is real."""
    turned = a.T if a.ndim == 2 else a.swapaxes(-1, -2)
    if a.dtype.kind != "c":
        return turned
    return np.conjugate(turned, out=empty(turned.shape, a.dtype))


def blas_ready(a: Array) -> Array:
    """`a`, copied if its matrices are laid out in a way that BLAS cannot read."""
    # Expanded (stride 0), reversed or strided: NumPy's own loop is many times slower than a copy.
    return a if blas_reads(a) else copy(a)


def blas_reads(a: Array) -> bool:
    """Whether BLAS can read the matrices as they are laid out."""
    if a.flags.c_contiguous:
        return True
    item = a.itemsize
    row, column = a.strides[-2:]
    rows, columns = a.shape[-2:]
    return ((column == item and row >= item * columns and row % item == 0)
            or (row == item and column >= item * rows and column % item == 0))


def column_sums(a: Array) -> Array:
    """The sum of a C-contiguous matrix over its rows, in the matrix's dtype.

    As a product with a vector of ones: 2-4 times faster than add.reduce over the first axis, and
    the more exact of the two, because BLAS sums in blocks.
    """
    wide = widen(a)
    if wide.dtype.char not in _BLAS:
        return np.add.reduce(a, 0, dtype=a.dtype, out=empty(a.shape[1:], a.dtype))
    out = empty((1, *a.shape[1:]), wide.dtype)
    multiply_all((ones_row(wide), wide, out, None))
    return cast(out[0], a.dtype)


def ones_row(a: Array) -> Array:
    """The one row whose product with `a` is the sum of its rows."""
    ones = empty((1, len(a)), a.dtype)
    ones.fill(1)
    return ones


def _product_shape(a: Array, b: Array) -> tuple[int, ...]:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.ndim + b.ndim > 4 else ()
    return (*batch, a.shape[-2], b.shape[-1])


def _gemm_integers(a: Array, b: Array) -> Array:
    out = empty(_product_shape(a, b), a.dtype)
    if not (a.size and b.size):
        out.fill(0)
    elif _largest(a) * _largest(b) * a.shape[-1] < _EXACT:
        wide = gemm(cast(a, np.float64), cast(b, np.float64))
        np.copyto(out, cast(wide, np.int64), casting="unsafe")
    else:
        # einsum's integer loop is several times faster than matmul's.
        np.einsum("...ij,...jk->...ik", a, b, out=out)
    return out


def _largest(a: Array) -> int:
    return max(abs(int(a.max())), abs(int(a.min())))
