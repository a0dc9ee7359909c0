"""Adamax."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.choice import maximum
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_betas, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool) -> Rule:
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, decay: Any) -> Any:
        return t + 1, lr / (1 - beta1 ** (t + 1)), 1 - beta1, beta2, eps, decay

    def change(p: Any, g: Any, mean: Any, largest: Any, size: Any, share: Any, beta2: Any,
               eps: Any, decay: Any) -> Any:
        g = g + p * decay if decays else g
        mean = mean + (g - mean) * share
        largest = maximum(largest * beta2, abs(g) + eps)
        return p - mean / largest * size, mean, largest

    return Rule("adamax", ("exp_avg", "exp_inf"), ("step",), 5, follow, change, momentum=1)


class Adamax(RuleOptimizer):
    """Adam with the largest gradient so far (decaying by beta2) in place of the root of squares.

    Kingma and Ba 2015, section 7.
    """

    def __init__(self, params: Params, lr: float | Tensor = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_setting("Adamax", "lr", float(lr))
        check_setting("Adamax", "eps", eps)
        check_betas("Adamax", betas)
        check_setting("Adamax", "weight_decay", weight_decay)
        check_options("Adamax", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0)

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"])
