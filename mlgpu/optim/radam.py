"""RAdam."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.choice import where
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_betas, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool, decoupled: bool) -> Rule:
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, decay: Any) -> Any:
        t = t + 1
        size, rest = lr / (1 - beta1 ** t), 1 - beta2 ** t
        most = 2 / (1 - beta2) - 1
        length = most - 2 * t * beta2 ** t / rest
        known = length > 5  # else the variance of the second moment is not yet bounded
        ratio = ((length - 4) * (length - 2) * most) / ((most - 4) * (most - 2) * length)
        rectified = where(known, size * sqrt(where(known, ratio, 0.0) * rest), 0.0)
        return (t, where(known, 0.0, size), rectified, 1 - beta1, beta2, 1 - beta2, eps,
                1 - lr * decay if decoupled else decay)

    def change(p: Any, g: Any, mean: Any, square: Any, plain: Any, rectified: Any, share1: Any,
               beta2: Any, share2: Any, eps: Any, decay: Any) -> Any:
        if decays:
            p, g = (p * decay, g) if decoupled else (p, g + p * decay)
        mean = mean + (g - mean) * share1
        square = square * beta2 + g * g * share2
        return p - mean * plain - mean / (sqrt(square) + eps) * rectified, mean, square

    return Rule("radam", ("exp_avg", "exp_avg_sq"), ("step",), 5, follow, change, momentum=1)


class RAdam(RuleOptimizer):
    """Adam whose adaptive rate is rectified, and left out as long as its variance is unbounded.

    Liu et al. 2020.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        check_setting("RAdam", "lr", float(lr))
        check_setting("RAdam", "eps", eps)
        check_betas("RAdam", betas)
        check_setting("RAdam", "weight_decay", weight_decay)
        check_options("RAdam", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0, group["decoupled_weight_decay"])

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"])
