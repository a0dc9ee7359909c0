"""Muon: momentum whose steps are orthogonal matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.dtypes import bfloat16
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.addmm import addmm
from mlgpu.ops.creation import zeros_like
from mlgpu.optim.optimizer import Optimizer, Params, check_setting, grad_of
from mlgpu.tensor import Tensor

_ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(Optimizer):
    """param -= lr * orthogonal(momentum), for the matrices inside a network (Jordan et al. 2024).

    `orthogonal` sends all singular values near 1 by `ns_steps` Newton-Schulz iterations in
    bfloat16.  `adjust_lr_fn`: "original" (or None) multiplies lr by sqrt(max(1, rows / columns)),
    "match_rms_adamw" by 0.2 * sqrt(max(rows, columns)), for AdamW's rates.  Embeddings, biases and
    the last layer want another optimizer.  Raises ShapeError for parameters that are not matrices.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, weight_decay: float = 0.1,
                 momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        check_setting("Muon", "lr", float(lr))
        check_setting("Muon", "momentum", momentum)
        check_setting("Muon", "weight_decay", weight_decay)
        check_setting("Muon", "ns_steps", ns_steps, high=100)
        if adjust_lr_fn is not None and adjust_lr_fn not in _ADJUSTMENTS:
            raise ShapeError(f"Muon: adjust_lr_fn must be one of {_ADJUSTMENTS} or None, got "
                             f"{adjust_lr_fn!r}")
        if len(ns_coefficients) != 3:
            raise ShapeError(f"Muon: ns_coefficients must be 3 numbers, got {ns_coefficients}")
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn})

    def _check_params(self, params: list[Any]) -> None:
        super()._check_params(params)
        for param in params:
            if param.ndim != 2:
                raise ShapeError("Muon: parameters must be matrices, got one of shape "
                                 f"{tuple(param.shape)}; give that to another optimizer")
            if param.is_complex():
                raise DTypeError("Muon: parameters must be real, got a complex one of shape "
                                 f"{tuple(param.shape)}")

    def update(self, group: dict[str, Any]) -> None:
        for param in group["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            if "momentum_buffer" not in state:
                self._check_begun()
                state["momentum_buffer"] = zeros_like(param)
            lr, cell = self._moving(group, param.device)
            share = 1 - (group["momentum"] if cell is None else cell.reshape(()))
            grad = grad_of(param)
            average = state["momentum_buffer"].lerp_(grad, share)
            step = orthogonal(grad.lerp(average, 1 - share) if group["nesterov"] else average,
                              group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = (lr.reshape(()) if isinstance(lr, Tensor) else lr) * _adjusted(
                group["adjust_lr_fn"], *param.shape)
            param.mul_(1 - (lr.reshape(()) if isinstance(lr, Tensor) else lr)
                       * group["weight_decay"])
            param.sub_(step.to(param.dtype) * rate)


def _adjusted(kind: str | None, rows: int, columns: int) -> float:
    if kind == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def orthogonal(matrix: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """About U V^T of the matrix U S V^T, in bfloat16.

    Each iteration is x = a x + (b g + c g g) x with g = x x^T, whose slope at 0 is steep: singular
    values end between about 0.5 and 1.5.
    """
    a, b, c = coefficients
    rows, columns = matrix.shape
    x = matrix.to(bfloat16)
    x = x.T if rows > columns else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = addmm(x, addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if rows > columns else x
