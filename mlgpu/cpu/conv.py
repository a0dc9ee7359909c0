"""Convolution on arrays: blocks of work on the parallel loop, each a product of matrices in cache.

Weights are (small channels, large channels / groups, *kernel), PyTorch's layout both ways round;
x is (N, C, *large) and y (N, O, *small), in any dtype and strides.

Kernels of 3 x 3 take Winograd's form (`winograd.py`), pointwise ones multiply the images as they
lie, and the others unfold one side into columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.cpu import blas, threads, totals, winograd
from mlgpu.cpu.columns import Columns
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.ops.window import BLOCK_BYTES, Array, Block, Ints, Windows, Workspace, blocks

# Columns and product of a block that one thread works on, which then stay in its cache.
TASK_BYTES = 1 << 20
# Multiplications that take as long as one element of elementwise work.
PER_ELEMENT = 32
# Partial sums of a weight's gradient, each over a part of the blocks.
PARTS = 8


# --- the three maps ------------------------------------------------------------------------------

def to_small(x: Array, weight: Array, bias: Array | None, win: Windows, groups: int) -> Array:
    """Convolve, in fresh memory."""
    out = empty((len(x), len(weight), *win.small), x.dtype)
    _to_small(x, _computed(weight), _computed(bias), win, groups, out)
    return out


def to_large(y: Array, weight: Array, bias: Array | None, win: Windows, groups: int) -> Array:
    """ConvolveTranspose, in fresh memory; on dense maps a convolution with the mirrored weight."""
    out = empty((len(y), weight.shape[1] * groups, *win.large), y.dtype)
    weight, bias = _computed(weight), _computed(bias)
    back = win.mirrored() if win.dense else win
    if winograd.suits(back, len(y), weight.shape[0], weight.shape[1], groups, weight.dtype):
        _winograd(y, winograd.mirrored_planes(weight), bias, back, out,
                  lambda: _mirror(weight, groups))
    elif win.dense:
        _to_small(y, _mirror(weight, groups), bias, back, groups, out)
    else:
        _spread(y, weight, bias, win, groups, out)
    return out


def to_weight(x: Array, y: Array, win: Windows, groups: int, with_sums: bool
              ) -> tuple[Array, Array | None]:
    """ConvolveWeight in fresh memory and, if asked for, the sums of y by channel."""
    shape = (y.shape[1], x.shape[1] // groups, *win.kernel)
    total = zeros(shape, compute_dtype(from_numpy(x.dtype)).numpy)
    if winograd.suits(win, len(x), shape[1], shape[0], groups, total.dtype):
        sums = winograd.weigh(x, y, win, total)
        if np.isfinite(total).all():
            return _packed(total, x.dtype), _packed(sums, x.dtype) if with_sums else None
        total.fill(0)
    # What is unfolded should have few channels.
    if win.dense and x.shape[1] > 2 * y.shape[1]:
        mirrored = zeros((x.shape[1], y.shape[1] // groups, *win.kernel), total.dtype)
        _weigh(y, x, win.mirrored(), groups, mirrored)
        np.copyto(total, _mirror(mirrored, groups))
    else:
        _weigh(x, y, win, groups, total)
    return _packed(total, x.dtype), channel_sums(y) if with_sums else None


def channel_sums(y: Array) -> Array:
    """The sums over images and positions, (O,)."""
    # BLAS's threads would wait for more work for milliseconds, on the cores the loop needs next.
    with blas.one_thread():
        sums = totals.total(y, (0, *range(2, y.ndim)))
    return _packed(sums.reshape(-1), y.dtype)


def _computed(array: Array | None) -> Any:
    """The array contiguous and in the dtype to compute in."""
    return None if array is None else _packed(array, compute_dtype(from_numpy(array.dtype)).numpy)


def _packed(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array contiguous and in `dtype`; itself where it is so already."""
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    out = empty(array.shape, dtype)
    np.copyto(out, array, casting="unsafe")
    return out


def _mirror(weight: Array, groups: int) -> Array:
    """The weight of the same dense map read from the large grid: roles swapped, taps reversed."""
    small, large, *kernel = weight.shape
    out = empty((groups, large, small // groups, *kernel), weight.dtype)
    split = weight.reshape(groups, small // groups, large, *kernel)
    np.copyto(out, np.flip(split, tuple(range(3, split.ndim))).swapaxes(1, 2))
    return out.reshape(groups * large, small // groups, *kernel)


# --- the ways to do it ---------------------------------------------------------------------------

def _to_small(x: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
              out: Array) -> None:
    """Convolve by the cheaper way: what is unfolded should have few channels."""
    if win.pointwise and x.dtype == weight.dtype and x.flags.c_contiguous:
        _multiply_channels(x, weight, bias, groups, out)
    elif winograd.suits(win, len(x), x.shape[1], len(weight), groups, weight.dtype):
        _winograd(x, winograd.kernel_planes(weight), bias, win, out, lambda: weight)
    elif win.dense and x.shape[1] > 2 * weight.shape[0]:
        _spread(x, _mirror(weight, groups), bias, win.mirrored(), groups, out)
    else:
        _gather(x, weight, bias, win, groups, out)


def _winograd(x: Array, planes: Array, bias: Array | None, win: Windows, out: Array,
              weight: Callable[[], Array]) -> None:
    """Convolve with the planes of `weight()`; what is not finite is computed directly."""

    def direct(block: winograd.Block) -> None:
        images = slice(block.image, block.image + block.images)
        corner = 2 * block.row, 2 * block.column
        target = out[images, :, corner[0]:corner[0] + 2 * block.rows,
                     corner[1]:corner[1] + 2 * block.columns]
        before = win.before[0] - corner[0], win.before[1] - corner[1]
        part = win._replace(small=target.shape[2:], before=before)
        _gather(x[images], weight(), bias, part, 1, target)

    winograd.convolve(x, planes, bias, win, out, direct)


def _multiply_channels(x: Array, weight: Array, bias: Array | None, groups: int,
                       out: Array) -> None:
    """The pointwise convolution: matrix products on the images as they lie."""
    images, size = len(x), math.prod(x.shape[2:])
    matrix = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])
    source = x.reshape(images, groups, weight.shape[1], size)
    target = out.reshape(images, *matrix.shape[:2], size)
    per_image = (x[:1].size + out[:1].size) * x.itemsize
    step = max(1, min(images, TASK_BYTES // max(1, per_image)))

    def start() -> Callable[[int], None]:
        def multiply(task: int) -> None:
            some = slice(task * step, (task + 1) * step)
            np.matmul(matrix, source[some], out=target[some])
            if bias is not None:
                into = target[some].reshape(-1, len(weight), size)
                np.add(into, bias[:, None], out=into)

        return multiply

    threads.parallel(-(-images // step), start, out.size * weight.shape[1] // PER_ELEMENT)


def _deliver(target: Array, source: Array, bias: Array | None) -> None:
    """target (N, C, *sizes) = source (C, N, *sizes, possibly longer) + bias, rounded once."""
    source = source[..., :target.shape[-1]].swapaxes(0, 1)
    if bias is None:
        np.copyto(target, source, casting="unsafe")
    else:
        bias = bias.reshape(-1, *(1,) * (target.ndim - 2))
        np.add(source, bias, out=target, casting="unsafe")


def _gather(x: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
            out: Array) -> None:
    """Large to small: unfold the input (im2col), then one GEMM per block."""
    dtype, channels = weight.dtype, weight.shape[0]
    matrix = weight.reshape(groups, channels // groups, weight[0].size)
    cut = _cut((len(x), *win.small), weight, groups)

    def start() -> Callable[[int], None]:
        columns = Columns(x, win, dtype, cut[0])
        product = Workspace(dtype, channels * columns.positions)

        def convolve(task: int) -> None:
            block = cut[task]
            cols = columns.unfold(block)
            y = product.take((channels, *cols.shape[1 + len(win.kernel):]))
            size = y[0].size
            np.matmul(matrix, cols.reshape(groups, matrix.shape[2], size),
                      out=y.reshape(*matrix.shape[:2], size))
            _deliver(out[block.in_channels], y, bias)

        return convolve

    if cut:
        threads.parallel(len(cut), start, out.size * weight[0].size // PER_ELEMENT)


def _spread(y: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
            out: Array) -> None:
    """Small to large: one GEMM per block, then add each tap's product in its place (col2im)."""
    dtype, channels = weight.dtype, weight.shape[1] * groups
    matrix = weight.reshape(groups, weight.shape[0] // groups, weight[0].size).swapaxes(1, 2)
    # Blocks of one image add to the same elements: one task does them.
    cut = _cut((len(y), *win.small), weight, groups)
    tasks = [list(parts) for _, parts in itertools.groupby(cut, lambda b: b.start[0])]

    def start() -> Callable[[int], None]:
        first = tasks[0][0]
        images, positions = first.shape[0], math.prod(first.shape)
        small = Workspace(dtype, y.shape[1] * positions)
        product = Workspace(dtype, channels * math.prod(win.kernel) * positions)
        total = Workspace(dtype, channels * images * math.prod(win.large))

        def transpose(task: int) -> None:
            begin, end = tasks[task][0].start[0], tasks[task][0].stop[0]
            large = total.take((channels, end - begin, *win.large))
            large.fill(0)
            for block in tasks[task]:
                part = small.take((y.shape[1], *block.shape))
                np.copyto(part, y[block.in_channels].swapaxes(0, 1), casting="unsafe")
                columns = product.take((channels, *win.kernel, *block.shape))
                # NumPy has no GEMM for outer products, the case of depthwise convolution.
                multiply = np.multiply if matrix.shape[2] == 1 else np.matmul
                size = part[0].size
                multiply(matrix, part.reshape(groups, matrix.shape[2], size),
                         out=columns.reshape(*matrix.shape[:2], size))
                _add_taps(large, columns, win, block)
            _deliver(out[begin:end], large, bias)

        return transpose

    if tasks:
        threads.parallel(len(tasks), start, y.size * weight[0].size // PER_ELEMENT)


def _add_taps(large: Array, columns: Array, win: Windows, block: Block) -> None:
    """Add columns (C, *kernel, N, *positions) to what they see in large (C, N, *large)."""
    both = (slice(None), slice(None))
    for tap in win.taps():
        places = win.tap_slices(tap, block.start[1:], block.stop[1:])
        if places is not None:
            seen, elements = places
            into = large[both + elements]
            np.add(into, columns[(slice(None), *tap)][both + seen], out=into)


def _weigh(x: Array, y: Array, win: Windows, groups: int, out: Array) -> None:
    """Fill out (O, C / groups, *kernel) by GEMMs of the columns of x with y.

    Each part of the blocks has a sum of its own; these are added in order.
    """
    dtype, channels = out.dtype, out.shape[0] // groups
    cut = _cut((len(x), *win.small), out, groups)
    parts = min(len(cut), PARTS)
    sums = zeros((max(1, parts), groups, out[0].size, channels), dtype)

    def start() -> Callable[[int], None]:
        columns = Columns(x, win, dtype, cut[0])
        small = Workspace(dtype, y.shape[1] * columns.positions)
        term = empty(sums.shape[1:], dtype)

        def weigh(task: int) -> None:
            for block in cut[task * len(cut) // parts:(task + 1) * len(cut) // parts]:
                cols = columns.unfold(block)
                part = small.take((y.shape[1], *cols.shape[1 + len(win.kernel):]))
                width = block.shape[-1]
                part[..., width:] = 0  # columns that mean nothing count for nothing
                np.copyto(part[..., :width], y[block.in_channels].swapaxes(0, 1),
                          casting="unsafe")
                # Measured a fifth faster than its transpose, y by the columns.
                size = part[0].size
                np.matmul(cols.reshape(groups, term.shape[1], size),
                          part.reshape(groups, channels, size).swapaxes(1, 2), out=term)
                np.add(sums[task], term, out=sums[task])

        return weigh

    if cut:
        threads.parallel(parts, start, y.size * out[0].size // PER_ELEMENT)
    for part in range(1, parts):
        np.add(sums[0], sums[part], out=sums[0])
    np.copyto(out.reshape(groups, channels, out[0].size), sums[0].swapaxes(1, 2))


def _cut(sizes: Ints, weight: Array, groups: int) -> list[Block]:
    """All images and positions in blocks, by their columns and product."""
    per_position = int((weight[0].size * groups + weight.shape[0]) * weight.itemsize)
    whole = math.prod(sizes) * per_position <= BLOCK_BYTES
    return list(blocks(sizes, per_position, BLOCK_BYTES if whole else TASK_BYTES))
