"""Rows for the interpolation in mlgpu/ops/resample.py, and for grid_sample.py."""

from __future__ import annotations

import itertools
import math

import numpy as np
from table.case import FLOATS, In, both

# --- interpolation: one matrix of weights for each axis -------------------------------------------


def cubic(distance, a):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def triangle(distance):
    return max(0.0, 1 - abs(distance))


def nearest_weights(n, m, scale, exact):
    weights = np.zeros((m, n))
    for i in range(m):
        weights[i, min(n - 1, math.floor((i + 0.5 * exact) * scale))] = 1
    return weights


def area_weights(n, m):
    weights = np.zeros((m, n))
    for i in range(m):
        inside = slice(i * n // m, -(-(i + 1) * n // m))
        weights[i, inside] = 1 / (inside.stop - inside.start)
    return weights


def smooth_weights(n, m, scale, taps, align):
    weights = np.zeros((m, n))
    for i in range(m):
        place = i * (n - 1) / max(1, m - 1) if align else (i + 0.5) * scale - 0.5
        if taps == 2:
            place = max(place, 0.0)
        first = math.floor(place)
        for tap in range(first - taps // 2 + 1, first + taps // 2 + 1):
            weight = triangle(tap - place) if taps == 2 else cubic(tap - place, -0.75)
            weights[i, min(max(tap, 0), n - 1)] += weight
    return weights


def antialias_weights(n, m, scale, taps, align):
    if align:
        scale = (n - 1) / (m - 1) if m > 1 else 0.0
    weights = np.zeros((m, n))
    wide = max(1.0, scale)
    for i in range(m):
        center = (i + 0.5) * scale
        for j in range(n):
            if abs(j + 0.5 - center) < taps / 2 * wide:
                distance = (j + 0.5 - center) / wide
                weights[i, j] = triangle(distance) if taps == 2 else cubic(distance, -0.5)
    return weights / weights.sum(1, keepdims=True)


def interpolated(x, size=None, scale_factor=None, mode="nearest", align_corners=False,
                 recompute_scale_factor=False, antialias=False):
    axes = x.ndim - 2
    factors = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * axes
    sizes = size if isinstance(size, tuple) else (size,) * axes
    for axis, m, factor in zip(range(2, x.ndim), sizes, factors, strict=True):
        n = x.shape[axis]
        m = math.floor(n * factor) if m is None else m
        scale = 1 / factor if factor and not recompute_scale_factor else n / m
        if mode == "area":
            weights = area_weights(n, m)
        elif mode.startswith("nearest"):
            weights = nearest_weights(n, m, scale, mode == "nearest-exact")
        else:
            build = antialias_weights if antialias else smooth_weights
            weights = build(n, m, scale, 4 if mode == "bicubic" else 2, align_corners)
        x = np.moveaxis(np.tensordot(x, weights, (axis, 1)), -1, axis)
    return x


SHAPES = {1: (2, 3, 7), 2: (2, 2, 5, 7), 3: (1, 2, 3, 5, 4)}
SMOOTH = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resized(mode, axes, tag, shape=None, dtypes=FLOATS, **options):
    return both(f"interpolate-{mode} {axes}d {tag}",
                lambda library, x: library.nn.functional.interpolate(x, mode=mode, **options),
                lambda x: interpolated(x, mode=mode, **options), (In(shape or SHAPES[axes]),),
                dtypes=dtypes)


def mode_rows(mode, axes):
    up = {1: (11,), 2: (8, 11), 3: (5, 6, 7)}[axes]
    down = {1: (3,), 2: (3, 4), 3: (2, 3, 3)}[axes]
    yield resized(mode, axes, "up", size=up)
    yield resized(mode, axes, "down", size=down)
    yield resized(mode, axes, "number", size=6)
    yield resized(mode, axes, "same", size=SHAPES[axes][2:])
    yield resized(mode, axes, "one", size=1)
    yield resized(mode, axes, "from one", (2, 3, *(1,) * axes), size=3)
    yield resized(mode, axes, "twice", scale_factor=2)
    yield resized(mode, axes, "factor", scale_factor=1.7)
    yield resized(mode, axes, "factors", scale_factor=(0.6, 1.3, 2.5)[:axes])
    yield resized(mode, axes, "recompute", scale_factor=1.7, recompute_scale_factor=True)
    if mode in SMOOTH.values() or mode == "bicubic":
        for tag, size in (("up", up), ("down", down), ("one", 1)):
            yield resized(mode, axes, f"corners {tag}", size=size, align_corners=True)
        yield resized(mode, axes, "corners factor", scale_factor=1.7, align_corners=True)


def antialiased(mode):
    for tag, size in (("up", (8, 11)), ("down", (2, 3)), ("one", 1), ("mixed", (9, 3))):
        for align in (False, True):
            yield resized(mode, 2, f"antialias {tag}{' corners' * align}", size=size,
                          antialias=True, align_corners=align)
    yield resized(mode, 2, "antialias factor", scale_factor=0.4, antialias=True)


# --- sampling at the places of a grid -------------------------------------------------------------


def reflected(place, low, high):
    """`place` thrown back at both ends until it lies between them."""
    while high > low and not low <= place <= high:
        place = 2 * low - place if place < low else 2 * high - place
    return place if high > low else 0.0


def inside(place, n, padding, align):
    if padding == "border":
        return min(max(place, 0), n - 1)
    if padding == "reflection":
        low, high = (0, n - 1) if align else (-0.5, n - 0.5)
        return min(max(reflected(place, low, high), 0), n - 1)
    return place


def axis_taps(coordinate, n, mode, padding, align):
    """The elements that one coordinate sees, with their weights."""
    place = (coordinate + 1) / 2 * (n - 1) if align else ((coordinate + 1) * n - 1) / 2
    if mode == "bicubic":
        first = math.floor(place)
        return [(int(inside(tap, n, padding, align)), cubic(tap - place, -0.75))
                for tap in range(first - 1, first + 3)]
    place = inside(place, n, padding, align)
    if mode == "nearest":
        return [(round(place), 1.0)]
    return [(math.floor(place) + tap, triangle(math.floor(place) + tap - place)) for tap in (0, 1)]


def sampled(x, grid, mode, padding, align):
    sizes = x.shape[2:]
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for n, *place in np.ndindex(*grid.shape[:-1]):
        taps = [axis_taps(c, size, mode, padding, align)
                for c, size in zip(grid[(n, *place)][::-1], sizes, strict=True)]
        for tap in itertools.product(*taps):
            index = tuple(i for i, _ in tap)
            if all(0 <= i < size for i, size in zip(index, sizes, strict=True)):
                out[(n, slice(None), *place)] += (
                    math.prod(w for _, w in tap) * x[(n, slice(None), *index)])
    return out


def places(rng, shape):
    """Inside, outside, and far outside; away from where the sampled elements change."""
    return rng.choice([-1.83, -1.21, -0.913, -0.527, -0.111, 0.239, 0.587, 0.777, 1.113, 2.3],
                      shape)


def sampling(mode, padding, align, axes):
    image, grid = In((2, 2, *(5, 4, 3)[:axes])), In((2, *(3, 2, 3)[:axes], axes), make=places)
    return both(f"grid_sample-{mode} {padding} {axes}d{' corners' * align}",
                lambda library, x, g: library.nn.functional.grid_sample(x, g, mode, padding, align),
                lambda x, g: sampled(x, g, mode, padding, align), (image, grid), second=False)


def samplings():
    modes = [(mode, axes) for mode in ("bilinear", "nearest") for axes in (2, 3)]
    for mode, axes in (*modes, ("bicubic", 2)):
        for padding in ("zeros", "border", "reflection"):
            yield sampling(mode, padding, False, axes)
            yield sampling(mode, padding, True, axes)


# --- affine maps ----------------------------------------------------------------------------------


def affine_places(theta, size, align):
    axes = []
    for n in size[2:]:
        line = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        axes.append(line if align else line * (n - 1) / n)
    mesh = np.meshgrid(*axes, indexing="ij")
    base = np.stack([*mesh[::-1], np.ones(size[2:])], -1)
    return np.einsum("nij,...j->n...i", theta, base)


def affine(tag, size, align):
    axes = len(size) - 2
    return both(f"affine_grid-{tag}{' corners' * align}",
                lambda library, theta: library.nn.functional.affine_grid(theta, size, align),
                lambda theta: affine_places(theta, size, align), (In((size[0], axes, axes + 1)),))


CASES = [
    *[case for mode in ("nearest", "nearest-exact", "area") for axes in (1, 2, 3)
      for case in mode_rows(mode, axes)],
    *[case for axes, mode in SMOOTH.items() for case in mode_rows(mode, axes)],
    *mode_rows("bicubic", 2),
    *antialiased("bilinear"),
    *antialiased("bicubic"),
    *samplings(),
    *[affine(f"{len(size) - 2}d", size, align) for size in ((2, 1, 3, 4), (2, 3, 2, 3, 4))
      for align in (False, True)],
    *[affine("one", (1, 1, 1, 3), align) for align in (False, True)],
]
