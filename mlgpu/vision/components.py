"""Connected components of images, and what can be said of each."""

from __future__ import annotations

from typing import NamedTuple

from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.choice import clamp_min, where
from mlgpu.ops.components import ConnectedComponents, MeasureComponents
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

__all__ = ["ComponentStats", "connected_components", "connected_components_with_stats"]


class ComponentStats(NamedTuple):
    """Of images (...): row 0 is the background, row i component i; the largest count decides how
    many rows there are, and those an image has no component for are 0."""

    counts: Tensor  # (...) int64: components, without the background
    areas: Tensor  # (..., rows) int64: pixels
    boxes: Tensor  # (..., rows, 4) int64: x1, y1, x2, y2, the last ones inside
    centroids: Tensor  # (..., rows, 2) float32: the mean x and y


def connected_components(input: Tensor, connectivity: int = 8) -> Tensor:
    """Numbers of the components of what is not zero in images (..., h, w): int64, zeros 0.

    In each image they count from 1 by the components' first pixels, row by row.  `connectivity`:
    with 4 pixels touch at their sides, with 8 also at their corners.  Union-find (Playne and Hawick
    2018).  Raises ShapeError, DTypeError for complex numbers.
    """
    labels, _ = _labelled("connected_components", input, connectivity)
    return labels.reshape(input.shape)


def connected_components_with_stats(input: Tensor, connectivity: int = 8
                                    ) -> tuple[Tensor, ComponentStats]:
    """`connected_components`, and the components' areas, boxes and centroids.

    On a device, how many components there are is waited for.
    """
    labels, count = _labelled("connected_components_with_stats", input, connectivity)
    kinds = 1 + (int(count.max().item()) if len(count) else 0)
    area, low, high, sums = run(MeasureComponents(kinds), labels)
    there = (area > 0).unsqueeze(-1)
    boxes = where(there, cat([low, high], -1), 0)
    centroids = (sums.double() / clamp_min(area, 1).unsqueeze(-1)).float()
    lead = tuple(input.shape[:-2])
    return labels.reshape(input.shape), ComponentStats(
        count.reshape(lead), area.reshape(*lead, kinds), boxes.reshape(*lead, kinds, 4),
        centroids.reshape(*lead, kinds, 2))


def _labelled(name: str, input: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    if connectivity not in (4, 8):
        raise ShapeError(f"{name}: connectivity must be 4 or 8, got {connectivity!r}")
    if input.ndim < 2 or input.shape[-1] * input.shape[-2] >= 2**31:
        raise ShapeError(f"{name}: expected images (..., h, w) of less than 2^31 pixels, got "
                         f"{tuple(input.shape)}")
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: expected numbers or truth values, got {input.dtype.name}")
    images = 1
    for size in input.shape[:-2]:
        images *= size
    return run(ConnectedComponents(connectivity == 8),  # type: ignore[no-any-return]
               input.detach().reshape(images, *input.shape[-2:]))
