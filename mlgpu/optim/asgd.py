"""ASGD."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.dtypes import float32
from mlgpu.ops.creation import full
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool) -> Rule:
    def follow(t: Any, eta: Any, mu: Any, lr: Any, lambd: Any, alpha: Any, t0: Any, decay: Any
               ) -> Any:
        t = t + 1
        return (t, lr / (1 + lambd * lr * t) ** alpha, 1 / (t - t0).clamp(min=1),
                eta, mu, 1 - mu, 1 - lambd * eta, decay)

    def change(p: Any, g: Any, average: Any, eta: Any, mu: Any, kept: Any, shrunk: Any, decay: Any
               ) -> Any:
        g = g + p * decay if decays else g
        p = p * shrunk - g * eta
        return p, average * kept + p * mu

    return Rule("asgd", ("ax",), ("step", "eta", "mu"), 5, follow, change)


class ASGD(RuleOptimizer):
    """SGD with a falling rate, whose parameters are averaged from step `t0` on: state "ax".

    Polyak and Juditsky 1992.
    """

    _singles = ("step", "eta", "mu")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lambd: float = 1e-4,
                 alpha: float = 0.75, t0: float = 1e6, weight_decay: float = 0,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        check_setting("ASGD", "lr", float(lr))
        check_setting("ASGD", "weight_decay", weight_decay)
        check_options("ASGD", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0)

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["lambd"], group["alpha"], group["t0"], group["weight_decay"]

    def begin(self, name: str, param: Tensor, group: dict[str, Any]) -> Tensor:
        if name in ("eta", "mu"):
            value = float(group["lr"]) if name == "eta" else 1.0
            return full((), value, dtype=float32, device=param.device)
        return super().begin(name, param, group)
