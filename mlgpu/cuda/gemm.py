"""Products of matrices on CUDA: one interface, and what it chooses by.

Operands are taken as they lie: rows or columns of a matrix may be the neighbours in memory, lines
may be any distance apart (none, where it was expanded), batches too.  Only what lies otherwise is
copied.  Few rows times a large matrix are kernels/gemv.cu; else halves go to the tensor cores
(kernels/gemm.cu), float32 there only where less precision is allowed; all else is
kernels/gemm_simt.cu.  How the sums over k are cut depends on the shapes and on how operands lie,
never on the GPU's size, so a product has the same bits on every GPU of a kind.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.backends import cuda as backend
from mlgpu.cuda import runtime
from mlgpu.cuda.context import context
from mlgpu.cuda.launch import blocks, launch, plain, prepare
from mlgpu.cuda.loading import load
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError

Shape = tuple[int, ...]

# In the order of the enumeration in kernels/gemm.cuh.
ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh")

_STRUCT = np.dtype([
    ("lda", "i8"), ("ldb", "i8"), ("summand_row", "i8"), ("summand_column", "i8"),
    ("size", "i8", 3), ("a_batch", "i8", 3), ("b_batch", "i8", 3), ("summand_batch", "i8", 3),
    ("alpha", "f8"), ("alpha_imaginary", "f8"), ("beta", "f8"), ("beta_imaginary", "f8"),
    ("alpha_whole", "i8"), ("beta_whole", "i8"), ("m", "i4"), ("n", "i4"), ("k", "i4"),
    ("splits", "i4"), ("split_k", "i4"), ("activation", "i4"), ("scaled", "i4"), ("wide", "i4"),
    ("summand_wide", "i4")], align=True)

_ENOUGH = 128  # blocks that keep a GPU busy, whichever it is
_tiles_needed = 64  # of 128 x 128, from which on so large ones are taken
_TINY = 1 << 14  # multiplications up to which few kernels to compile count more than wide loads
_LARGE = 1 << 32  # multiplications from which on the library's instructions count


@dataclass(frozen=True)
class Operand:
    """How one operand lies: `deep` where its elements along k are neighbours."""

    deep: bool
    line: int  # elements between two lines
    batch: Shape  # and between two matrices, for each dimension of the batch
    width: int  # bytes that can be read at once


@dataclass(frozen=True)
class Plan:
    """The launches of one product."""

    run: Any
    summing: bool  # whether it takes sums of a's rows
    splits: int
    wide_dtype: Any  # what sums have that are put off to the second stage
    finish: Any


_STRIDED = (0, 1, 3)  # among the arrays of a product: a, b and the bias
_STRIDED_LATE = (1,)  # and of its second stage: the bias
_plans: dict[Any, Plan] = {}  # by how operands lie, for those that are not copied
_KEPT = 4096


def gemm(a: Any, b: Any, out: Any = None, *, bias: Any = None, activation: str | None = None,
         residual: Any = None, keep: bool = False, alpha: complex = 1, beta: complex = 1,
         row_sums: Any = None, exact: bool | None = None) -> Any:
    """activation(alpha * (a @ b) + beta * bias) + residual, over the last two axes.

    Leading axes broadcast; `bias` broadcasts to the product, `residual` and `out` have its shape
    and are C-contiguous.  With `keep` the result is (out, what went into the activation).
    `row_sums`, of shape (m,), is set to the sums of a's rows (for a without leading axes): if a is
    a transposed gradient, these are the bias's.  All have one dtype.  `exact` says whether float32
    keeps its precision; by default that is as set_float32_matmul_precision has it.
    """
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous and (bias is None or bias.ndim < 2):
        # One product over all rows.
        rows, columns = math.prod(a.shape[:-1]), b.shape[-1]
        if residual is not None:
            residual = residual.reshape(rows, columns)
        flat = gemm(a.reshape(rows, a.shape[-1]), b,
                    None if out is None else out.reshape(rows, columns), bias=bias,
                    activation=activation, residual=residual, keep=keep, alpha=alpha, beta=beta,
                    exact=exact)
        shape = (*a.shape[:-1], columns)
        return tuple([y.reshape(shape) for y in flat]) if keep else flat.reshape(shape)
    batch = _batch_shape(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    shape = (*batch, m, n)
    if n == 1 and m > 1 and row_sums is None:
        # One column is one row of the transposed product.
        turned = (*batch, 1, m)
        row = gemm(b.swapaxes(-1, -2), a.swapaxes(-1, -2),
                   None if out is None else out.reshape(turned),
                   bias=bias if bias is None or bias.ndim < 2 else bias.swapaxes(-1, -2),
                   activation=activation, keep=keep, alpha=alpha, beta=beta, exact=exact,
                   residual=None if residual is None else residual.reshape(turned))
        return tuple([y.reshape(shape) for y in row]) if keep else row.reshape(shape)
    if out is None:
        out = runtime.empty(shape, a.dtype)
        if _library_serves(a, b, bias is residual is activation is row_sums is None
                           and alpha == 1 and not keep):
            return load().matmul(a, b, out=out)
    pre = runtime.empty(shape, a.dtype) if keep else None
    exact = backend.precision == "highest" if exact is None else exact
    if row_sums is not None and (not out.size or (not exact and a.dtype.char == "f")):
        # Sums are never rounded to 10 bits, and those of nothing are zeros.
        gemm(a, runtime.full((k, 1), 1, a.dtype), row_sums.reshape(m, 1), exact=True)
        row_sums = None
    if out.size:
        aligned = out.data.ptr % 16 == 0 and (residual is None or residual.data.ptr % 16 == 0)
        key = (a.dtype.char, a.shape, a.strides, a.data.ptr % 16, b.shape, b.strides,
               b.data.ptr % 16, None if bias is None else (bias.shape, bias.strides,
                                                           bias.data.ptr % 16),
               aligned, activation, alpha, beta, row_sums is not None, exact, _capability())
        plan = _plans.get(key)
        if plan is None:
            given = a, b, bias
            a, b, bias, dims, *strides = _laid_out(a, b, bias, batch, m, n)
            plan = _plan(
                a.dtype, _capability(), exact, m, n, k, dims,
                _operand(a, strides[0], -2), _operand(b, strides[1], -1), strides[2],
                _fits(aligned, n, out.itemsize), 0 if bias is None else bias.data.ptr % 16,
                ACTIVATIONS.index(activation), alpha, beta, row_sums is not None)
            if all(x is y for x, y in zip(given, (a, b, bias), strict=True)):
                if len(_plans) >= _KEPT:
                    _plans.clear()
                _plans[key] = plan
        _run(plan, a, b, out, bias, residual, pre, row_sums)
    return (out, pre) if keep else out


def activation_backward(dy: Any, pre: Any, activation: str) -> Any:
    """dy * activation'(pre)."""
    dy = runtime.contiguous(dy)
    dx = runtime.empty(dy.shape, dy.dtype)
    width = 16 // dy.itemsize
    while width > 1 and any(x.data.ptr % (width * dy.itemsize) for x in (dy, pre)):
        width //= 2
    name = f"activation_backward<{ctype(dy.dtype)}, {_computed_in(dy.dtype)[0]}, {width}>"
    launch("gemm_simt", name, blocks(dy.size, 256 * width), 256,
           (dy, pre, dx, dy.size, ACTIVATIONS.index(activation)))
    return dx


def adjoint(x: Any) -> Any:
    """The conjugate transpose of the matrices: a view where `x` is real."""
    return conjugate(x).swapaxes(-1, -2)


def conjugate(x: Any) -> Any:
    """`x` itself where it is real."""
    if x.dtype.kind != "c":
        return x
    from mlgpu.op import on_tensors
    from mlgpu.ops.complex import conj

    return on_tensors(conj, x)


def column_sums(x: Any) -> Any:
    """The sum of a matrix over its rows, as a product with ones."""
    ones = runtime.full((len(x), 1), 1, x.dtype)
    return gemm(x.T, ones, exact=True).reshape(x.shape[1])


def _run(plan: Plan, a: Any, b: Any, out: Any, bias: Any, residual: Any, pre: Any,
         row_sums: Any) -> None:
    partial = sums = None
    if plan.splits > 1:
        partial = runtime.empty((plan.splits * out.size,), plan.wide_dtype)
        if row_sums is not None:
            sums = runtime.empty((plan.splits * row_sums.size,), plan.wide_dtype)
    if plan.summing:
        plan.run(a, b, out, bias, residual, pre, row_sums, partial, sums)
    else:
        plan.run(a, b, out, bias, residual, pre, partial)
    if plan.splits > 1:
        plan.finish(out, bias, residual, pre, row_sums, partial, sums)


# --- how operands lie ----------------------------------------------------------------------------


def _batch_shape(a: Shape, b: Shape) -> Shape:
    return a if a == b or not b else b if not a else np.broadcast_shapes(a, b)


def _laid_out(a: Any, b: Any, bias: Any, batch: Shape, m: int, n: int) -> tuple[Any, ...]:
    """The operands and the bias, copied where they must be; the batch's dimensions, joined where
    all allow it, at most three; and their strides: those of the bias with its own two last."""
    a, b = _lines(a), _lines(b)
    dims, *strides = _in_batch(a, b, bias, batch, m, n)
    if len(dims) > 3:
        broadcast_to = load().broadcast_to
        a = runtime.copy(broadcast_to(a, (*batch, *a.shape[-2:])))
        b = runtime.copy(broadcast_to(b, (*batch, *b.shape[-2:])))
        bias = None if bias is None else runtime.copy(broadcast_to(bias, (*batch, m, n)))
        dims, *strides = _in_batch(a, b, bias, batch, m, n)
    return a, b, bias, dims, *strides


def _in_batch(a: Any, b: Any, bias: Any, batch: Shape, m: int, n: int) -> tuple[Shape, ...]:
    spread = (0,) * (len(batch) + 2) if bias is None else _strides(bias, (*batch, m, n), 0)
    dims, (of_a, of_b, of_bias) = _joined(
        batch, (_strides(a, batch, 2), _strides(b, batch, 2), spread[:-2]))
    return dims, of_a, of_b, (*of_bias, *spread[-2:])


def _lines(x: Any) -> Any:
    """`x`, copied unless the elements of its rows or of its columns are neighbours."""
    item, (rows, columns) = x.itemsize, x.shape[-2:]
    row, column = x.strides[-2:]
    if column == item or columns == 1 or row == item or rows == 1 or not x.size:
        return x
    return runtime.copy(x)


def _strides(x: Any, shape: Shape, matrix: int) -> Shape:
    """The strides, in elements, of `x` broadcast to leading axes `shape`, without the last
    `matrix` axes."""
    own = x.shape[:x.ndim - matrix]
    steps = [0 if n == 1 else s // x.itemsize
             for n, s in zip(own, x.strides[:len(own)], strict=True)]
    return (*[0] * (len(shape) - len(own)), *steps)


def _joined(shape: Shape, strides: tuple[Shape, ...]) -> tuple[Shape, list[Shape]]:
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(row[-1] == s[d] * size for row, s in zip(kept, strides, strict=True)):
            sizes[-1] *= size
            for row, s in zip(kept, strides, strict=True):
                row[-1] = s[d]
        else:
            sizes.append(size)
            for row, s in zip(kept, strides, strict=True):
                row.append(s[d])
    return tuple(sizes), [tuple(row) for row in kept]


def _operand(x: Any, batch: Shape, rows: int) -> Operand:
    """How the matrix lies whose axis `rows` is not k: the other one is."""
    depth = -3 - rows
    item = x.itemsize
    if not x.size:
        return Operand(True, 0, (0,) * len(batch), 16)
    choices = []
    for inner, outer in ((depth, rows), (rows, depth)):
        if x.strides[inner] == item or x.shape[inner] == 1:
            line = 0 if x.shape[outer] == 1 else x.strides[outer] // item
            size = x.shape[inner] * item
            known = [x.data.ptr, line * item, size, *[s * item for s in batch]]
            width = next((w for w in (16, 8, 4, 2) if not any(v % w for v in known)), 1)
            choices.append(Operand(inner == depth, line, batch, max(width, item)))
    return max(choices, key=lambda c: c.width)


def _fits(aligned: bool, n: int, item: int) -> int:
    """The most bytes that rows of n elements of the result can be stored in at once."""
    if not aligned:
        return item
    return next((w for w in (16, 8, 4, 2) if w >= item and n * item % w == 0), item)


# --- choices -------------------------------------------------------------------------------------


def _computed_in(dtype: Any) -> tuple[str, Any]:
    """What sums of products of this dtype are kept in, in C++ and in NumPy."""
    if dtype.kind in "iu":
        return ("long long", np.dtype(np.int64)) if dtype.itemsize == 8 else (
            "int", np.dtype(np.int32))
    return ("float", np.dtype(np.float32)) if dtype.itemsize == 2 else (ctype(dtype), dtype)


def _splits(tiles: int, k: int, least: int = 256, enough: int = _ENOUGH) -> tuple[int, int]:
    """Into how many pieces k is cut, and their length: more where few tiles have long sums."""
    count = min(k // least, enough // tiles)
    if count < 2:
        return 1, k
    piece = blocks(blocks(k, count), 64) * 64
    return blocks(k, piece), piece


def _tensor_tile(item: int, width: int, m: int, n: int, tiles: int, capability: int) -> Shape:
    """BM, BN, BK, WM, WN and stages: large tiles read shared memory least, and small ones leave no
    GPU idle and no rows empty."""
    depth = 64 // item
    roomy = capability in (80, 87, 90, 100, 101, 103)
    stages = 2 if capability < 80 else 4
    if m <= 32 and n <= 32:
        return 32, 32, depth, 32, 32, stages
    if m <= 16:
        return 16, 64, depth, 16, 32, stages
    if m <= 32:
        return 32, 64, depth, 32, 32, stages
    if n <= 32:
        return 64, 32, depth, 32, 32, stages
    # Narrow copies of so large tiles have too many addresses to keep in registers.
    if width >= 8 and capability >= 80 and n > 64 and tiles >= _tiles_needed:
        if m <= 64:
            return 64, 128, depth, 32, 64, stages
        if roomy and item == 2 and n % 256 == 0 and tiles >= 4 * _ENOUGH:
            return 128, 256, depth, 64, 64, 3
        return 128, 128, depth, 64, 64, 4 if roomy else 3
    return 64, 64, depth, 32, 32, stages


def _plan(dtype: Any, capability: int, exact: bool, m: int, n: int, k: int, dims: Shape,
          a: Operand, b: Operand, bias: Shape, store: int, bias_at: int, activation: int,
          alpha: complex, beta: complex, summing: bool) -> Plan:
    batches = math.prod(dims)
    tiles = blocks(m, 128) * blocks(n, 128) * batches
    splits, piece = _splits(tiles, k)
    tiles *= splits
    tiny = m * n * k * batches <= _TINY
    computed, wide_dtype = _computed_in(dtype)
    item, computed_item = dtype.itemsize, wide_dtype.itemsize
    name = ctype(dtype)
    tensor = dtype.kind not in "iuc" and (
        (item == 2 and (capability >= 80 or name == "__half"))
        or (item == 4 and not exact and capability >= 80))
    layouts = (a.deep, b.deep)
    arguments: list[Any]
    few = dtype.kind not in "iuc" and m <= 4 and n >= 64 and not tiny and not summing
    if few and (a.deep or not b.deep):
        width = (min(a.width, b.width) if b.deep else b.width) // item
        bm, bn, per_store, shared, block = m, 8 if b.deep else 32 * width, 1, 0, 256
        # A split has two turns of the loop at least.
        splits, piece = _splits(blocks(n, bn) * batches, k, 2048 if b.deep else 64, 2 * _ENOUGH)
        family = "gemv"
        arguments = [name, computed, 1 if m == 1 else 4, width, *([] if b.deep else [a.deep])]
    elif tensor:
        widths = [item if tiny else w for w in (a.width, b.width)]
        tile = _tensor_tile(item, min(widths), m, n, tiles, capability)
        bm, bn, bk, wm, wn, stages = tile
        per_store = 16 // item
        pads = bk * 32 * ((not a.deep) + (not b.deep)) if item == 4 else 0
        shared, block = stages * (bk * (bm + bn) * item + pads), bm * bn // (wm * wn) * 32
        family = "gemm"
        arguments = [name, *tile, *layouts, *widths, summing]
    else:
        per_store = 16 // computed_item
        vectors = [1 if tiny or w < per_store * item else per_store for w in (a.width, b.width)]
        # Copies of single elements take the registers that large tiles want.
        large = (name == "float" and min(m, n) > 64 and tiles >= _tiles_needed
                 and min(vectors) > 1)
        bm = bn = 128 if large else 64
        each, bk = (8, 8) if large else (4, 8 if computed_item == 16 else 16)
        shared, block = 0, bm * bn // each**2
        family = "gemm_simt"
        arguments = [name, computed, bm, bn, bk, each, each, *layouts, *vectors, summing]
    entry = "gemv_rows" if family == "gemv" and not b.deep else family
    kernel = family, f"{entry}<{', '.join(map(_argument, arguments))}>"
    struct = np.zeros(1, _STRUCT)
    own = struct[0]
    own["lda"], own["ldb"] = a.line, b.line
    own["summand_row"], own["summand_column"] = bias[-2:]
    own["size"] = [*[1] * (3 - len(dims)), *dims]
    for field, strides in (("a_batch", a.batch), ("b_batch", b.batch),
                           ("summand_batch", bias[:-2])):
        own[field] = [*[0] * (3 - len(dims)), *strides]
    own["m"], own["n"], own["k"], own["splits"], own["split_k"] = m, n, k, splits, piece
    own["activation"], own["scaled"] = activation, alpha != 1 or beta != 1
    if dtype.kind in "iu":
        own["alpha_whole"], own["beta_whole"] = alpha, beta
    else:
        own["alpha"], own["alpha_imaginary"] = alpha.real, alpha.imag
        own["beta"], own["beta_imaginary"] = beta.real, beta.imag
    own["wide"] = store >= per_store * item
    # The second stage stores as many columns at once as fill 16 bytes of sums.
    late = 16 // computed_item if store >= 16 // computed_item * item else 1
    most = max(per_store, late) * item
    own["summand_wide"] = bias[-1] == 1 and not bias_at % most and not any(
        s * item % most for s in bias[:-1])
    sums = blocks(m, 256) if summing else 0
    first = prepare(*kernel, blocks(m, bm) * blocks(n, bn) * splits * batches, block,
                    (plain(struct),), shared, _STRIDED)
    second = None if splits == 1 else prepare(
        "gemm_simt", f"gemm_finish<{name}, {computed}, {late}>",
        blocks(blocks(m * n * batches, late), 256) + sums, 256, (plain(struct), batches),
        strided=_STRIDED_LATE)
    return Plan(first, family != "gemv", splits, wide_dtype, second)


def _argument(value: Any) -> str:
    """A template's argument as C++ has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _library_serves(a: Any, b: Any, plain: bool) -> bool:
    """Whether cuBLAS takes this product: a plain one of two contiguous matrices, run at once."""
    if backend.gemm not in ("auto", "own", "cublas"):
        raise ShapeError("mlgpu.backends.cuda.gemm: must be 'auto', 'own' or 'cublas', got "
                         f"{backend.gemm!r}")
    if backend.gemm == "own" or not plain or a.ndim != 2 or b.ndim != 2:
        return False
    if backend.gemm == "auto" and (a.dtype.char != "e" or _capability() < 90
                                   or len(a) * a.shape[1] * b.shape[1] < _LARGE):
        return False
    return bool(a.dtype.char in "efdFD" and a.size and b.size and a.flags.c_contiguous
                and b.flags.c_contiguous and context.capture is None)


def _capability() -> int:
    return _capability_of(_current_device()())


@functools.cache
def _current_device() -> Callable[[], int]:
    return load().cuda.runtime.getDevice  # type: ignore[no-any-return]


@functools.cache
def _capability_of(device: int) -> int:
    return int(load().cuda.Device(device).compute_capability)
