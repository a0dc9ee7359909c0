"""Copies with the elements in other places: reversed, rolled, with borders, triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import rows
from mlgpu.cuda.index import raw
from mlgpu.cuda.launch import Strided, blocks, launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError

_PLACES = np.dtype([(name, np.int64, 8) for name in ("size", "limit", "step", "start")])
_REVERSE, _ROLL, _PAD = range(3)


class _Dim(NamedTuple):
    """One dimension: its size, the source's size and step, and where the source begins."""

    size: int
    limit: int
    step: int
    start: int

    @property
    def untouched(self) -> bool:
        return self.start == 0 and self.size == self.limit


def flip(x: Any, dims: Sequence[int]) -> Any:
    """x with the dimensions named in reverse."""
    steps = [s // x.itemsize for s in x.strides]
    base = sum((x.shape[d] - 1) * steps[d] for d in dims)
    return _arranged(_REVERSE, x, [
        _Dim(n, n, -s if d in dims else s, 0)
        for d, (n, s) in enumerate(zip(x.shape, steps, strict=True))], base)


def roll(x: Any, shifts: Sequence[int], dims: Sequence[int]) -> Any:
    """x moved along dimensions, around the end; shifts of a dimension named twice add up."""
    moved = [0] * x.ndim
    for shift, d in zip(shifts, dims, strict=True):
        moved[d] += shift
    return _arranged(_ROLL, x, [
        _Dim(n, n, s // x.itemsize, moved[d] % n if n else 0)
        for d, (n, s) in enumerate(zip(x.shape, x.strides, strict=True))])


def pad(x: Any, ends: Sequence[tuple[int, int]], value: complex) -> Any:
    """x with so many elements of `value` added (negative: removed) at both ends of dimensions."""
    return _arranged(_PAD, x, [
        _Dim(n + low + high, n, s // x.itemsize, low)
        for n, s, (low, high) in zip(x.shape, x.strides, ends, strict=True)], value=value)


def _arranged(mode: int, x: Any, dims: list[_Dim], base: int = 0, value: complex = 0) -> Any:
    out = empty([d.size for d in dims], x.dtype)
    if not out.size:
        return out
    fill = np.asarray(value).astype(x.dtype)
    y, x = raw(out), raw(x)
    dims = _merged(dims)
    if len(dims) > 8:
        raise ShapeError("flip, roll, pad, tril, triu: on CUDA at most 8 dimensions that cannot "
                         f"be joined, got {len(dims)} of shape {out.shape}; reshape those that "
                         "are left as they are into one, or move the tensor with .cpu()")
    last = dims[-1]
    width = rows.vector(last.size, y, x) if last.step == 1 else 1
    while any(n % width for n in (base, last.limit, last.start, *(d.step for d in dims[:-1]))):
        width //= 2
    places = np.zeros(1, _PLACES)
    for name in ("size", "limit", "step", "start"):
        places[name][0, :len(dims)] = [getattr(d, name) for d in dims]
    launch("arrange", f"arrange<{ctype(y.dtype)}, {width}, {len(dims)}, {mode}>",
           blocks(y.size // width, 256), 256,
           (y, Strided(x), y.size // width, base, places, fill.reshape(1).view(y.dtype)[0]))
    return out


def _merged(dims: list[_Dim]) -> list[_Dim]:
    """Fewer dimensions: an untouched one joins that before it where they lie side by side."""
    merged: list[_Dim] = []
    for dim in dims:
        if dim.size == 1 and dim.untouched:
            continue
        if merged and dim.untouched and merged[-1].step == dim.step * dim.size:
            before, n = merged[-1], dim.size
            merged[-1] = _Dim(before.size * n, before.limit * n, dim.step, before.start * n)
        else:
            merged.append(dim)
    return merged or [_Dim(1, 1, 1, 0)]


def triangle(out: Any, x: Any, offset: int, lower: bool) -> None:
    """The matrices of x with zeros above (lower) or below the diagonal `offset`; out may be x."""
    if not out.size:
        return
    y, x = raw(out), raw(contiguous(x))
    height, columns = y.shape[-2:]
    width = rows.vector(columns, y, x)
    launch("arrange", f"triangle<{ctype(y.dtype)}, {width}>", blocks(y.size // width, 256), 256,
           (y, x, y.size // width, height, columns, offset, lower))
