"""The geometry of a convolution as its kernels take it; see kernels/conv.cuh."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from mlgpu.ops.window import Ints, Windows

DIVISOR = np.dtype([("value", "i4"), ("factor", "u4"), ("shift", "i4")], align=True)
MAP = np.dtype([
    *[(name, "i4", 3) for name in ("source", "scale", "offset", "step", "target", "spread",
                                   "shift")],
    ("lattice", DIVISOR, 3), ("taps", DIVISOR, 3), ("count", DIVISOR),
    *[(name, "i4") for name in ("images", "groups", "channels", "rows", "pitch")],
    ("weigh", "i4", 3), ("weigh_first", "i4")], align=True)
RIGHT = np.dtype([*[(name, "i4") for name in ("offset", "channels", "weigh_first")],
                  ("taps", DIVISOR), ("count", DIVISOR)], align=True)
PACK = np.dtype([*[(name, "i4") for name in ("groups", "rows", "channels")],
                 *[(name, "i4", 3) for name in ("kernel", "first", "step", "taps")]], align=True)


def divisor(value: int) -> tuple[int, int, int]:
    """What conv_divide multiplies with and shifts by (Granlund and Montgomery 1994)."""
    shift = (value - 1).bit_length()
    return value, (2**32 * (2**shift - value)) // value + 1, shift


class Axis(NamedTuple):
    """One axis of a lattice of target positions: `places` of them at u * spread + shift, which see
    u * scale + offset + tap * step of the source; `first` and `stride` say which taps these are."""

    source: int
    target: int
    places: int
    spread: int
    shift: int
    scale: int
    offset: int
    step: int
    taps: int
    first: int
    stride: int


@lru_cache(maxsize=512)
def forward_axes(win: Windows) -> tuple[Axis, ...]:
    """The small grid sees the large one."""
    sizes = zip(win.large, win.small, win.kernel, win.stride, win.dilation, win.before, strict=True)
    return tuple(Axis(large, small, small, 1, 0, s, -b, d, k, 0, 1)
                 for large, small, k, s, d, b in sizes)


@lru_cache(maxsize=512)
def backward_axes(win: Windows) -> tuple[tuple[Axis, ...], ...]:
    """The large grid sees the small one: a lattice for each remainder of the strides.

    Element s u + r is seen through tap t by position (s u + r + before - t dilation) / s, if whole.
    Each lattice is a dense convolution with the taps for which it is.
    """
    axes = []
    sizes = zip(win.large, win.small, win.kernel, win.stride, win.dilation, win.before, strict=True)
    for large, small, k, s, d, b in sizes:
        common = math.gcd(s, d)
        found = []
        for r in range(min(s, large)):
            taps = [t for t in range(k) if (r + b - t * d) % s == 0]
            first = taps[0] if taps else 0
            found.append(Axis(small, large, -(-(large - r) // s), s, r, 1, (r + b - first * d) // s,
                              -(d // common), len(taps), first, s // common))
        axes.append(found)
    return tuple(product(*axes))


@lru_cache(maxsize=1024)
def conv_map(axes: tuple[Axis, ...], images: int, groups: int, channels: int, rows: int,
             pitch: int, kernel: Ints = ()) -> Any:
    """The struct conv_map.  Without taps there are no channels to sum over.  `kernel`: the sizes of
    the weight whose taps those of the axes are, where they are not all in their order."""
    one = np.zeros(1, MAP)
    count = math.prod(a.taps for a in axes)
    for d, a in enumerate(axes):
        for name in ("source", "scale", "offset", "step", "target", "spread", "shift"):
            one[name][0, d] = getattr(a, name)
        one["lattice"][0, d] = divisor(a.places)
        one["taps"][0, d] = divisor(max(1, a.taps))
    one["count"][0] = divisor(max(1, count))
    one["images"], one["groups"], one["rows"], one["pitch"] = images, groups, rows, pitch
    one["channels"] = channels if count else 0
    for d, (a, _) in enumerate(zip(axes, kernel, strict=False)):
        step = math.prod(kernel[d + 1:])
        one["weigh"][0, d] = a.stride * step
        one["weigh_first"] += a.first * step
    return one


@lru_cache(maxsize=512)
def right_map(axes: tuple[Axis, ...], channels: int, kernel: Ints) -> Any:
    """The struct conv_right of kernels/conv_pairs.cu."""
    whole = conv_map(axes, 1, 1, channels, 1, 0, kernel)
    one = np.zeros(1, RIGHT)
    one["taps"], one["count"] = whole["taps"][:, len(axes) - 1], whole["count"]
    one["offset"] = axes[-1].offset
    one["channels"], one["weigh_first"] = whole["channels"], whole["weigh_first"]
    return one


@lru_cache(maxsize=1024)
def pack_map(axes: tuple[Axis, ...], kernel: Ints, groups: int, channels: int, rows: int) -> Any:
    """The struct conv_pack_map."""
    one = np.zeros(1, PACK)
    one["groups"], one["rows"], one["channels"] = groups, rows, channels
    for name in ("kernel", "step", "taps"):
        one[name] = 1
    for d, a in enumerate(axes):
        one["kernel"][0, d] = kernel[d]
        one["first"][0, d], one["step"][0, d], one["taps"][0, d] = a.first, a.stride, a.taps
    return one


def positions(axes: tuple[Axis, ...], images: int) -> int:
    """How many positions the lattices of all images have."""
    return images * math.prod(a.places for a in axes)


def image_blocks(axes: tuple[Axis, ...], images: int) -> Iterator[tuple[int, int]]:
    """Ranges of images whose positions, and a tile more, can be counted in 31 bits."""
    most = max(1, (2**31 - 2**12) // max(1, positions(axes, 1)))
    for start in range(0, images, most):
        yield start, min(images, start + most)
