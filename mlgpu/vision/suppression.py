"""Non-maximum suppression: which boxes stay of those that found the same object."""

from __future__ import annotations

from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.index import nonzero
from mlgpu.ops.nms import Nms
from mlgpu.ops.sort import argsort
from mlgpu.tensor import Tensor
from mlgpu.vision.boxes import check_boxes

__all__ = ["batched_nms", "nms"]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, *,
        score_threshold: float | None = None, max_output: int | None = None) -> Tensor:
    """The places, int64, of the boxes (n, 4) that stay, by falling score.

    Going from the best score down, a box stays unless one that stays overlaps it by an IoU above
    `iou_threshold`; of equal scores the first box is the better one.  Boxes whose score is not
    above `score_threshold` do not take part; at most `max_output` are returned.  On a device, how
    many stay is waited for.  Raises ShapeError, DTypeError.
    """
    return _nms("nms", boxes, scores, None, iou_threshold, score_threshold, max_output)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, *,
                score_threshold: float | None = None, max_output: int | None = None) -> Tensor:
    """`nms` within each class: `idxs` (n,) are integers, and only boxes of one class compete."""
    if idxs.dtype.kind != "int":
        raise DTypeError(f"batched_nms: idxs must be integers, got {idxs.dtype.name}")
    return _nms("batched_nms", boxes, scores, idxs, iou_threshold, score_threshold, max_output)


def _nms(name: str, boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float,
         score_threshold: float | None, max_output: int | None) -> Tensor:
    check_boxes(name, boxes)
    count = len(boxes)
    given = [scores] if classes is None else [scores, classes]
    if boxes.ndim != 2 or any(tuple(each.shape) != (count,) for each in given):
        raise ShapeError(f"{name}: boxes must be (n, 4) and the others (n,), got "
                         f"{tuple(boxes.shape)} and "
                         f"{' and '.join(str(tuple(each.shape)) for each in given)}")
    if not boxes.is_floating_point():
        raise DTypeError(f"{name}: boxes must be floating, got {boxes.dtype.name}; convert with "
                         ".float()")
    if not scores.dtype.is_floating_point:
        raise DTypeError(f"{name}: scores must be floating, got {scores.dtype.name}")
    if max_output is not None and max_output < 0:
        raise ShapeError(f"{name}: max_output must not be negative, got {max_output}")
    order = argsort(scores.detach(), descending=True, stable=True)
    if score_threshold is not None:
        order = order[scores.detach()[order] > score_threshold]
    inputs = [boxes.detach()[order]]
    if classes is not None:
        inputs.append(classes.long()[order])
    keep = nonzero(run(Nms(float(iou_threshold)), *inputs))[:, 0]
    found: Tensor = order[keep[:max_output]]
    return found
