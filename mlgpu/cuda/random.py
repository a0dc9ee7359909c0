"""Random numbers on the device: the kernels' side of mlgpu/cpu/random.py, function by function.

Each fills an array from the stream of a draw; the numbers are the CPU's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda import faults
from mlgpu.cuda.context import context
from mlgpu.cuda.launch import _device, blocks, launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype
from mlgpu.device import device_of, runtime
from mlgpu.errors import ShapeError
from mlgpu.random import Stream

THREADS = 256
_WORD = 2**64


def signed(word: int) -> int:
    """The 64 bits of a word as a signed integer, as kernels take it."""
    return (word + _WORD // 2) % _WORD - _WORD // 2


def source(stream: Stream) -> tuple[int, int, Any]:
    """What a kernel takes of a draw: seed, offset, and the cell that a graph's replays move.

    With a cell the offset counts from where the cell says that the last replay began.
    """
    replayed = stream.replayed
    if replayed is None:
        return signed(stream.seed), signed(stream.offset), None
    device = _device()
    cell = next((c for c in replayed.cells if c.device == device), None)
    if cell is None:
        cell = _Cell(device)
        replayed.cells.append(cell)
    if context.capture is not None:
        cell.wait()
        context.capture.use(cell.array.data.mem, True)
    return 0, signed((stream.offset - replayed.offset) % _WORD), cell.array


class _Cell:
    """Seed and offset of a graph's replay, in a device's memory (none of the graph's own).

    Made before the first draw that is captured, where the graph adds how many blocks a replay
    takes, the third number.  So they stay after a replay, for backward passes outside the graph.
    """

    def __init__(self, device: int) -> None:
        from mlgpu.cuda.arrays import cupy
        from mlgpu.cuda.graphs import upload

        self.device = device
        self.array = upload(np.zeros(3, np.int64))
        self._stream = context.streams.get(device)
        self._moved = cupy.cuda.Event(disable_timing=True)
        if self._stream is not None:  # what is captured
            launch("random", "random_advance", 1, 1, (self.array,))
            self._moved.record(self._stream.raw)

    def wait(self) -> None:
        """Let the current stream of a capture go on after the addition."""
        stream = context.streams.get(self.device)
        if stream is not None and stream is not self._stream:
            stream.raw.wait_event(self._moved)

    def place(self, stream: Stream, blocks: int) -> None:
        """Write where the next replay begins, before it adds its blocks."""
        device, offset = device_of(self.device), (stream.offset - blocks) % _WORD
        runtime(device).call(
            lambda cell: launch("random", "random_place", 1, 1,
                                (cell, signed(stream.seed), signed(offset), blocks)),
            (self.array,), device, 1)


# --- filling --------------------------------------------------------------------------------------


def _dense(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function that fills contiguous real arrays fill all: parts of complex numbers each."""
    @functools.wraps(function)
    def filled(out: Any, *args: Any) -> None:
        if not out.size:
            return
        dense = out if out.flags.c_contiguous else empty(out.shape, out.dtype)
        flat = dense.reshape(-1)
        function(flat.view(out.real.dtype) if out.dtype.kind == "c" else flat, *args)
        if dense is not out:
            from mlgpu.cuda.copy import copy_into

            copy_into(out, dense)
    return filled


def _fill(kernel: str, out: Any, each: int, stream: Stream, *args: Any, template: str = "") -> None:
    """Launch a kernel in which each lane makes `each` elements."""
    launch("random", f"{kernel}<{ctype(out.dtype)}{template}>", blocks(out.size, THREADS * each),
           THREADS, (out, out.size, *source(stream), *args))


def _wide(dtype: Any) -> Any:
    """The type that numbers of a dtype are computed in."""
    return dtypes.compute_dtype(dtypes.from_numpy(dtype)).numpy.type


@_dense
def uniform(out: Any, stream: Stream, low: float, high: float) -> None:
    """Uniform in [low, high)."""
    compute, kept = _wide(out.dtype), out.dtype.type
    scale = float(compute(high) - compute(low))
    each = 32 // out.dtype.itemsize
    _fill("random_uniform", out, each, stream, low, scale, float(kept(low)), float(kept(high)))


def _normal(out: Any, stream: Stream, mean: float, std: float, exponential: str) -> None:
    each = 4 if out.dtype.itemsize == 8 else 8
    _fill("random_normal", out, each, stream, mean, std, template=f", {exponential}")


@_dense
def normal(out: Any, stream: Stream, mean: float, std: float) -> None:
    """Normal with this mean and standard deviation."""
    _normal(out, stream, mean, std, "false")


@_dense
def log_normal(out: Any, stream: Stream, mean: float, std: float) -> None:
    """exp of a normal with this mean and standard deviation."""
    _normal(out, stream, mean, std, "true")


@_dense
def transformed(out: Any, stream: Stream, function: str, a: float, b: float) -> None:
    """A function of kernels/random.cu of numbers uniform in (0, 1]."""
    each = 4 if out.dtype.itemsize == 8 else 8
    _fill("random_transformed", out, each, stream, a, b, template=f", random_{function}")


@_dense
def bernoulli(out: Any, stream: Stream, p: float) -> None:
    """1 with probability p, else 0."""
    _fill("random_bernoulli", out, 8, stream, math.ceil(p * 2.0 ** 32))


@_dense
def integers(out: Any, stream: Stream, low: int, n: int) -> None:
    """Integers in [low, low + n), n <= 2**64."""
    kernel, each = ("random_integers", 4) if n <= 2**32 or n == _WORD else (
        "random_integers_wide", 2)
    _fill(kernel, out, each, stream, signed(low % _WORD), signed(n % _WORD))


@_dense
def permutation(out: Any, stream: Stream) -> None:
    """0 ... n-1 in random order: that of 64-bit words, equal ones by their places."""
    from mlgpu.cuda.copy import copy_into
    from mlgpu.cuda.sort import sort

    words = empty(out.shape, np.dtype(np.int64))
    integers(words, stream, -2**63, _WORD)  # in the order of unsigned ones
    copy_into(out, sort(words, values=False)[1])


def bernoulli_each(out: Any, stream: Stream, p: Any, message: str) -> None:
    """1 with the probability in the same place of `p`, which broadcasts, else 0."""
    @_dense
    def fill(out: Any) -> None:
        given = _spread(p, shape)
        launch("random", f"random_bernoulli_each<{ctype(out.dtype)}, {ctype(p.dtype)}>",
               blocks(out.size, THREADS * 8), THREADS,
               (out, given, out.size, *source(stream), faults.fault(), _site(message)))

    shape = out.shape
    fill(out)


def poisson(out: Any, stream: Stream, rates: Any, message: str) -> None:
    """Counts with these rates, which have the shape and dtype of `out`."""
    @_dense
    def fill(out: Any) -> None:
        launch("random", f"random_poisson<{ctype(out.dtype)}>", blocks(out.size, THREADS), THREADS,
               (out, contiguous(rates), out.size, *source(stream), faults.fault(), _site(message)))

    fill(out)


def check(x: Any, low: float, high: float, message: str) -> None:
    """Record `message` unless all elements are within [low, high]."""
    if x.size:
        launch("random", f"random_check<{ctype(x.dtype)}>", blocks(x.size, THREADS), THREADS,
               (contiguous(x), x.size, low, high, faults.fault(), _site(message)))


def _site(message: str) -> int:
    return faults.site(message, ShapeError)


def _spread(array: Any, shape: tuple[int, ...]) -> Any:
    """`array` broadcast to a shape, contiguous."""
    if array.shape == shape:
        return contiguous(array)
    from mlgpu.cuda.copy import copy_into

    spread = empty(shape, array.dtype)
    copy_into(spread, array)
    return spread


# --- multinomial ----------------------------------------------------------------------------------


def multinomial(out: Any, stream: Stream, weights: Any, replacement: bool, message: str) -> None:
    """int64 indices drawn by the rows of weights; `out` is contiguous."""
    n, count = weights.shape[-1], out.shape[-1]
    rows = out.size // count
    name, given = ctype(weights.dtype), contiguous(weights)
    report = faults.fault(), _site(message)
    numbers = empty((rows, n), np.dtype(np.float64))
    if not replacement:
        from mlgpu.cuda.copy import copy_into
        from mlgpu.cuda.sort import sort

        launch("random", f"multinomial_times<{name}>", rows, 1024,
               (numbers, given, n, *source(stream), *report))
        copy_into(out.reshape(rows, count), sort(numbers, values=False)[1][:, :count])
        return
    last = empty((rows,), np.dtype(np.int32))
    launch("random", f"multinomial_edges<{name}>", rows, 1024, (numbers, last, given, n, *report))
    launch("random", "multinomial_draw<long long>", blocks(out.size, THREADS), THREADS,
           (out, numbers, last, out.size, count, n, *source(stream)))
