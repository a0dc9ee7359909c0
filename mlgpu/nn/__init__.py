"""Neural networks: modules, parameters, layers and losses, as torch.nn.

A family of layers is imported when one of its names is first used, as in `mlgpu.api`: the start of
a program that serves a model of two layers is mostly imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlgpu.nn.module import Module as Module
from mlgpu.nn.parameter import Buffer as Buffer
from mlgpu.nn.parameter import Parameter as Parameter

if TYPE_CHECKING:
    from mlgpu.nn import functional as functional
    from mlgpu.nn import init as init
    from mlgpu.nn import utils as utils
    from mlgpu.nn.activation import *  # noqa: F403
    from mlgpu.nn.adaptive import *  # noqa: F403
    from mlgpu.nn.attention import *  # noqa: F403
    from mlgpu.nn.batchnorm import *  # noqa: F403
    from mlgpu.nn.cache import *  # noqa: F403
    from mlgpu.nn.containers import *  # noqa: F403
    from mlgpu.nn.conv import *  # noqa: F403
    from mlgpu.nn.deform_conv import *  # noqa: F403
    from mlgpu.nn.distance import *  # noqa: F403
    from mlgpu.nn.dropout import *  # noqa: F403
    from mlgpu.nn.embedding import *  # noqa: F403
    from mlgpu.nn.experts import *  # noqa: F403
    from mlgpu.nn.feed_forward import *  # noqa: F403
    from mlgpu.nn.further_activation import *  # noqa: F403
    from mlgpu.nn.further_loss import *  # noqa: F403
    from mlgpu.nn.lazy import *  # noqa: F403
    from mlgpu.nn.linear import *  # noqa: F403
    from mlgpu.nn.loss import *  # noqa: F403
    from mlgpu.nn.model_summary import *  # noqa: F403
    from mlgpu.nn.normalization import *  # noqa: F403
    from mlgpu.nn.padding import *  # noqa: F403
    from mlgpu.nn.pooling import *  # noqa: F403
    from mlgpu.nn.position import *  # noqa: F403
    from mlgpu.nn.reshaping import *  # noqa: F403
    from mlgpu.nn.rnn import *  # noqa: F403
    from mlgpu.nn.transformer import *  # noqa: F403
    from mlgpu.nn.unpool import *  # noqa: F403

# The layers, by the module of this package that has them.
_LAYERS: dict[str, str] = {
    "activation": """CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU
        LogSigmoid LogSoftmax Mish PReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin
        Softplus Softshrink Softsign Tanh Tanhshrink Threshold""",
    "adaptive": "AdaptiveLogSoftmaxWithLoss",
    "attention": "MultiheadAttention",
    "batchnorm": """BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d
        InstanceNorm3d SyncBatchNorm""",
    "cache": "KVCache RotatingKVCache ScatteredKVCache",
    "containers": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "deform_conv": "DeformConv2d",
    "distance": "CosineSimilarity PairwiseDistance",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    "embedding": "Embedding EmbeddingBag",
    "experts": "MixtureOfExperts",
    "feed_forward": "PositionWiseFeedForward",
    "further_activation": """GaussianNoise QuietSoftmax RReLU ReLUSquared Shrink SwiGLU
        ThresholdedReLU""",
    "further_loss": """ContrastiveLoss GramMatrixLoss HingeLoss InfoNCELoss LpLoss RNNTLoss
        SigmoidFocalLoss""",
    "lazy": """LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d
        LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d
        LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear UninitializedParameter""",
    "linear": "Bilinear Identity Linear",
    "loss": """BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss
        GaussianNLLLoss HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss
        MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss PoissonNLLLoss
        SmoothL1Loss SoftMarginLoss TripletMarginLoss TripletMarginWithDistanceLoss""",
    "model_summary": "LayerSummary ModelSummary summary",
    "normalization": "GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "padding": """CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d
        ConstantPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d
        ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d""",
    "pooling": """AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
        AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d
        FractionalMaxPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d""",
    "position": "RotaryPositionalEmbedding SinusoidalPositionalEncoding",
    "reshaping": """ChannelShuffle Flatten Fold PixelShuffle PixelUnshuffle Unflatten Unfold
        Upsample UpsamplingBilinear2d UpsamplingNearest2d""",
    "rnn": "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase",
    "unpool": "MaxUnpool1d MaxUnpool2d MaxUnpool3d",
    "transformer": """Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder
        TransformerEncoderLayer""",
}
_HOME = {name: module for module, names in _LAYERS.items() for name in names.split()}
_MODULES = {"functional", "init", "utils", *_LAYERS}

__all__ = ["Buffer", "Module", "Parameter", "functional", "init", "utils"]
__all__ += _HOME


if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"mlgpu.nn.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"mlgpu.nn.{_HOME[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
