"""Every layer: its formula, and PyTorch's printing, state, outputs and gradients."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn
from mlgpu.nn import functional as F


@dataclass
class Row:
    """A layer, what it is called with, and what it must compute.

    `inputs` are shapes of normal numbers, or arrays; `formula(m, *inputs)` takes the module and
    NumPy arrays (`m.weight` and so on as arrays) and returns the result, or, where the maths is
    an operation with a row of its own in the op table, tensors and calls the function.
    """

    name: str
    args: tuple[Any, ...]
    inputs: tuple[Any, ...]
    formula: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    constants: tuple[int, ...] = ()  # floating inputs that have no gradient in PyTorch

    @property
    def id(self) -> str:
        settings = [*map(str, self.args), *(f"{k}={v}" for k, v in self.options.items())]
        return f"{self.name}({', '.join(settings)})"

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [rng.standard_normal(x) if isinstance(x, tuple) else x for x in self.inputs]


class Arrays:
    """A module whose tensors read as NumPy arrays."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        value = getattr(self.module, name)
        return value.detach().numpy() if isinstance(value, mlgpu.Tensor) else value


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def normalized(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


erf = np.vectorize(math.erf)
X = (4, 6)
PROBABILITY = np.random.default_rng(2).uniform(0.1, 0.9, X)
SIGN = np.where(np.arange(4) % 2, 1.0, -1.0)
CLASSES = np.array([0, 5, 2, 1])
WORDS = np.array([[1, 2, 0], [4, 1, 1]])

NUMPY = [
    Row("Identity", (1, "any"), (X,), lambda m, x: x),
    Row("Linear", (6, 3), (X,), lambda m, x: x @ m.weight.T + m.bias),
    Row("Linear", (6, 3), ((6,),), lambda m, x: x @ m.weight.T, {"bias": False}),
    Row("Bilinear", (6, 2, 3), (X, (4, 2)),
        lambda m, x, y: np.einsum("ni,oij,nj->no", x, m.weight, y) + m.bias),
    Row("Embedding", (5, 3), (WORDS,), lambda m, i: m.weight[i], {"padding_idx": -4}),
    Row("EmbeddingBag", (5, 3), (WORDS,), lambda m, i: m.weight[i].mean(1)),
    Row("EmbeddingBag", (5, 3), (WORDS,), lambda m, i: m.weight[i].sum(1), {"mode": "sum"}),
    Row("LayerNorm", (6,), (X,), lambda m, x: normalized(x, -1) * m.weight + m.bias),
    Row("LayerNorm", ((4, 6),), (X,), lambda m, x: normalized(x, (0, 1), 0.1) * m.weight,
        {"eps": 0.1, "bias": False}),
    Row("LayerNorm", ([6],), (X,), lambda m, x: normalized(x, -1), {"elementwise_affine": False}),
    Row("RMSNorm", (6,), (X,),
        lambda m, x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * m.weight,
        {"eps": 1e-3}),
    Row("RMSNorm", (6,), (X,),
        lambda m, x: x / np.sqrt((x * x).mean(-1, keepdims=True) + np.finfo(float).eps),
        {"elementwise_affine": False}),
    Row("GroupNorm", (2, 6), ((3, 6, 4),),
        lambda m, x: normalized(x.reshape(3, 2, -1), -1).reshape(x.shape) * m.weight[:, None]
        + m.bias[:, None]),
    Row("GroupNorm", (3, 6), ((3, 6),),
        lambda m, x: normalized(x.reshape(3, 3, -1), -1).reshape(x.shape), {"affine": False}),
    Row("BatchNorm1d", (6,), (X,), lambda m, x: normalized(x, 0) * m.weight + m.bias),
    Row("BatchNorm1d", (6,), ((3, 6, 2),), lambda m, x: normalized(x, (0, 2)),
        {"affine": False, "momentum": None}),
    Row("BatchNorm2d", (3,), ((2, 3, 4, 5),),
        lambda m, x: normalized(x, (0, 2, 3), 1e-2) * m.weight[:, None, None]
        + m.bias[:, None, None], {"eps": 1e-2, "momentum": 0.3}),
    Row("BatchNorm2d", (3,), ((2, 3, 4, 5),),
        lambda m, x: normalized(x, (0, 2, 3)) * m.weight[:, None, None],
        {"track_running_stats": False, "bias": False}),
    Row("BatchNorm3d", (3,), ((2, 3, 2, 1, 2),),
        lambda m, x: normalized(x, (0, 2, 3, 4)) * m.weight[:, None, None, None]
        + m.bias[:, None, None, None]),
    Row("InstanceNorm1d", (3,), ((2, 3, 5),), lambda m, x: normalized(x, 2)),
    Row("InstanceNorm1d", (3,), ((3, 5),), lambda m, x: normalized(x, 1)),
    Row("InstanceNorm2d", (3,), ((2, 3, 4, 5),),
        lambda m, x: normalized(x, (2, 3)) * m.weight[:, None, None] + m.bias[:, None, None],
        {"affine": True, "track_running_stats": True}),
    Row("InstanceNorm3d", (3,), ((2, 3, 2, 2, 2),), lambda m, x: normalized(x, (2, 3, 4))),
    Row("Sigmoid", (), (X,), lambda m, x: sigmoid(x)),
    Row("Tanh", (), (X,), lambda m, x: np.tanh(x)),
    Row("LogSigmoid", (), (X,), lambda m, x: np.log(sigmoid(x))),
    Row("Softsign", (), (X,), lambda m, x: x / (1 + abs(x))),
    Row("Tanhshrink", (), (X,), lambda m, x: x - np.tanh(x)),
    Row("GELU", (), (X,), lambda m, x: x * (1 + erf(x / math.sqrt(2))) / 2),
    Row("GELU", ("tanh",), (X,), lambda m, x: x / 2 * (
        1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))),
    Row("Softplus", (), (X,), lambda m, x: softplus(x)),
    Row("Softplus", (2.0, 1.0), (X,), lambda m, x: np.where(2 * x > 1, x, softplus(2 * x) / 2)),
    Row("Hardshrink", (), (X,), lambda m, x: np.where(abs(x) > 0.5, x, 0)),
    Row("Softshrink", (0.3,), (X,), lambda m, x: np.sign(x) * np.maximum(abs(x) - 0.3, 0)),
    Row("PReLU", (), (X,), lambda m, x: np.where(x > 0, x, m.weight * x)),
    Row("PReLU", (6, 0.1), (X,), lambda m, x: np.where(x > 0, x, m.weight * x)),
    Row("ReLU", (), (X,), lambda m, x: np.maximum(x, 0)),
    Row("ReLU6", (), (X,), lambda m, x: np.clip(x, 0, 6)),
    Row("SELU", (), (X,), lambda m, x: 1.0507009873554805 * np.where(
        x > 0, x, 1.6732632423543772 * np.expm1(x))),
    Row("SiLU", (), (X,), lambda m, x: x * sigmoid(x)),
    Row("Mish", (), (X,), lambda m, x: x * np.tanh(softplus(x))),
    Row("Hardsigmoid", (), (X,), lambda m, x: np.clip(x / 6 + 0.5, 0, 1)),
    Row("Hardswish", (), (X,), lambda m, x: x * np.clip(x / 6 + 0.5, 0, 1)),
    Row("Hardtanh", (), (X,), lambda m, x: np.clip(x, -1, 1)),
    Row("Hardtanh", (-0.5, 2.0), (X,), lambda m, x: np.clip(x, -0.5, 2)),
    Row("LeakyReLU", (0.2,), (X,), lambda m, x: np.where(x > 0, x, 0.2 * x)),
    Row("ELU", (0.5,), (X,), lambda m, x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    Row("CELU", (0.5,), (X,), lambda m, x: np.where(x > 0, x, 0.5 * np.expm1(x / 0.5))),
    Row("Threshold", (0.1, 20.0), (X,), lambda m, x: np.where(x > 0.1, x, 20)),
    Row("GLU", (), (X,), lambda m, x: x[:, :3] * sigmoid(x[:, 3:])),
    Row("GLU", (0,), (X,), lambda m, x: x[:2] * sigmoid(x[2:])),
    Row("Softmax", (1,), (X,), lambda m, x: softmax(x, 1)),
    Row("Softmin", (0,), (X,), lambda m, x: softmax(-x, 0)),
    Row("LogSoftmax", (-1,), (X,), lambda m, x: np.log(softmax(x, -1))),
    Row("Softmax2d", (), ((2, 3, 4, 5),), lambda m, x: softmax(x, 1)),
    Row("Flatten", (), ((2, 3, 4),), lambda m, x: x.reshape(2, 12)),
    Row("Flatten", (0, 1), ((2, 3, 4),), lambda m, x: x.reshape(6, 4)),
    Row("Unflatten", (1, (2, 3)), (X,), lambda m, x: x.reshape(4, 2, 3)),
    Row("ChannelShuffle", (2,), ((2, 4, 3, 1),), lambda m, x: x[:, [0, 2, 1, 3]]),
    Row("CosineSimilarity", (), (X, X), lambda m, x, y: (x * y).sum(1) / np.sqrt(
        (x * x).sum(1) * (y * y).sum(1))),
    Row("PairwiseDistance", (), (X, X), lambda m, x, y: np.linalg.norm(x - y + 1e-6, axis=-1)),
    Row("PairwiseDistance", (1.0, 1e-3, True), (X, X),
        lambda m, x, y: abs(x - y + 1e-3).sum(-1, keepdims=True)),
    # losses
    Row("L1Loss", (), (X, X), lambda m, x, y: abs(x - y).mean()),
    Row("MSELoss", (), (X, X), lambda m, x, y: ((x - y) ** 2).sum(), {"reduction": "sum"}),
    Row("SmoothL1Loss", (), (X, X), lambda m, x, y: np.where(
        abs(x - y) < 0.5, (x - y) ** 2, abs(x - y) - 0.25), {"reduction": "none", "beta": 0.5}),
    Row("HuberLoss", (), (X, X), lambda m, x, y: np.where(
        abs(x - y) < 2, (x - y) ** 2 / 2, 2 * (abs(x - y) - 1)).mean(), {"delta": 2.0}),
    Row("PoissonNLLLoss", (), (X, PROBABILITY), lambda m, x, y: (np.exp(x) - y * x).mean()),
    Row("GaussianNLLLoss", (), (X, X, PROBABILITY), lambda m, x, y, v: (
        np.log(v) + (x - y) ** 2 / v).mean() / 2 + math.log(2 * math.pi) / 2, {"full": True}),
    Row("KLDivLoss", (), (X, PROBABILITY), lambda m, x, y: (y * (np.log(y) - x)).sum() / 4,
        {"reduction": "batchmean"}),
    Row("NLLLoss", (), (X, CLASSES), lambda m, x, c: -x[np.arange(4), c][:3].mean(),
        {"ignore_index": 1}),
    Row("CrossEntropyLoss", (), (X, CLASSES),
        lambda m, x, c: -np.log(softmax(x, 1))[np.arange(4), c].mean()),
    Row("CrossEntropyLoss", (), (X, CLASSES), lambda m, x, c: -(
        0.9 * np.log(softmax(x, 1))[np.arange(4), c] + 0.1 * np.log(softmax(x, 1)).mean(1)),
        {"label_smoothing": 0.1, "reduction": "none"}),
    Row("BCELoss", (), (PROBABILITY, PROBABILITY[::-1].copy()),
        lambda m, p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()),
    Row("BCEWithLogitsLoss", (), (X, PROBABILITY),
        lambda m, x, y: -(y * np.log(sigmoid(x)) + (1 - y) * np.log(sigmoid(-x))).mean()),
    Row("MultiMarginLoss", (), (X, CLASSES), lambda m, x, c: (np.maximum(
        0, 0.5 - x[np.arange(4), c][:, None] + x) ** 2).sum() / 24 - 0.25 / 6,
        {"p": 2, "margin": 0.5}),
    Row("MultiLabelSoftMarginLoss", (), (X, np.round(PROBABILITY)), lambda m, x, y: -(
        y * np.log(sigmoid(x)) + (1 - y) * np.log(sigmoid(-x))).mean()),
    Row("SoftMarginLoss", (), ((4,), SIGN), lambda m, x, y: softplus(-y * x).mean(),
        constants=(1,)),
    Row("MarginRankingLoss", (0.3,), ((4,), (4,), SIGN),
        lambda m, a, b, y: np.maximum(0, -y * (a - b) + 0.3).mean()),
    Row("HingeEmbeddingLoss", (), ((4,), SIGN),
        lambda m, x, y: np.where(y == 1, x, np.maximum(0, 1 - x)).mean()),
    Row("CosineEmbeddingLoss", (0.1,), (X, X, SIGN), lambda m, a, b, y: np.where(
        y == 1, 1 - cosine(a, b), np.maximum(0, cosine(a, b) - 0.1)).mean()),
    Row("TripletMarginLoss", (), (X, X, X), lambda m, a, p, n: np.maximum(
        0, distance(a, p) - distance(a, n) + 1).mean()),
    Row("TripletMarginWithDistanceLoss", (), (X, X, X), lambda m, a, p, n: np.maximum(
        0, distance(a, p) - np.minimum(distance(a, n), distance(p, n)) + 1).mean(),
        {"swap": True}),
]


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def distance(a, b):
    return np.linalg.norm(a - b + 1e-6, axis=-1)


IMAGE = (2, 4, 7, 6)
CALLS = [
    Row("Conv1d", (4, 6, 3), ((2, 4, 9),),
        lambda m, x: F.conv1d(x, m.weight, m.bias, 2, 1, 2, 2),
        {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}),
    Row("Conv1d", (4, 6, 4), ((2, 4, 9),),
        lambda m, x: F.conv1d(F.pad(x, (1, 2), "circular"), m.weight, m.bias),
        {"padding": "same", "padding_mode": "circular"}),
    Row("Conv2d", (4, 6, (3, 2)), (IMAGE,), lambda m, x: F.conv2d(x, m.weight, m.bias)),
    Row("Conv2d", (4, 6, 3), ((4, 7, 6),), lambda m, x: F.conv2d(x, m.weight, None, padding="same"),
        {"padding": "same", "bias": False}),
    Row("Conv2d", (4, 6, 3), (IMAGE,),
        lambda m, x: F.conv2d(F.pad(x, (2, 2, 1, 1), "reflect"), m.weight, m.bias),
        {"padding": (1, 2), "padding_mode": "reflect"}),
    Row("Conv2d", (4, 6, 3), (IMAGE,), lambda m, x: F.conv2d(x, m.weight, m.bias),
        {"padding": "valid", "padding_mode": "replicate"}),
    Row("Conv3d", (2, 3, 2), ((1, 2, 3, 4, 3),), lambda m, x: F.conv3d(x, m.weight, m.bias)),
    Row("ConvTranspose1d", (4, 6, 3), ((2, 4, 5),),
        lambda m, x: F.conv_transpose1d(x, m.weight, m.bias, 2, 1, 1, 2, 1),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    Row("ConvTranspose2d", (4, 6, 3), (IMAGE,),
        lambda m, x: F.conv_transpose2d(x, m.weight, None, dilation=2),
        {"dilation": 2, "bias": False}),
    Row("ConvTranspose3d", (2, 3, 2), ((1, 2, 3, 2, 3),),
        lambda m, x: F.conv_transpose3d(x, m.weight, m.bias)),
    Row("MaxPool1d", (3,), ((2, 4, 9),), lambda m, x: F.max_pool1d(x, 3)),
    Row("MaxPool2d", (3, 2), (IMAGE,), lambda m, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        {"padding": 1, "ceil_mode": True}),
    Row("MaxPool2d", ((2, 3),), (IMAGE,),
        lambda m, x: F.max_pool2d(x, (2, 3), return_indices=True), {"return_indices": True}),
    Row("MaxPool3d", (2,), ((1, 2, 3, 4, 5),), lambda m, x: F.max_pool3d(x, 2)),
    Row("AvgPool1d", (3,), ((2, 4, 9),), lambda m, x: F.avg_pool1d(x, 3, padding=1),
        {"padding": 1}),
    Row("AvgPool2d", (3, 2), (IMAGE,),
        lambda m, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        {"padding": 1, "count_include_pad": False}),
    Row("AvgPool2d", (2,), (IMAGE,), lambda m, x: F.avg_pool2d(x, 2, divisor_override=3),
        {"divisor_override": 3}),
    Row("AvgPool3d", (2,), ((1, 2, 3, 4, 5),), lambda m, x: F.avg_pool3d(x, 2)),
    Row("LPPool1d", (2, 3), ((2, 4, 9),), lambda m, x: F.lp_pool1d(x, 2, 3)),
    Row("LPPool2d", (4, 3), (IMAGE,), lambda m, x: F.lp_pool2d(x, 4, 3, 2),
        {"stride": 2}),
    Row("LPPool3d", (2, 2), ((1, 2, 3, 4, 5),), lambda m, x: F.lp_pool3d(x, 2, 2)),
    Row("AdaptiveAvgPool1d", (4,), ((2, 4, 9),), lambda m, x: F.adaptive_avg_pool1d(x, 4)),
    Row("AdaptiveAvgPool2d", ((None, 3),), (IMAGE,),
        lambda m, x: F.adaptive_avg_pool2d(x, (None, 3))),
    Row("AdaptiveAvgPool3d", (2,), ((1, 2, 3, 4, 5),), lambda m, x: F.adaptive_avg_pool3d(x, 2)),
    Row("AdaptiveMaxPool1d", (4,), ((2, 4, 9),), lambda m, x: F.adaptive_max_pool1d(x, 4)),
    Row("AdaptiveMaxPool2d", (3,), (IMAGE,), lambda m, x: F.adaptive_max_pool2d(x, 3, True),
        {"return_indices": True}),
    Row("AdaptiveMaxPool3d", (2,), ((1, 2, 3, 4, 5),), lambda m, x: F.adaptive_max_pool3d(x, 2)),
    Row("ZeroPad1d", (1,), (X,), lambda m, x: F.pad(x, (1, 1))),
    Row("ZeroPad2d", ((1, 2, 0, 1),), (IMAGE,), lambda m, x: F.pad(x, (1, 2, 0, 1))),
    Row("ZeroPad3d", (1,), ((2, 2, 2, 2),), lambda m, x: F.pad(x, (1,) * 6)),
    Row("ConstantPad1d", ((1, 2), 3.5), (X,), lambda m, x: F.pad(x, (1, 2), value=3.5)),
    Row("ConstantPad2d", (1, -1.0), (IMAGE,), lambda m, x: F.pad(x, (1,) * 4, value=-1)),
    Row("ConstantPad3d", (1, 2.0), ((2, 2, 2, 2),), lambda m, x: F.pad(x, (1,) * 6, value=2)),
    Row("ReflectionPad1d", (2,), ((2, 4, 9),), lambda m, x: F.pad(x, (2, 2), "reflect")),
    Row("ReflectionPad2d", ((1, 2, 3, 1),), (IMAGE,),
        lambda m, x: F.pad(x, (1, 2, 3, 1), "reflect")),
    Row("ReflectionPad3d", (1,), ((1, 2, 3, 4, 5),), lambda m, x: F.pad(x, (1,) * 6, "reflect")),
    Row("ReplicationPad1d", (2,), ((2, 4, 9),), lambda m, x: F.pad(x, (2, 2), "replicate")),
    Row("ReplicationPad2d", (1,), (IMAGE,), lambda m, x: F.pad(x, (1,) * 4, "replicate")),
    Row("ReplicationPad3d", (1,), ((1, 2, 3, 4, 5),),
        lambda m, x: F.pad(x, (1,) * 6, "replicate")),
    Row("CircularPad1d", (2,), ((2, 4, 9),), lambda m, x: F.pad(x, (2, 2), "circular")),
    Row("CircularPad2d", (1,), (IMAGE,), lambda m, x: F.pad(x, (1,) * 4, "circular")),
    Row("CircularPad3d", (1,), ((1, 2, 3, 4, 5),), lambda m, x: F.pad(x, (1,) * 6, "circular")),
    Row("PixelShuffle", (2,), (IMAGE,), lambda m, x: F.pixel_shuffle(x, 2)),
    Row("PixelUnshuffle", (3,), ((2, 1, 6, 9),), lambda m, x: F.pixel_unshuffle(x, 3)),
    Row("Upsample", (), (IMAGE,), lambda m, x: F.interpolate(x, scale_factor=(2, 3)),
        {"scale_factor": (2, 3)}),
    Row("Upsample", (5,), (IMAGE,), lambda m, x: F.interpolate(x, 5, mode="bicubic"),
        {"mode": "bicubic"}),
    Row("UpsamplingNearest2d", (), (IMAGE,), lambda m, x: F.interpolate(x, scale_factor=2),
        {"scale_factor": 2}),
    Row("UpsamplingBilinear2d", ((9, 8),), (IMAGE,), lambda m, x: F.interpolate(
        x, (9, 8), mode="bilinear", align_corners=True)),
    Row("Unfold", ((2, 3),), (IMAGE,), lambda m, x: F.unfold(x, (2, 3), padding=1),
        {"padding": 1}),
    Row("Fold", ((4, 5), (2, 3)), ((2, 12, 9),), lambda m, x: F.fold(x, (4, 5), (2, 3))),
    Row("LocalResponseNorm", (3,), (IMAGE,), lambda m, x: F.local_response_norm(x, 3, k=2.0),
        {"k": 2.0}),
    Row("CTCLoss", (), (np.log(softmax(np.random.default_rng(3).standard_normal((6, 2, 4)), -1)),
                        np.array([[1, 2, 1], [3, 3, 2]]), np.array([6, 6]), np.array([3, 2])),
        lambda m, *x: F.ctc_loss(*x)),
    Row("MaxUnpool1d", (3,), ((2, 4, 3), np.tile([2, 5, 6], (2, 4, 1))),
        lambda m, x, i: F.max_unpool1d(x, i, 3)),
    Row("MaxUnpool2d", (3, 2), ((2, 2, 2), np.array([[[3, 6], [8, 2]], [[7, 4], [0, 1]]])),
        lambda m, x, i: F.max_unpool2d(x, i, 3, 2, 1), {"padding": 1}),
    Row("MaxUnpool3d", (2,), ((1, 2, 1, 2, 1), np.array([5, 3, 0, 7]).reshape(1, 2, 1, 2, 1)),
        lambda m, x, i: F.max_unpool3d(x, i, 2)),
    Row("MultiLabelMarginLoss", (), ((3, 5), np.array([[1, 3, -1, 0, 2], [0, -1, 2, 2, 2],
                                                      [4, 3, 2, 1, 0]])),
        lambda m, x, t: F.multilabel_margin_loss(x, t)),
    Row("AdaptiveLogSoftmaxWithLoss", (6, 9, [3, 5]), ((5, 6), np.array([0, 8, 4, 2, 3])),
        lambda m, x, t: (m.log_prob(x).gather(1, t[:, None])[:, 0],
                         -m.log_prob(x).gather(1, t[:, None]).mean()),
        {"div_value": 2.0, "head_bias": True}),
]
ROWS = NUMPY + CALLS
# Their tests are in files of their own.
ELSEWHERE = {"RNNBase", "RNNCellBase", "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell",
             "MultiheadAttention", "Module", "ModuleDict", "ModuleList", "ParameterDict",
             "ParameterList", "Sequential", "TransformerEncoder", "TransformerEncoderLayer",
             "TransformerDecoder", "TransformerDecoderLayer", "Dropout", "Dropout1d", "Dropout2d",
             "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "RReLU", "Transformer",
             "FractionalMaxPool2d", "FractionalMaxPool3d", "SyncBatchNorm"}
# Those that PyTorch has not, in test_nn_further.py.
OURS = {"ContrastiveLoss", "GaussianNoise", "GramMatrixLoss", "HingeLoss", "InfoNCELoss", "LpLoss",
        "QuietSoftmax", "RNNTLoss", "ReLUSquared", "Shrink", "SigmoidFocalLoss", "SwiGLU",
        "ThresholdedReLU", "DeformConv2d", "MixtureOfExperts", "PositionWiseFeedForward",
        "RotaryPositionalEmbedding", "SinusoidalPositionalEncoding"}


def made(row: Row):
    mlgpu.manual_seed(0)
    return getattr(nn, row.name)(*row.args, **row.options).double()


@pytest.mark.parametrize("row", NUMPY, ids=lambda row: row.id)
def test_formula(row):
    module, arrays = made(row), row.arrays()
    result = module(*map(mlgpu.tensor, arrays))
    np.testing.assert_allclose(result.detach().numpy(), row.formula(Arrays(module), *arrays),
                               rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.id)
def test_call(row):
    module, tensors = made(row), [mlgpu.tensor(x) for x in row.arrays()]
    for found, expected in zip(twin.flat(module(*tensors)),
                               twin.flat(row.formula(module, *tensors)), strict=True):
        assert found.tolist() == expected.tolist()


# PyTorch's own gradient has the 1/6 of single precision.
LESS_EXACT_THERE = {"Hardsigmoid": 1e-7}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_equals_pytorch(row):
    bound = LESS_EXACT_THERE.get(row.name, 1e-10)
    mine, theirs = twin.twins(row.name, *row.args, **row.options)
    assert repr(mine) == repr(theirs)
    twin.compare(mine, theirs, *row.arrays(), tolerance=bound, constants=row.constants)
    mine.eval()
    theirs.eval()
    for module in (mine, theirs):
        module.zero_grad()
    twin.compare(mine, theirs, *row.arrays(), tolerance=bound, constants=row.constants)


def test_every_layer_has_a_row():
    layers = {name for name in dir(nn) if inspect.isclass(getattr(nn, name))
              and issubclass(getattr(nn, name), nn.Module)
              and not name.startswith("Lazy")}  # test_nn_lazy.py has those
    assert layers - {row.name for row in ROWS} == ELSEWHERE | OURS


@pytest.mark.parametrize("name", sorted({row.name for row in ROWS} | ELSEWHERE - {"Module"}))
def test_signature(name):
    """PyTorch's arguments, in its order, with its defaults."""
    theirs = inspect.signature(getattr(twin.torch().nn, name).__init__).parameters
    mine = inspect.signature(getattr(nn, name).__init__).parameters
    if list(theirs)[1:] == ["args", "kwargs"]:
        return
    legacy = {"min_value", "max_value"}  # Hardtanh's names of before 2017
    assert list(mine) == [p for p in theirs if p not in legacy]
    for parameter, theirs_too in theirs.items():
        if parameter not in legacy and not callable(theirs_too.default):
            assert mine[parameter].default == theirs_too.default
            assert mine[parameter].kind == theirs_too.kind


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardsigmoid",
                                  "Hardswish", "Hardtanh", "LeakyReLU", "ELU", "CELU",
                                  "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"])
def test_in_place(name):
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 4)))
    x = x[..., 0] if name == "Dropout1d" else x[..., None] if name == "Dropout3d" else x
    x = x.clone()
    mlgpu.manual_seed(0)
    expected = getattr(nn, name)()(x)
    mlgpu.manual_seed(0)
    result = getattr(nn, name)(inplace=True)(x)
    assert result is x
    assert result.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d",
                                  "AlphaDropout", "FeatureAlphaDropout"])
def test_dropout(name):
    module = getattr(nn, name)(0.25)
    assert repr(module) == f"{name}(p=0.25, inplace=False)"
    shape = {"Dropout1d": (40, 50, 3), "Dropout3d": (40, 50, 2, 2, 2)}.get(name, (40, 50, 2, 3))
    x = mlgpu.ones(*shape)
    mlgpu.manual_seed(0)
    y = module(x).numpy()
    low = y.min()
    kept = (y != low).mean()
    assert abs(kept - 0.75) < 0.05
    if name[-1] in "123" or name.startswith("Feature"):
        channels = y.reshape(40, 50, -1)
        assert (channels == channels[..., :1]).all()
    if "Alpha" not in name:
        assert low == 0
        assert y.max() == pytest.approx(1 / 0.75)
    module.eval()
    assert module(x).tolist() == x.tolist()
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="probability"):
            getattr(nn, name)(p)


def test_batch_norm_statistics():
    x = np.random.default_rng(0).standard_normal((5, 3))
    norm = nn.BatchNorm1d(3, momentum=0.3).double()
    norm(mlgpu.tensor(x))
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.3 * x.mean(0))
    np.testing.assert_allclose(norm.running_var.numpy(), 0.7 + 0.3 * x.var(0, ddof=1))
    assert norm.num_batches_tracked.item() == 1
    norm.eval()
    before = norm.running_mean.tolist()
    y = norm(mlgpu.tensor(x)).detach().numpy()
    np.testing.assert_allclose(
        y, (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + 1e-5))
    assert norm.running_mean.tolist() == before
    norm.reset_running_stats()
    assert norm.running_var.tolist() == [1.0] * 3
    assert norm.num_batches_tracked.item() == 0


def test_conv_transpose_output_size():
    mine, theirs = twin.twins("ConvTranspose2d", 2, 3, 3, stride=3, padding=1)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 5))
    for size in ((10, 13), (12, 15), (1, 3, 11, 14)):
        twin.compare(mine, theirs, x, output_size=size)
        mine.zero_grad()
        theirs.zero_grad()
    for size in ((9, 13), (10, 16), (10,)):
        with pytest.raises(ValueError, match="output_size"):
            mine(mlgpu.tensor(x), output_size=size)


@pytest.mark.parametrize(("layer", "inputs", "options"), [
    ("CrossEntropyLoss", (X, CLASSES), {"weight": np.arange(1.0, 7)}),
    ("NLLLoss", (X, CLASSES), {"weight": np.arange(1.0, 7)}),
    ("BCELoss", (PROBABILITY, PROBABILITY), {"weight": np.arange(1.0, 7)}),
    ("BCEWithLogitsLoss", (X, PROBABILITY), {"weight": np.arange(1.0, 7),
                                             "pos_weight": np.arange(2.0, 8)}),
    ("MultiMarginLoss", (X, CLASSES), {"weight": np.arange(1.0, 7)}),
    ("MultiLabelSoftMarginLoss", (X, np.round(PROBABILITY)), {"weight": np.arange(1.0, 7)}),
])
def test_weighted_losses(layer, inputs, options):
    torch = twin.torch()
    mine = getattr(nn, layer)(**{k: mlgpu.tensor(v) for k, v in options.items()})
    theirs = getattr(torch.nn, layer)(**{k: torch.tensor(v) for k, v in options.items()})
    assert list(mine.state_dict()) == list(theirs.state_dict()) == list(options)
    rng = np.random.default_rng(0)
    twin.compare(mine, theirs, *[rng.standard_normal(x) if isinstance(x, tuple) else x
                                 for x in inputs])


def test_legacy_reduction():
    with pytest.warns(UserWarning, match="reduction"):
        assert nn.MSELoss(size_average=False).reduction == "sum"
    with pytest.warns(UserWarning, match="reduction"):
        assert nn.L1Loss(reduce=False).reduction == "none"


def test_embedding():
    table = nn.Embedding(5, 3, padding_idx=2)
    assert table.weight[2].tolist() == [0.0] * 3
    table(mlgpu.tensor([2, 1, 1])).sum().backward()
    assert table.weight.grad.tolist() == [[0.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]
    given = nn.Embedding.from_pretrained(mlgpu.eye(3))
    assert not given.weight.requires_grad
    assert nn.Embedding.from_pretrained(mlgpu.eye(3), freeze=False).weight.requires_grad
    assert given(mlgpu.tensor(1)).tolist() == [0.0, 1.0, 0.0]
    bag = nn.EmbeddingBag.from_pretrained(mlgpu.eye(3), mode="sum")
    assert not bag.weight.requires_grad
    assert bag(mlgpu.tensor([0, 1, 1]), mlgpu.tensor([0, 1])).tolist() == [[1, 0, 0], [0, 2, 0]]


def leaf(*shape):
    return mlgpu.ones(*shape)


@pytest.mark.parametrize(("make", "error"), [
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError),
    (lambda: nn.Embedding(3, 2, _weight=leaf(2, 2)), ValueError),
    (lambda: nn.Embedding.from_pretrained(leaf(2)), ValueError),
    (lambda: nn.EmbeddingBag.from_pretrained(leaf(2)), ValueError),
    (lambda: nn.GroupNorm(2, 5), ValueError),
    (lambda: nn.BatchNorm2d(3)(leaf(2, 3)), ValueError),
    (lambda: nn.BatchNorm1d(3)(leaf(2, 3, 4, 5)), ValueError),
    (lambda: nn.InstanceNorm2d(3)(leaf(2, 3)), ValueError),
    (lambda: nn.InstanceNorm1d(3, affine=True)(leaf(2, 4, 5)), ValueError),
    (lambda: nn.InstanceNorm1d(3)(leaf(2, 4, 5)), UserWarning),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError),
    (lambda: nn.Conv2d(4, 4, 3, padding_mode="wrap"), ValueError),
    (lambda: nn.Conv2d(4, 4, 3, padding="full"), ValueError),
    (lambda: nn.Conv2d(4, 4, 3, padding="same", stride=2), ValueError),
    (lambda: nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect"), ValueError),
    (lambda: nn.ConvTranspose2d(4, 4, 3, padding="same"), ValueError),
    (lambda: nn.Hardtanh(1.0, -1.0), ValueError),
    (lambda: nn.Softmax2d()(leaf(2, 3)), ValueError),
    (lambda: nn.MultiMarginLoss(p=3), ValueError),
    (lambda: nn.TripletMarginLoss(margin=-1), ValueError),
    (lambda: nn.TripletMarginWithDistanceLoss(margin=0), ValueError),
])
def test_wrong_use(make, error):
    with pytest.raises(error):
        make()
