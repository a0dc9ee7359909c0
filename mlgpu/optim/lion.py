"""Lion."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.optimizer_rule import Rule
from mlgpu.ops.rounding import sign
from mlgpu.optim.optimizer import Params, check_betas, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule() -> Rule:
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, decay: Any) -> Any:
        return t + 1, lr, 1 - lr * decay, beta1, 1 - beta1, beta2, 1 - beta2

    def change(p: Any, g: Any, mean: Any, lr: Any, shrunk: Any, beta1: Any, share1: Any,
               beta2: Any, share2: Any) -> Any:
        return (p * shrunk - sign(mean * beta1 + g * share1) * lr, mean * beta2 + g * share2)

    return Rule("lion", ("exp_avg",), ("step",), 4, follow, change, momentum=1)


class Lion(RuleOptimizer):
    """param -= lr * (sign(beta1 * m + (1 - beta1) * grad) + weight_decay * param).

    m, the only state, is the gradient's moving average by beta2.  Chen et al. 2023.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-4,
                 betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *,
                 maximize: bool = False) -> None:
        check_setting("Lion", "lr", float(lr))
        check_betas("Lion", betas)
        check_setting("Lion", "weight_decay", weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay,
                                  "maximize": maximize})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule()

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["weight_decay"])
