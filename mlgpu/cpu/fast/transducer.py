"""The gradient of a transducer's logits, a row of classes at a time: see `mlgpu.ops`."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.maths import exp_down

__all__ = ["gradient"]


@compiled
def gradient(dx: Any, x: Any, lse: Any, label: Any, inside: Any, stay: Any, move: Any, scale: Any,
             blank: int, limit: float, fused: bool) -> None:
    """See `TransducerLoss._gradient`."""
    rows, n = x.shape
    zero, most = x.dtype.type(0), x.dtype.type(limit)
    for i in range(rows):
        if inside[i, 0] and fused:
            less, here = lse[i, 0], stay[i, 0] + move[i, 0]
            for column in range(n):
                dx[i, column] = exp_down(x[i, column] - less) * here
        else:
            for column in range(n):
                dx[i, column] = zero
        dx[i, blank] -= stay[i, 0]
        dx[i, label[i, 0]] -= move[i, 0]
        factor = scale[i, 0]
        for column in range(n):
            value = dx[i, column]
            if value > most:
                value = most
            elif value < -most:
                value = -most
            dx[i, column] = value * factor
