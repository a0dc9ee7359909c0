"""The updates of SGD and Adam, each in one pass: see `mlgpu.cpu.optimizer` for the rules."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.cpu.fast.compiler import compiled, inlined


@inlined
def _decayed(p: Any, g: Any, factor: Any, decay: Any, coupled: bool) -> Any:
    g = g * factor
    return g + decay * p if coupled else g


@compiled
def sgd(param: Any, grad: Any, lr: Any, factor: Any, decay: Any, coupled: bool) -> None:
    for i in range(param.size):
        p = param[i]
        param[i] = p - lr * _decayed(p, grad[i], factor, decay, coupled)


@compiled
def sgd_momentum(param: Any, buffer: Any, grad: Any, lr: Any, factor: Any, decay: Any,
                 coupled: bool, momentum: Any, share: Any, nesterov: bool, first: bool) -> None:
    for i in range(param.size):
        p = param[i]
        g = _decayed(p, grad[i], factor, decay, coupled)
        b = g if first else momentum * buffer[i] + share * g  # not read before it has a value
        buffer[i] = b
        param[i] = p - lr * (g + momentum * b if nesterov else b)


@inlined
def _step(p: Any, mean: Any, largest: Any, kept: Any, root: Any, eps: Any, size: Any) -> Any:
    return p * kept - size * (mean / (math.sqrt(largest) * root + eps))


@compiled
def adam(param: Any, mean: Any, square: Any, grad: Any, factor: Any, decay: Any, coupled: bool,
         kept: Any, share1: Any, beta2: Any, share2: Any, root: Any, eps: Any, size: Any) -> None:
    for i in range(param.size):
        p, m = param[i], mean[i]
        g = _decayed(p, grad[i], factor, decay, coupled)
        m += share1 * (g - m)
        s = beta2 * square[i] + share2 * (g * g)
        mean[i] = m
        square[i] = s
        param[i] = _step(p, m, s, kept, root, eps, size)


@compiled
def adam_peak(param: Any, mean: Any, square: Any, peak: Any, grad: Any, factor: Any, decay: Any,
              coupled: bool, kept: Any, share1: Any, beta2: Any, share2: Any, root: Any, eps: Any,
              size: Any) -> None:
    for i in range(param.size):
        p, m = param[i], mean[i]
        g = _decayed(p, grad[i], factor, decay, coupled)
        m += share1 * (g - m)
        s = beta2 * square[i] + share2 * (g * g)
        largest = peak[i]
        if s > largest or s != s:  # NaN stays, as in NumPy's maximum
            largest = s
        mean[i] = m
        square[i] = s
        peak[i] = largest
        param[i] = _step(p, m, largest, kept, root, eps, size)
