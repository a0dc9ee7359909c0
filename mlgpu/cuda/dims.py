"""Dimensions of strided arrays as kernels take them: few, in the order of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST = 4  # dimensions that `ml_dims` of kernels/dims.cuh has

_STRUCT = np.dtype([("size", "i8", MOST), ("stride", "i8", MOST), ("multiplier", "u8", MOST),
                    ("shift", "i4", MOST), ("count", "i4")], align=True)


class Dim(NamedTuple):
    """A dimension of an input, and its stride in the result; strides are of elements."""

    size: int
    stride: int
    place: int
    reduced: bool


def ml_dims(sizes: Iterable[int], strides: Iterable[int]) -> Any:
    """The struct of kernels/dims.cuh; no dimensions are one of size 1."""
    # The kernel cannot divide by 1.
    dims = [(n, step) for n, step in zip(sizes, strides, strict=True) if n != 1] or [(1, 0)]
    sizes, strides = zip(*dims, strict=True)
    made = np.zeros((), _STRUCT)
    made["count"] = len(sizes)
    for d, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        made["size"][d], made["stride"][d] = size, stride
        if size > 1:
            shift = (size - 1).bit_length()
            made["shift"][d] = shift
            made["multiplier"][d] = -(-(1 << (63 + shift)) // size)
    return made


def collapsed(shape: Sequence[int], strides: Sequence[int], places: Sequence[int],
              reduced: Sequence[bool]) -> list[Dim]:
    """The dimensions in the order of memory, outermost first, those that follow on each other
    joined and those of size 1 left out."""
    dims = [Dim(*dim) for dim in zip(shape, strides, places, reduced, strict=True) if dim[0] != 1]
    dims.sort(key=lambda dim: -abs(dim.stride))
    joined: list[Dim] = []
    for dim in dims:
        if joined:
            last = joined[-1]
            if (last.reduced == dim.reduced and last.stride == dim.stride * dim.size
                    and (dim.reduced or last.place == dim.place * dim.size)):
                joined[-1] = dim._replace(size=last.size * dim.size)
                continue
        joined.append(dim)
    return joined
