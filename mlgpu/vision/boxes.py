"""Boxes of objects in images, under the names of torchvision.ops: corners (x1, y1, x2, y2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mlgpu.autograd.mode import no_grad
from mlgpu.dtypes import compute_dtype
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.arithmetic import div
from mlgpu.ops.choice import clamp, clamp_min, maximum, minimum, where
from mlgpu.ops.creation import arange
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import square
from mlgpu.ops.index import nonzero
from mlgpu.ops.join import stack
from mlgpu.ops.trigonometry import atan
from mlgpu.tensor import Tensor

__all__ = ["box_area", "box_convert", "box_iou", "clip_boxes_to_image", "complete_box_iou",
           "distance_box_iou", "generalized_box_iou", "masks_to_boxes", "remove_small_boxes"]

FORMATS = ("xyxy", "xywh", "cxcywh")


def check_boxes(name: str, *boxes: Tensor) -> None:
    """Raise unless these are boxes (..., 4) of numbers."""
    for each in boxes:
        if each.ndim < 1 or each.shape[-1] != 4:
            raise ShapeError(f"{name}: boxes must be (..., 4), got {tuple(each.shape)}")
        if each.dtype.kind not in ("int", "float"):
            raise DTypeError(f"{name}: boxes must be integers or floating, got {each.dtype.name}")


def _roomy(boxes: Tensor) -> Tensor:
    """Boxes in a dtype that their areas fit into."""
    if boxes.is_floating_point():
        return boxes.to(compute_dtype(boxes.dtype))
    return boxes.long()


# --- of one set of boxes --------------------------------------------------------------------------


@elementwise
def _area(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    return (x2 - x1) * (y2 - y1)


def box_area(boxes: Tensor) -> Tensor:
    """The area of each box: (..., 4) to (...), float32 for half types and int64 for integers.

    Raises ShapeError, DTypeError.
    """
    check_boxes("box_area", boxes)
    found: Tensor = _area(*_roomy(boxes).unbind(-1))
    return found


@elementwise
def _sized(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    return x1, y1, x2 - x1, y2 - y1


@elementwise
def _centred(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


@elementwise
def _from_size(x: Any, y: Any, w: Any, h: Any) -> Any:
    return x, y, x + w, y + h


@elementwise
def _from_centre(x: Any, y: Any, w: Any, h: Any) -> Any:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


_TO: dict[str, Callable[..., Any]] = {"xywh": _sized, "cxcywh": _centred}
_FROM: dict[str, Callable[..., Any]] = {"xywh": _from_size, "cxcywh": _from_centre}


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Boxes (..., 4) in another format.

    xyxy: two corners; xywh: the first corner, width and height; cxcywh: the centre, width and
    height.  Raises ShapeError for another format, DTypeError for a centre of integers.
    """
    check_boxes("box_convert", boxes)
    if in_fmt not in FORMATS or out_fmt not in FORMATS:
        raise ShapeError(f"box_convert: formats are {', '.join(FORMATS)}, got {in_fmt!r} and "
                         f"{out_fmt!r}")
    if in_fmt == out_fmt:
        return boxes.clone()
    if "cxcywh" in (in_fmt, out_fmt) and not boxes.dtype.is_floating_point:
        raise DTypeError(f"box_convert: the centre of integers may be none, got "
                         f"{boxes.dtype.name}; convert with .float()")
    for way in (_FROM.get(in_fmt), _TO.get(out_fmt)):
        if way is not None:
            boxes = stack(way(*boxes.unbind(-1)), -1)
    return boxes


def clip_boxes_to_image(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (..., 4) cut off at the edges of an image of `size` (height, width)."""
    check_boxes("clip_boxes_to_image", boxes)
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return stack([clamp(x1, 0, width), clamp(y1, 0, height), clamp(x2, 0, width),
                  clamp(y2, 0, height)], -1)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """The places, int64, of boxes (n, 4) whose sides both are at least `min_size`."""
    check_boxes("remove_small_boxes", boxes)
    if boxes.ndim != 2:
        raise ShapeError(f"remove_small_boxes: boxes must be (n, 4), got {tuple(boxes.shape)}")
    sides = boxes.detach()[:, 2:] - boxes.detach()[:, :2]
    return nonzero((sides >= min_size).all(1))[:, 0]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """The first and last columns and rows that masks (n, h, w) are not zero in: (n, 4) float32.

    As in torchvision x2 and y2 are the places of the last ones, not beyond them.  An empty mask
    has the box (0, 0, 0, 0).
    """
    if masks.ndim != 3:
        raise ShapeError(f"masks_to_boxes: masks must be (n, h, w), got {tuple(masks.shape)}")
    ends = []
    for dim, size in ((1, masks.shape[2]), (2, masks.shape[1])):  # columns, then rows
        seen = (masks.detach() != 0).any(dim)
        places = arange(size, device=masks.device)
        first = where(seen, places, size).amin(1) if size else places.new_zeros(len(masks))
        last = where(seen, places, -1).amax(1) if size else first - 1
        ends.append((where(last < 0, 0, first), clamp_min(last, 0)))
    (x1, x2), (y1, y2) = ends
    return stack([x1, y1, x2, y2], 1).float()


# --- of pairs -------------------------------------------------------------------------------------
# a and b are the corners of two boxes, in symbols.


def intersection(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """The area that two boxes share."""
    width = clamp_min(minimum(a[2], b[2]) - maximum(a[0], b[0]), 0)
    return width * clamp_min(minimum(a[3], b[3]) - maximum(a[1], b[1]), 0)


def union(a: Sequence[Any], b: Sequence[Any], shared: Any) -> Any:
    """The area that two boxes cover."""
    return (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared


def hull(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, Any]:
    """Width and height of the smallest box that has two in it."""
    return (clamp_min(maximum(a[2], b[2]) - minimum(a[0], b[0]), 0),
            clamp_min(maximum(a[3], b[3]) - minimum(a[1], b[1]), 0))


def apart(a: Sequence[Any], b: Sequence[Any], eps: Any) -> Any:
    """The squared distance of two centres over the squared diagonal of the hull."""
    width, height = hull(a, b)
    centres = square(a[0] + a[2] - b[0] - b[2]) + square(a[1] + a[3] - b[1] - b[3])
    return centres / 4 / (square(width) + square(height) + eps)


def unlike(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """How far the aspects of two boxes are from each other, 0 to 1: the v of complete IoU."""
    turn = atan((a[2] - a[0]) / (a[3] - a[1])) - atan((b[2] - b[0]) / (b[3] - b[1]))
    return square(turn) * (4 / math.pi ** 2)


@elementwise
def _iou(ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    return div(shared, union(a, b, shared))


@elementwise
def _generalized(ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    covered = union(a, b, shared)
    width, height = hull(a, b)
    return div(shared, covered) - div(width * height - covered, width * height)


@elementwise
def _distance(eps: Any, ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any
              ) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    return div(shared, union(a, b, shared)) - apart(a, b, eps)


@elementwise
def _unlike(ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any) -> Any:
    return unlike((ax, ay, au, av), (bx, by, bu, bv))


def _pairs(name: str, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, ...]:
    """The corners of (n, 4) and (m, 4) boxes as (n, 1) and (m,)."""
    check_boxes(name, boxes1, boxes2)
    if boxes1.ndim != 2 or boxes2.ndim != 2:
        raise ShapeError(f"{name}: boxes must be (n, 4) and (m, 4), got {tuple(boxes1.shape)} and "
                         f"{tuple(boxes2.shape)}")
    first, second = (b if b.is_floating_point() else b.long() for b in (boxes1, boxes2))
    return (*first.unsqueeze(1).unbind(-1), *second.unbind(-1))


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of each of (n, 4) with each of (m, 4) boxes: (n, m).

    0/0, of two boxes without area, is NaN.  Raises ShapeError, DTypeError.
    """
    found: Tensor = _iou(*_pairs("box_iou", boxes1, boxes2))
    return found


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU minus the share of the hull that neither covers: (n, m), -1 to 1.

    Rezatofighi et al. 2019.  Raises ShapeError, DTypeError.
    """
    found: Tensor = _generalized(*_pairs("generalized_box_iou", boxes1, boxes2))
    return found


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU minus the squared distance of the centres over the squared diagonal of the hull: (n, m).

    Zheng et al. 2020.  Raises ShapeError, DTypeError.
    """
    found: Tensor = _distance(eps, *_pairs("distance_box_iou", boxes1, boxes2))
    return found


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Distance IoU minus alpha v, where v is how unlike the aspects are: (n, m).

    alpha = v / (1 - IoU + v) counts as a constant, as in the paper (Zheng et al. 2020).  Raises
    ShapeError, DTypeError.
    """
    corners = _pairs("complete_box_iou", boxes1, boxes2)
    v = _unlike(*corners)
    with no_grad():
        alpha = v / (1 - _iou(*corners) + v + eps)
    found: Tensor = _distance(eps, *corners) - alpha * v
    return found
