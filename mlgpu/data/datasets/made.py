"""Points to classify, under scikit-learn's names: moons, circles and blobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.data.sampler import permutation
from mlgpu.errors import ShapeError
from mlgpu.ops.interop import from_numpy
from mlgpu.ops.random import rand, randn
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

__all__ = ["make_blobs", "make_circles", "make_moons"]

Points = tuple[Tensor, Tensor]


def make_moons(n_samples: int | tuple[int, int] = 100, *, shuffle: bool = True,
               noise: float | None = None, generator: Generator | None = None) -> Points:
    """Two half circles that reach into each other: points (N, 2) float32, classes (N,) int64.

    n_samples: of both, or of each.  noise: the standard deviation of what is added.
    """
    outer, inner = _counts("make_moons", n_samples)
    a, b = np.linspace(0, np.pi, outer), np.linspace(0, np.pi, inner)
    return _made([np.stack([np.cos(a), np.sin(a)], 1),
                  np.stack([1 - np.cos(b), 0.5 - np.sin(b)], 1)], shuffle, noise, generator)


def make_circles(n_samples: int | tuple[int, int] = 100, *, shuffle: bool = True,
                 noise: float | None = None, factor: float = 0.8,
                 generator: Generator | None = None) -> Points:
    """A circle around another: points (N, 2) float32, classes (N,) int64, 1 for the inner one.

    factor: the inner radius, of an outer one of 1.  Else as make_moons.
    """
    if not 0 <= factor < 1:
        raise ValueError(f"make_circles: factor must be in [0, 1), got {factor}")
    parts = []
    for radius, count in zip((1.0, factor), _counts("make_circles", n_samples), strict=True):
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        parts.append(radius * np.stack([np.cos(angle), np.sin(angle)], 1))
    return _made(parts, shuffle, noise, generator)


def make_blobs(n_samples: int | Sequence[int] = 100, n_features: int = 2, *,
               centers: int | Sequence[Sequence[float]] | Tensor = 3,
               cluster_std: float | Sequence[float] = 1.0,
               center_box: tuple[float, float] = (-10.0, 10.0), shuffle: bool = True,
               generator: Generator | None = None) -> Points:
    """Normal clouds around centres: points (N, n_features) float32, classes (N,) int64.

    n_samples: of all clouds, or of each.  centers: how many, drawn from `center_box`, or where they
    are (K, n_features).  cluster_std: the standard deviation of all, or of each.
    """
    if isinstance(centers, int):
        count = centers if isinstance(n_samples, int) else len(n_samples)
        low, high = center_box
        middle = low + (high - low) * _array(rand(count, n_features, generator=generator,
                                                  device="cpu"))
    else:
        middle = _array(centers) if isinstance(centers, Tensor) else np.asarray(centers, float)
        if middle.ndim != 2:
            raise ShapeError("make_blobs: centers must be (number, features), got the shape "
                             f"{middle.shape}")
        count, n_features = middle.shape
    if isinstance(n_samples, int):
        n_samples = [n_samples // count + (i < n_samples % count) for i in range(count)]
    spreads = [cluster_std] * count if isinstance(cluster_std, (int, float)) else cluster_std
    if not len(n_samples) == len(spreads) == count:
        raise ShapeError(f"make_blobs: {count} centres need as many n_samples and cluster_std, got "
                         f"{len(n_samples)} and {len(spreads)}")
    parts = [center + spread * _array(randn(n, n_features, generator=generator, device="cpu"))
             for center, spread, n in zip(middle, spreads, n_samples, strict=True)]
    return _made(parts, shuffle, None, generator)


def _counts(name: str, n_samples: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(n_samples, int):
        return n_samples // 2, math.ceil(n_samples / 2)
    if len(n_samples) != 2:
        raise ShapeError(f"{name}: n_samples is one number or two, got {n_samples}")
    return n_samples[0], n_samples[1]


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    return values.detach().cpu().numpy().astype(np.float64)


def _made(parts: Sequence[np.ndarray[Any, Any]], shuffle: bool, noise: float | None,
          generator: Generator | None) -> Points:
    points = np.concatenate(parts)
    classes = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if noise is not None:
        points = points + noise * _array(randn(*points.shape, generator=generator, device="cpu"))
    if shuffle:
        order = permutation(len(points), generator)
        points, classes = points[order], classes[order]
    return from_numpy(points.astype(np.float32)), from_numpy(classes.astype(np.int64))
