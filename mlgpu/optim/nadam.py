"""NAdam."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.dtypes import float32
from mlgpu.ops.creation import full
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_betas, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool, decoupled: bool) -> Rule:
    def follow(t: Any, product: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, decay: Any,
               momentum_decay: Any) -> Any:
        t = t + 1
        momentum = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        following = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
        product = product * momentum
        return (t, product, lr * (1 - momentum) / (1 - product),
                lr * following / (1 - product * following), 1 - beta1, beta2, 1 - beta2,
                sqrt(1 - beta2 ** t), eps, 1 - lr * decay if decoupled else decay)

    def change(p: Any, g: Any, mean: Any, square: Any, lr_grad: Any, lr_mean: Any, share1: Any,
               beta2: Any, share2: Any, root: Any, eps: Any, decay: Any) -> Any:
        if decays:
            p, g = (p * decay, g) if decoupled else (p, g + p * decay)
        mean = mean + (g - mean) * share1
        square = square * beta2 + g * g * share2
        scale = sqrt(square) / root + eps
        return p - g / scale * lr_grad - mean / scale * lr_mean, mean, square

    return Rule("nadam", ("exp_avg", "exp_avg_sq"), ("step", "mu_product"), 6, follow, change,
                momentum=1)


class NAdam(RuleOptimizer):
    """Adam with Nesterov's momentum, which grows towards beta1 by a schedule (Dozat 2016)."""

    _singles = ("step", "mu_product")

    def __init__(self, params: Params, lr: float | Tensor = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False
                 ) -> None:
        check_setting("NAdam", "lr", float(lr))
        check_setting("NAdam", "eps", eps)
        check_betas("NAdam", betas)
        check_setting("NAdam", "weight_decay", weight_decay)
        check_setting("NAdam", "momentum_decay", momentum_decay)
        check_options("NAdam", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0, group["decoupled_weight_decay"])

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"], group["momentum_decay"])

    def begin(self, name: str, param: Tensor, group: dict[str, Any]) -> Tensor:
        if name == "mu_product":
            return full((), 1.0, dtype=float32, device=param.device)
        return super().begin(name, param, group)
