"""torchvision.ops: boxes, regions and layers of models of images."""

from __future__ import annotations

from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.nn import Module
from mlgpu.vision import (
    StochasticDepth,
    batched_nms,
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    complete_box_iou_loss,
    deform_conv2d,
    distance_box_iou,
    distance_box_iou_loss,
    generalized_box_iou,
    generalized_box_iou_loss,
    masks_to_boxes,
    nms,
    remove_small_boxes,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
    stochastic_depth,
)

__all__ = ["FrozenBatchNorm2d", "StochasticDepth", "batched_nms", "box_area", "box_convert",
           "box_iou", "clip_boxes_to_image", "complete_box_iou", "complete_box_iou_loss",
           "deform_conv2d", "distance_box_iou", "distance_box_iou_loss", "generalized_box_iou",
           "generalized_box_iou_loss", "masks_to_boxes", "nms", "remove_small_boxes", "roi_align",
           "roi_pool", "sigmoid_focal_loss", "stochastic_depth"]


class FrozenBatchNorm2d(Module):
    """Batch normalisation by fixed statistics, weight and bias, all of them buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0),
                            ("running_var", 1.0)):
            self.register_buffer(name, mlgpu.full((num_features,), value))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a trained BatchNorm2d
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """The input (N, C, H, W), shifted and scaled per channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
