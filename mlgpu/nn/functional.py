"""The operations of neural networks as functions, under the names of torch.nn.functional."""

from __future__ import annotations

from mlgpu.ops.attention import scaled_dot_product_attention
from mlgpu.ops.batch_norm import batch_norm, instance_norm
from mlgpu.ops.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from mlgpu.ops.distance import cosine_similarity, local_response_norm, normalize, pairwise_distance
from mlgpu.ops.embedding import embedding, one_hot
from mlgpu.ops.fold import fold, unfold
from mlgpu.ops.grid_sample import affine_grid, grid_sample
from mlgpu.ops.linear import bilinear, linear
from mlgpu.ops.loss_class import cross_entropy, nll_loss
from mlgpu.ops.norm import group_norm, layer_norm, rms_norm
from mlgpu.ops.pad import pad
from mlgpu.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from mlgpu.ops.resample import (
    channel_shuffle,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    upsample,
)
from mlgpu.ops.softmax import log_softmax, softmax, softmin

__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
           "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "affine_grid",
           "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "bilinear", "channel_shuffle",
           "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d", "cosine_similarity", "cross_entropy", "embedding", "fold",
           "grid_sample", "group_norm", "instance_norm", "interpolate", "layer_norm", "linear",
           "local_response_norm", "log_softmax", "lp_pool1d", "lp_pool2d", "lp_pool3d",
           "max_pool1d", "max_pool2d", "max_pool3d", "nll_loss", "normalize", "one_hot", "pad",
           "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "rms_norm",
           "scaled_dot_product_attention", "softmax", "softmin", "unfold", "upsample"]
