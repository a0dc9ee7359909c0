"""Adagrad."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.creation import full_like
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool) -> Rule:
    def follow(t: Any, lr: Any, lr_decay: Any, eps: Any, decay: Any) -> Any:
        return t + 1, lr / (1 + t * lr_decay), eps, decay

    def change(p: Any, g: Any, total: Any, lr: Any, eps: Any, decay: Any) -> Any:
        g = g + p * decay if decays else g
        total = total + g * g
        return p - g / (sqrt(total) + eps) * lr, total

    return Rule("adagrad", ("sum",), ("step",), 4, follow, change)


class Adagrad(RuleOptimizer):
    """param -= lr / (1 + (step - 1) * lr_decay) * grad / (sqrt(sum of squares) + eps).

    Duchi, Hazan and Singer 2011.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lr_decay: float = 0,
                 weight_decay: float = 0, initial_accumulator_value: float = 0,
                 eps: float = 1e-10, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        check_setting("Adagrad", "lr", float(lr))
        check_setting("Adagrad", "lr_decay", lr_decay)
        check_setting("Adagrad", "weight_decay", weight_decay)
        check_setting("Adagrad", "initial_accumulator_value", initial_accumulator_value)
        check_setting("Adagrad", "eps", eps)
        check_options("Adagrad", differentiable, foreach, fused)
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:
            for param in group["params"]:
                self._prepare(param, group)

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0)

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["lr_decay"], group["eps"], group["weight_decay"]

    def begin(self, name: str, param: Tensor, group: dict[str, Any]) -> Tensor:
        if name == "step":
            return super().begin(name, param, group)
        value = group["initial_accumulator_value"]
        return full_like(param, complex(value, value) if param.is_complex() else value)
