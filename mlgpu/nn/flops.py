"""How many floating point operations an operation's forward takes, by its shapes.

Counted are products of matrices, convolutions, attention and the recurrent products, 2 for each
multiplication with its addition, whatever the way in which they are computed; biases, activations,
norms, reductions and element by element maths are not: what PyTorch's FlopCounterMode counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlgpu.op import Op

Rule = Callable[[Any, Sequence[Any], Any], int]  # (operation, inputs, first output)


def _size(array: Any) -> int:
    return int(array.size)


def _convolve(op: Any, inputs: Sequence[Any], out: Any) -> int:
    weight = inputs[1]
    return int(2 * _size(out) * _size(weight) // max(weight.shape[0], 1))


def _convolve_transpose(op: Any, inputs: Sequence[Any], out: Any) -> int:
    x, weight = inputs[:2]
    return int(2 * _size(x) * _size(weight) // max(weight.shape[0], 1))


def _attention(op: Any, inputs: Sequence[Any], out: Any) -> int:
    query, key, value = inputs[:3]
    rows = _size(out) // max(out.shape[-1], 1)
    return int(2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _packed_attention(op: Any, inputs: Sequence[Any], out: Any) -> int:
    length = out.shape[1 if op.batch_first else 0]
    return int(4 * _size(out) * length)


def _recurrent(gates: int) -> Rule:
    """The products with the hidden state, whose weight is input `gates`; the rest is a Linear."""
    return lambda op, inputs, out: 2 * _size(inputs[0]) * inputs[gates].shape[-1]


RULES: dict[str, Rule] = {
    "Linear": lambda op, inputs, out: 2 * _size(out) * inputs[1].shape[-1],
    "MatMul": lambda op, inputs, out: 2 * _size(out) * inputs[0].shape[-1],
    "AddMatMul": lambda op, inputs, out: 2 * _size(out) * inputs[1].shape[-1],
    "VecDot": lambda op, inputs, out: 2 * _size(inputs[0]),
    "Convolve": _convolve,
    "ConvolveTranspose": _convolve_transpose,
    "ScaledDotProductAttention": _attention,
    "PackedAttention": _packed_attention,
    "Lstm": _recurrent(3),
    "Gru": _recurrent(2),
    "Rnn": _recurrent(2),
    "LinearCrossEntropy": lambda op, inputs, out: 2 * _size(inputs[0]) * inputs[1].shape[0],
}


def forward_flops(function: Callable[..., Any], inputs: Sequence[Any], result: Any) -> int:
    """The operations of one call of a runtime: 0 for what is no forward or is not counted."""
    op = getattr(function, "__self__", None)
    if not isinstance(op, Op) or not function.__name__.startswith("forward"):
        return 0
    rule = RULES.get(type(op).__name__)
    if rule is None:
        return 0
    return int(rule(op, inputs, result[0] if isinstance(result, tuple) else result))
