"""AdamW with cautious weight decay."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.choice import maximum, where
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_betas, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(peaked: bool) -> Rule:
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, decay: Any) -> Any:
        t = t + 1
        return (t, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1 ** t), sqrt(1 - beta2 ** t), eps,
                lr * decay)

    def change(p: Any, g: Any, mean: Any, square: Any, *rest: Any) -> Any:
        *peak, share1, beta2, share2, size, root, eps, decay = rest
        mean = mean + (g - mean) * share1
        square = square * beta2 + g * g * share2
        largest = maximum(peak[0], square) if peaked else square
        step = mean / (sqrt(largest) / root + eps)
        kept = p - where(step * p >= 0, p * decay, 0)
        return (kept - step * size, mean, square, *([largest] if peaked else []))

    arrays = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * peaked
    return Rule("cautious_adamw", tuple(arrays), ("step",), 5, follow, change, momentum=1)


class CautiousAdamW(RuleOptimizer):
    """AdamW that lets only those elements decay that the step takes towards 0 as well.

    Cautious weight decay, Chen et al. 2025; state and arguments are AdamW's.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False
                 ) -> None:
        check_setting("CautiousAdamW", "lr", float(lr))
        check_setting("CautiousAdamW", "eps", eps)
        check_betas("CautiousAdamW", betas)
        check_setting("CautiousAdamW", "weight_decay", weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "amsgrad": amsgrad,
                                  "weight_decay": weight_decay, "maximize": maximize})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["amsgrad"])

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"])
