"""Rprop."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.ops.choice import maximum, minimum, where
from mlgpu.ops.creation import full_like
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.ops.rounding import sign
from mlgpu.optim.optimizer import Params, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule() -> Rule:
    def follow(t: Any, lr: Any, shrink: Any, grow: Any, least: Any, most: Any) -> Any:
        return t + 1, shrink, grow, least, most

    def change(p: Any, g: Any, previous: Any, size: Any, shrink: Any, grow: Any, least: Any,
               most: Any) -> Any:
        agreement = g * previous
        size = where(agreement > 0, size * grow, where(agreement < 0, size * shrink, size))
        size = minimum(maximum(size, least), most)
        g = where(agreement < 0, 0, g)
        return p - sign(g) * size, g, size

    return Rule("rprop", ("prev", "step_size"), ("step",), 5, follow, change)


class Rprop(RuleOptimizer):
    """Steps along the gradient's signs, each as long as the signs so far have agreed.

    A step grows by etas[1] while the sign stays, shrinks by etas[0] and is left out where it turns,
    and stays within `step_sizes`; it begins as `lr`.  Riedmiller and Braun 1993.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-2,
                 etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        check_setting("Rprop", "lr", float(lr))
        if not 0 < etas[0] < 1 < etas[1]:
            raise ShapeError(f"Rprop: etas must be below and above 1, got {etas}")
        check_options("Rprop", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule()

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["etas"], *group["step_sizes"])

    def begin(self, name: str, param: Tensor, group: dict[str, Any]) -> Tensor:
        if name != "step_size":
            return super().begin(name, param, group)
        lr = float(group["lr"])
        return full_like(param, complex(lr, lr) if param.is_complex() else lr)
