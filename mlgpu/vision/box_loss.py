"""Losses of boxes (..., 4) against targets, under the names of torchvision.ops."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd.mode import no_grad
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.tensor import Tensor
from mlgpu.vision.boxes import apart, check_boxes, hull, intersection, union, unlike

__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss"]


@elementwise
def _generalized(eps: Any, ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any
                 ) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    covered = union(a, b, shared)
    width, height = hull(a, b)
    return 1 - shared / (covered + eps) + (width * height - covered) / (width * height + eps)


@elementwise
def _distance(eps: Any, ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any
              ) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    return 1 - shared / (union(a, b, shared) + eps) + apart(a, b, eps)


@elementwise
def _aspect(eps: Any, ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any
            ) -> Any:
    a, b = (ax, ay, au, av), (bx, by, bu, bv)
    shared = intersection(a, b)
    v = unlike(a, b)
    return v, v / (1 - shared / (union(a, b, shared) + eps) + v + eps)


@elementwise
def _unlike(ax: Any, ay: Any, au: Any, av: Any, bx: Any, by: Any, bu: Any, bv: Any) -> Any:
    return unlike((ax, ay, au, av), (bx, by, bu, bv))


def _corners(name: str, boxes1: Tensor, boxes2: Tensor, reduction: str) -> tuple[Tensor, ...]:
    check_reduction(name, reduction)
    check_boxes(name, boxes1, boxes2)
    if boxes1.shape != boxes2.shape:
        raise ShapeError(f"{name}: boxes and targets must have one shape, got "
                         f"{tuple(boxes1.shape)} and {tuple(boxes2.shape)}")
    if not (boxes1.is_floating_point() and boxes2.is_floating_point()):
        raise DTypeError(f"{name}: boxes must be floating, got {boxes1.dtype.name} and "
                         f"{boxes2.dtype.name}; convert with .float()")
    return (*boxes1.unbind(-1), *boxes2.unbind(-1))


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none",
                             eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of each box with its target: (..., 4) to (...), or reduced.

    Rezatofighi et al. 2019.  Raises ShapeError, DTypeError.
    """
    corners = _corners("generalized_box_iou_loss", boxes1, boxes2, reduction)
    return reduced(_generalized(eps, *corners), reduction)


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none",
                          eps: float = 1e-7) -> Tensor:
    """1 - distance IoU of each box with its target: (..., 4) to (...), or reduced.

    Zheng et al. 2020.  Raises ShapeError, DTypeError.
    """
    corners = _corners("distance_box_iou_loss", boxes1, boxes2, reduction)
    return reduced(_distance(eps, *corners), reduction)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none",
                          eps: float = 1e-7) -> Tensor:
    """1 - complete IoU of each box with its target: (..., 4) to (...), or reduced.

    The weight alpha of the aspects counts as a constant (Zheng et al. 2020).  Raises ShapeError,
    DTypeError.
    """
    corners = _corners("complete_box_iou_loss", boxes1, boxes2, reduction)
    with no_grad():
        alpha = _aspect(eps, *corners)[1]
    return reduced(_distance(eps, *corners) + alpha * _unlike(*corners), reduction)
