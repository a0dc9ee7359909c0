"""Reductions of segments of different lengths, which stand one after the other in a dimension."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.choice import where
from mlgpu.ops.creation import arange, full, zeros
from mlgpu.ops.join import cat
from mlgpu.ops.linalg_check import check_floating
from mlgpu.ops.scan import cumsum, diff
from mlgpu.ops.scatter import scatter_reduce
from mlgpu.ops.search import searchsorted
from mlgpu.tensor import Tensor

__all__ = ["segment_reduce"]

# What a segment of no elements gives, and the reduction's name for scatter_reduce.
_REDUCTIONS = {"sum": (0.0, "sum"), "mean": (0.0, "sum"), "prod": (1.0, "prod"),
               "max": (-math.inf, "amax"), "min": (math.inf, "amin")}


def segment_reduce(data: Tensor, reduce: str, *, lengths: Tensor | None = None,
                   indices: None = None, offsets: Tensor | None = None, axis: int = 0,
                   unsafe: bool = False, initial: Any = None) -> Tensor:
    """sum, mean, max, min or prod of each segment of dimension `axis`, which becomes theirs.

    lengths: integers (*data.shape[:axis], segments), or offsets: where they begin and the last one
    ends, (*data.shape[:axis], segments + 1).  `initial` takes part in each; without it a segment of
    no elements gives 0, NaN, -inf, inf or 1.  The gradient of a maximum or minimum is shared by
    equal elements.  Lengths must add up to the dimension's, which is read on the host; with
    `unsafe` what comes after the last segment is left out.  Raises ShapeError, DTypeError.
    """
    op = "segment_reduce"
    check_floating(op, data, half=True)
    if reduce not in _REDUCTIONS:
        raise ShapeError(f"{op}: reduce must be one of {', '.join(_REDUCTIONS)}, got {reduce!r}")
    places = offsets if lengths is None else lengths
    if indices is not None or places is None:
        raise ShapeError(f"{op}: give either lengths or offsets")
    if places.dtype.kind != "int":
        raise DTypeError(f"{op}: lengths and offsets must be integers, got {places.dtype.name}")
    axis = axis + data.ndim if axis < 0 else axis
    if places.ndim != axis + 1 or places.shape[:axis] != data.shape[:axis]:
        raise ShapeError(f"{op}: lengths or offsets must be {tuple(data.shape[:axis])} and their "
                         f"number for axis {axis} of {tuple(data.shape)}, got "
                         f"{tuple(places.shape)}")
    places = places.long()
    n = data.shape[axis]
    if lengths is not None:
        if not unsafe and (bool((places < 0).any()) or bool((places.sum(-1) != n).any())):
            raise ShapeError(f"{op}: lengths must be >= 0 and add up to {n}, the length of "
                             f"dimension {axis}, got {places.tolist()}")
        first = zeros(*places.shape[:-1], 1, dtype=places.dtype, device=places.device)
        offsets = cat([first, cumsum(places, -1)], -1)
    else:
        offsets = places
    return _reduced(data, reduce, offsets, axis, initial)


def _reduced(data: Tensor, reduce: str, offsets: Tensor, axis: int, initial: Any) -> Tensor:
    count = offsets.shape[-1] - 1
    lead, rest = data.shape[:axis], data.shape[axis + 1:]
    positions = arange(data.shape[axis], device=data.device).expand(*lead, -1).contiguous()
    # 0 is what comes before the first segment, count + 1 what comes after the last.
    segment = searchsorted(offsets.contiguous(), positions, right=True)
    index = segment.reshape(*segment.shape, *[1] * len(rest)).expand(data.shape)
    empty, name = _REDUCTIONS[reduce]
    target = full((*lead, count + 2, *rest), empty, dtype=data.dtype, device=data.device)
    out = scatter_reduce(target, axis, index, data, name).narrow(axis, 1, count)
    if initial is not None:
        if reduce in ("max", "min"):
            worse = out < initial if reduce == "max" else out > initial
            out = where(worse, full((), initial, dtype=out.dtype, device=out.device), out)
        else:
            out = out * initial if reduce == "prod" else out + initial
    if reduce == "mean":
        sizes = diff(offsets).reshape(*lead, count, *[1] * len(rest))
        out = out / (sizes if initial is None else sizes.clamp_min(1)).to(out.dtype)
    return out
