"""Adan."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.choice import where
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_betas, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(no_prox: bool) -> Rule:
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, beta3: Any, eps: Any, decay: Any) -> Any:
        t = t + 1
        begun = where(t > 1, 1.0, 0.0)  # before, there is no difference of gradients
        return (t, lr / (1 - beta1 ** t), lr * beta2 / (1 - beta2 ** t), sqrt(1 - beta3 ** t),
                begun, 1 - beta1, beta2, 1 - beta2, beta3, 1 - beta3, eps,
                1 - lr * decay if no_prox else 1 / (1 + lr * decay))

    def change(p: Any, g: Any, mean: Any, difference: Any, square: Any, previous: Any,
               lr_mean: Any, lr_difference: Any, root: Any, begun: Any, share1: Any, beta2: Any,
               share2: Any, beta3: Any, share3: Any, eps: Any, shrunk: Any) -> Any:
        jump = (g - previous) * begun
        mean = mean + (g - mean) * share1
        difference = difference + (jump - difference) * share2
        ahead = g + jump * beta2
        square = square * beta3 + ahead * ahead * share3
        step = (mean * lr_mean + difference * lr_difference) / (sqrt(square) / root + eps)
        p = p * shrunk - step if no_prox else (p - step) * shrunk
        return p, mean, difference, square, g

    return Rule("adan", ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad"), ("step",), 6,
                follow, change, momentum=1)


class Adan(RuleOptimizer):
    """Adaptive Nesterov momentum: averages of gradients, of their differences, and of squares.

    `betas` are the shares that averages keep (in the paper, 1 - beta): of gradients, differences
    and squares.  Weight decay is a proximal step, or as in AdamW with `no_prox`.  Xie et al. 2022.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float, float] = (0.98, 0.92, 0.99), eps: float = 1e-8,
                 weight_decay: float = 0.0, *, no_prox: bool = False, maximize: bool = False
                 ) -> None:
        check_setting("Adan", "lr", float(lr))
        check_setting("Adan", "eps", eps)
        check_betas("Adan", betas, 3)
        check_setting("Adan", "weight_decay", weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps,
                                  "weight_decay": weight_decay, "no_prox": no_prox,
                                  "maximize": maximize})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["no_prox"])

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"])
