"""The operations of neural networks as functions, under the names of torch.nn.functional.

A family is imported when one of its names is first used, as in `mlgpu.api`: a program that serves a
model of two layers starts without convolutions and losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlgpu.ops.activation import *  # noqa: F403
    from mlgpu.ops.activation_further import *  # noqa: F403
    from mlgpu.ops.attention import *  # noqa: F403
    from mlgpu.ops.batch_norm import *  # noqa: F403
    from mlgpu.ops.cdist import pdist as pdist
    from mlgpu.ops.conv import *  # noqa: F403
    from mlgpu.ops.ctc import *  # noqa: F403
    from mlgpu.ops.deform_conv import *  # noqa: F403
    from mlgpu.ops.distance import *  # noqa: F403
    from mlgpu.ops.dropout import *  # noqa: F403
    from mlgpu.ops.embedding import embedding as embedding
    from mlgpu.ops.embedding import one_hot as one_hot
    from mlgpu.ops.embedding_bag import *  # noqa: F403
    from mlgpu.ops.fold import fold as fold
    from mlgpu.ops.fold import unfold as unfold
    from mlgpu.ops.fractional_pool import *  # noqa: F403
    from mlgpu.ops.grid_sample import *  # noqa: F403
    from mlgpu.ops.gumbel import *  # noqa: F403
    from mlgpu.ops.linear import *  # noqa: F403
    from mlgpu.ops.loss_class import *  # noqa: F403
    from mlgpu.ops.loss_elementwise import *  # noqa: F403
    from mlgpu.ops.loss_further import *  # noqa: F403
    from mlgpu.ops.loss_linear import *  # noqa: F403
    from mlgpu.ops.loss_margin import *  # noqa: F403
    from mlgpu.ops.loss_transducer import *  # noqa: F403
    from mlgpu.ops.max_unpool import *  # noqa: F403
    from mlgpu.ops.multi_head_attention import *  # noqa: F403
    from mlgpu.ops.norm import *  # noqa: F403
    from mlgpu.ops.pad import *  # noqa: F403
    from mlgpu.ops.pool import *  # noqa: F403
    from mlgpu.ops.resample import *  # noqa: F403
    from mlgpu.ops.rotary import *  # noqa: F403
    from mlgpu.ops.softmax import *  # noqa: F403
else:
    from importlib import import_module as _import_module

    from mlgpu.guard import guard as _guard

# The functions, by the module that has them.
_FUNCTIONS: dict[str, str] = {
    "mlgpu.ops.activation": """celu celu_ elu elu_ gelu glu hardshrink hardsigmoid hardswish
        hardtanh hardtanh_ leaky_relu leaky_relu_ logsigmoid mish prelu relu relu6 relu_ rrelu
        rrelu_ selu selu_ sigmoid silu softplus softshrink softsign tanh tanhshrink threshold
        threshold_""",
    "mlgpu.ops.activation_further": """quiet_softmax relu_squared shrink swiglu
        thresholded_relu""",
    "mlgpu.ops.attention": "scaled_dot_product_attention",
    "mlgpu.ops.batch_norm": "batch_norm instance_norm",
    "mlgpu.ops.cdist": "pdist",
    "mlgpu.ops.conv": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    "mlgpu.ops.ctc": "ctc_loss",
    "mlgpu.ops.deform_conv": "deform_conv2d",
    "mlgpu.ops.distance": "cosine_similarity local_response_norm normalize pairwise_distance",
    "mlgpu.ops.dropout": """alpha_dropout dropout dropout1d dropout2d dropout3d
        feature_alpha_dropout""",
    "mlgpu.ops.embedding": "embedding one_hot",
    "mlgpu.ops.embedding_bag": "embedding_bag",
    "mlgpu.ops.fold": "fold unfold",
    "mlgpu.ops.fractional_pool": """fractional_max_pool2d fractional_max_pool2d_with_indices
        fractional_max_pool3d fractional_max_pool3d_with_indices""",
    "mlgpu.ops.grid_sample": "affine_grid grid_sample",
    "mlgpu.ops.gumbel": "gumbel_softmax",
    "mlgpu.ops.linear": "bilinear linear",
    "mlgpu.ops.loss_class": "cross_entropy nll_loss",
    "mlgpu.ops.loss_elementwise": """binary_cross_entropy binary_cross_entropy_with_logits
        gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss mse_loss
        poisson_nll_loss smooth_l1_loss soft_margin_loss""",
    "mlgpu.ops.loss_further": """contrastive_loss gram_matrix gram_matrix_loss hinge_loss
        info_nce_loss lp_loss sigmoid_focal_loss""",
    "mlgpu.ops.loss_linear": "linear_cross_entropy",
    "mlgpu.ops.loss_margin": """cosine_embedding_loss margin_ranking_loss multi_margin_loss
        multilabel_margin_loss multilabel_soft_margin_loss triplet_margin_loss
        triplet_margin_with_distance_loss""",
    "mlgpu.ops.loss_transducer": "rnnt_loss",
    "mlgpu.ops.max_unpool": "max_unpool1d max_unpool2d max_unpool3d",
    "mlgpu.ops.multi_head_attention": "multi_head_attention_forward",
    "mlgpu.ops.norm": "add_layer_norm add_rms_norm group_norm layer_norm rms_norm",
    "mlgpu.ops.pad": "pad",
    "mlgpu.ops.pool": """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d
        avg_pool3d lp_pool1d lp_pool2d lp_pool3d max_pool1d max_pool2d max_pool3d""",
    "mlgpu.ops.resample": """channel_shuffle interpolate pixel_shuffle pixel_unshuffle upsample
        upsample_bilinear upsample_nearest""",
    "mlgpu.ops.rotary": "rotary_embedding",
    "mlgpu.ops.softmax": "log_softmax softmax softmin",
}
_module_of = {name: module for module, names in _FUNCTIONS.items() for name in names.split()}


if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name):
        module = _module_of.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = _guard(getattr(_import_module(module), name), __name__)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(_module_of)
