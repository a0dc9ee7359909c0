"""Pooling of regions of feature maps, under the names of torchvision.ops."""

from __future__ import annotations

from collections.abc import Sequence

from mlgpu.autograd.mode import is_grad_enabled
from mlgpu.dtypes import compute_dtype
from mlgpu.errors import DerivativeError, DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.creation import full
from mlgpu.ops.join import cat
from mlgpu.ops.roi import RoiAlign, RoiPool
from mlgpu.tensor import Tensor

__all__ = ["roi_align", "roi_pool"]


def roi_align(input: Tensor, boxes: Tensor | Sequence[Tensor], output_size: int | Sequence[int],
              spatial_scale: float = 1.0, sampling_ratio: int = -1, aligned: bool = False
              ) -> Tensor:
    """Each box of feature maps (n, c, h, w) as a grid of bins: (k, c, *output_size).

    boxes: (k, 5) of image, x1, y1, x2, y2, or for each image (k_i, 4).  Coordinates times
    `spatial_scale` are places on the map: element i is at i, or with `aligned` at i + 1/2.  A bin
    is the mean of sampling_ratio^2 samples, interpolated bilinearly; without a positive ratio of
    as many along each axis as the bin has elements (at most 1,024).  Boxes have no gradient: those
    that require one are refused (DerivativeError).  The gradient of the maps repeats bit by bit,
    and can be differentiated again.  He et al. 2017.  Raises ShapeError, DTypeError, PositionError.
    """
    size, regions = _checked("roi_align", input, boxes, output_size)
    op = RoiAlign(size, float(spatial_scale), max(0, int(sampling_ratio)), bool(aligned))
    return run(op, input, regions)  # type: ignore[no-any-return]


def roi_pool(input: Tensor, boxes: Tensor | Sequence[Tensor], output_size: int | Sequence[int],
             spatial_scale: float = 1.0) -> Tensor:
    """The largest element of each bin of each box of (n, c, h, w): (k, c, *output_size).

    Boxes as in `roi_align`, times `spatial_scale` and rounded; their last elements belong to them.
    Bins overlap where they do not divide a box; one beyond the map is 0.  NaN wins.  No second
    derivative.  Girshick 2015.  Raises ShapeError, DTypeError, DerivativeError, PositionError.
    """
    size, regions = _checked("roi_pool", input, boxes, output_size)
    return run(RoiPool(size, float(spatial_scale)), input, regions)  # type: ignore[no-any-return]


def _checked(name: str, input: Tensor, boxes: Tensor | Sequence[Tensor],
             output_size: int | Sequence[int]) -> tuple[tuple[int, int], Tensor]:
    """The number of bins, and the boxes as (k, 5) in the dtype that the maps are computed in."""
    rows, columns = (output_size,) * 2 if isinstance(output_size, int) else output_size
    if rows < 1 or columns < 1:
        raise ShapeError(f"{name}: output_size must be positive, got {output_size}")
    if input.ndim != 4 or 0 in input.shape[1:]:
        raise ShapeError(f"{name}: expected feature maps (n, c, h, w), not empty, got "
                         f"{tuple(input.shape)}")
    if isinstance(boxes, Tensor):
        regions = boxes
    else:
        _check_each(name, input, boxes)
        numbered = [cat([full((len(b), 1), i, dtype=b.dtype, device=b.device), b], 1)
                    for i, b in enumerate(boxes)]
        regions = cat(numbered) if numbered else input.new_empty(0, 5)
    if regions.ndim != 2 or regions.shape[1] != 5:
        raise ShapeError(f"{name}: boxes must be (k, 5) with their images first, or for each image "
                         f"(k, 4), got {tuple(regions.shape)}")
    if not input.is_floating_point() or not regions.is_floating_point():
        raise DTypeError(f"{name}: feature maps and boxes must be floating, got "
                         f"{input.dtype.name} and {regions.dtype.name}; convert with .float()")
    if regions.requires_grad and is_grad_enabled():
        raise DerivativeError(f"{name}: boxes have no gradient; detach() them")
    return (int(rows), int(columns)), regions.detach().to(compute_dtype(input.dtype))


def _check_each(name: str, input: Tensor, boxes: Sequence[Tensor]) -> None:
    shapes = [tuple(b.shape) for b in boxes]
    if len(boxes) != len(input) or any(len(s) != 2 or s[1] != 4 for s in shapes):
        raise ShapeError(f"{name}: boxes must be (k, 4) for each of {len(input)} images, got "
                         f"{shapes}")
