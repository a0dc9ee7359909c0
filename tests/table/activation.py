"""Rows for mlgpu/ops/activation.py, and for functions fused by the user."""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import FLOATS, Case, In

import mlgpu
from mlgpu.ops import activation


def clear(rng, shape):
    """Values away from every kink of the functions below."""
    x = rng.uniform(-4, 4, shape)
    for kink in (-3.0, -1.0, -0.5, 0.0, 0.3, 0.5, 1.0, 3.0):
        near = np.abs(x - kink) < 0.05
        x[near] = kink + 0.07
    return x


X = In((3, 7), make=clear)
EXTREME = In((8,), make=lambda rng, shape: np.array(
    [-1000, -90, -30, 0.0, 25, 89, 1000, np.nan]))


def sigmoid(x):
    return special.expit(x)


def selu(x):
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return scale * np.where(x > 0, x, alpha * np.expm1(x))


REFERENCES = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": selu,
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "logsigmoid": lambda x: -np.logaddexp(-x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanhshrink": lambda x: x - np.tanh(x),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "hardshrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
}

# Where PyTorch's own function is less exact: its gradient has the 1/6 of single precision.
PEERS = {"hardsigmoid": lambda torch, x: torch.nn.functional.relu6(x + 3) / 6}


def rows(name, reference):
    """One function at ordinary values, at extreme ones, 0-dim and empty."""
    def call(x):
        return getattr(activation, name)(x)

    def peer(torch, x):
        if name in PEERS:
            return PEERS[name](torch, x)
        return getattr(torch.nn.functional, name)(x)

    shapes = {"": X, "-scalar": In((), make=clear), "-empty": In((0, 2))}
    return [*(Case(name=f"{name}{tag}", fn=call, inputs=(spec,), reference=reference, torch=peer,
                   dtypes=FLOATS) for tag, spec in shapes.items()),
            Case(name=f"{name}-extreme", fn=call, inputs=(EXTREME,), reference=None, torch=peer,
                 dtypes=("float64", "float32"), gradient=False)]


def with_options(name, *args, inputs=(X,), reference=None, tag="options", **options):
    """A function with arguments that differ from the defaults."""
    return Case(name=f"{name}-{tag}",
                fn=lambda *xs: getattr(activation, name)(*xs, *args, **options), inputs=inputs,
                reference=reference, dtypes=FLOATS,
                torch=lambda torch, *xs: getattr(torch.nn.functional, name)(*xs, *args, **options))


@mlgpu.fuse
def gated(x, y, scale):
    """Several steps, a selection, a number and a broadcast operand."""
    inner = (x * scale + y).tanh()
    return mlgpu.where(x > y, inner * x, inner.sigmoid())


@mlgpu.fuse
def two_results(x, y):
    """More than one result from one pass."""
    e = (x - y).exp()
    return e * x, e + y


def gated_reference(x, y):
    inner = np.tanh(x * 0.5 + y)
    return np.where(x > y, inner * x, sigmoid(inner))


def gated_torch(torch, x, y):
    inner = (x * 0.5 + y).tanh()
    return torch.where(x > y, inner * x, inner.sigmoid())


CASES = [
    *[case for name, reference in REFERENCES.items() for case in rows(name, reference)],
    with_options("gelu", approximate="tanh", reference=lambda x: 0.5 * x * (
        1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    with_options("leaky_relu", 0.3, reference=lambda x: np.where(x > 0, x, 0.3 * x)),
    with_options("elu", 1.7, reference=lambda x: np.where(x > 0, x, 1.7 * np.expm1(x))),
    # PyTorch rounds 1 / alpha to single precision, so one for which that is exact.
    with_options("celu", 2, reference=lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2))),
    with_options("softplus", 2, 3, reference=lambda x: np.where(
        2 * x > 3, x, np.logaddexp(2 * x, 0) / 2)),
    with_options("hardtanh", -0.55, 0.25, reference=lambda x: np.clip(x, -0.55, 0.25)),
    with_options("hardshrink", 0.25, reference=lambda x: np.where(np.abs(x) > 0.25, x, 0)),
    with_options("softshrink", 0.25, reference=lambda x: np.sign(x) * np.maximum(
        np.abs(x) - 0.25, 0)),
    with_options("threshold", 0.25, -2.0, reference=lambda x: np.where(x > 0.25, x, -2.0)),
    with_options("prelu", inputs=(X, In((1,))), tag="one",
                 reference=lambda x, w: np.where(x > 0, x, w * x)),
    with_options("prelu", inputs=(In((2, 3, 5), make=clear), In((3,))), tag="channels",
                 reference=lambda x, w: np.where(x > 0, x, w[:, None] * x)),
    with_options("rrelu", 0.1, 0.5, tag="eval", reference=lambda x: np.where(x > 0, x, 0.3 * x)),
    with_options("glu", inputs=(In((3, 6)),), tag="last",
                 reference=lambda x: x[:, :3] * sigmoid(x[:, 3:])),
    with_options("glu", 0, inputs=(In((4, 3)),), tag="first",
                 reference=lambda x: x[:2] * sigmoid(x[2:])),
    Case(name="fuse", fn=lambda x, y: gated(x, y, 0.5), inputs=(X, In((7,), 5, 6)),
         reference=gated_reference, torch=gated_torch, dtypes=FLOATS),
    Case(name="fuse-broadcast", fn=lambda x, y: gated(x, y, 0.5),
         inputs=(In((3, 1, 5)), In((4, 1), 5, 6)), reference=gated_reference, torch=gated_torch,
         dtypes=FLOATS),
    Case(name="fuse-two", fn=two_results, inputs=(In((3, 5)), In((5,))),
         reference=lambda x, y: (np.exp(x - y) * x, np.exp(x - y) + y),
         torch=lambda torch, x, y: ((x - y).exp() * x, (x - y).exp() + y), dtypes=FLOATS),
]
