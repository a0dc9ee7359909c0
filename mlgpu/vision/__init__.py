"""Vision: boxes, regions, components, morphology, filters, colours and geometry of images.

Images are tensors (..., c, h, w) on any device; names are torchvision's where it has one.  The
guide is docs/vision.md.
"""

from __future__ import annotations

from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.deform_conv import deform_conv2d
from mlgpu.ops.loss_further import sigmoid_focal_loss
from mlgpu.vision.box_loss import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)
from mlgpu.vision.boxes import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    masks_to_boxes,
    remove_small_boxes,
)
from mlgpu.vision.color import (
    grayscale_to_rgb,
    hsl_to_rgb,
    hsv_to_rgb,
    lab_to_rgb,
    linear_rgb_to_rgb,
    luv_to_rgb,
    rgb_to_grayscale,
    rgb_to_hsl,
    rgb_to_hsv,
    rgb_to_lab,
    rgb_to_linear_rgb,
    rgb_to_luv,
    rgb_to_xyz,
    rgb_to_ycbcr,
    rgb_to_yuv,
    xyz_to_rgb,
    ycbcr_to_rgb,
    yuv_to_rgb,
)
from mlgpu.vision.components import (
    ComponentStats,
    connected_components,
    connected_components_with_stats,
)
from mlgpu.vision.depth import (
    StochasticDepth,
    drop_path,
    stochastic_depth,
)
from mlgpu.vision.filters import (
    box_blur,
    canny,
    filter2d,
    filter2d_separable,
    gaussian_blur,
    gaussian_kernel1d,
    laplacian,
    median_blur,
    sobel,
    spatial_gradient,
)
from mlgpu.vision.geometry import (
    affine,
    get_affine_matrix2d,
    get_perspective_transform,
    perspective,
    rotate,
    rotation_matrix,
    scale_matrix,
    shear_matrix,
    translation_matrix,
    warp_affine,
    warp_perspective,
)
from mlgpu.vision.morphology import (
    black_hat,
    closing,
    dilate,
    erode,
    morphological_gradient,
    opening,
    structuring_element,
    top_hat,
)
from mlgpu.vision.regions import (
    roi_align,
    roi_pool,
)
from mlgpu.vision.suppression import (
    batched_nms,
    nms,
)

__all__ = [
    "ComponentStats", "StochasticDepth", "affine", "batched_nms", "black_hat", "box_area",
    "box_blur", "box_convert", "box_iou", "canny", "clip_boxes_to_image", "closing",
    "complete_box_iou", "complete_box_iou_loss", "connected_components",
    "connected_components_with_stats", "deform_conv2d", "dilate", "distance_box_iou",
    "distance_box_iou_loss", "drop_path", "erode", "filter2d", "filter2d_separable",
    "gaussian_blur", "gaussian_kernel1d", "generalized_box_iou", "generalized_box_iou_loss",
    "get_affine_matrix2d", "get_perspective_transform", "grayscale_to_rgb", "hsl_to_rgb",
    "hsv_to_rgb", "lab_to_rgb", "laplacian", "linear_rgb_to_rgb", "luv_to_rgb",
    "masks_to_boxes", "median_blur", "morphological_gradient", "nms", "opening", "perspective",
    "remove_small_boxes", "rgb_to_grayscale", "rgb_to_hsl", "rgb_to_hsv", "rgb_to_lab",
    "rgb_to_linear_rgb", "rgb_to_luv", "rgb_to_xyz", "rgb_to_ycbcr", "rgb_to_yuv", "roi_align",
    "roi_pool", "rotate", "rotation_matrix", "scale_matrix", "shear_matrix",
    "sigmoid_focal_loss", "sobel", "spatial_gradient", "stochastic_depth",
    "structuring_element", "top_hat", "translation_matrix", "warp_affine", "warp_perspective",
    "xyz_to_rgb", "ycbcr_to_rgb", "yuv_to_rgb",
]

_guard_module(globals())
