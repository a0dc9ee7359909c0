"""Adadelta."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool) -> Rule:
    def follow(t: Any, lr: Any, rho: Any, eps: Any, decay: Any) -> Any:
        return t + 1, lr, rho, 1 - rho, eps, decay

    def change(p: Any, g: Any, square: Any, delta: Any, lr: Any, rho: Any, share: Any, eps: Any,
               decay: Any) -> Any:
        g = g + p * decay if decays else g
        square = square * rho + g * g * share
        step = sqrt(delta + eps) / sqrt(square + eps) * g
        return p - step * lr, square, delta * rho + step * step * share

    return Rule("adadelta", ("square_avg", "acc_delta"), ("step",), 4, follow, change)


class Adadelta(RuleOptimizer):
    """param -= lr * grad * sqrt(d + eps) / sqrt(v + eps): averages of squared steps and gradients.

    Zeiler 2012.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1.0, rho: float = 0.9,
                 eps: float = 1e-6, weight_decay: float = 0, foreach: bool | None = None, *,
                 capturable: bool = False, maximize: bool = False, differentiable: bool = False
                 ) -> None:
        check_setting("Adadelta", "lr", float(lr))
        if not 0 <= rho <= 1:
            raise ShapeError(f"Adadelta: rho must be between 0 and 1, got {rho}")
        check_setting("Adadelta", "eps", eps)
        check_setting("Adadelta", "weight_decay", weight_decay)
        check_options("Adadelta", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0)

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["rho"], group["eps"], group["weight_decay"]
