"""RMSprop."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule
from mlgpu.optim.optimizer import Params, check_options, check_setting
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _rule(decays: bool, centered: bool, moving: bool) -> Rule:
    arrays = ["square_avg"] + ["momentum_buffer"] * moving + ["grad_avg"] * centered

    def follow(t: Any, lr: Any, momentum: Any, alpha: Any, eps: Any, decay: Any) -> Any:
        return t + 1, lr, momentum, alpha, 1 - alpha, eps, decay

    def change(p: Any, g: Any, square: Any, *rest: Any) -> Any:
        buffers, (lr, momentum, alpha, share, eps, decay) = list(rest[:-6]), rest[-6:]
        g = g + p * decay if decays else g
        square = square * alpha + g * g * share
        spread = square
        if centered:
            buffers[-1] = buffers[-1] + (g - buffers[-1]) * share
            spread = square - buffers[-1] * buffers[-1]
        step = g / (sqrt(spread) + eps)
        if moving:
            step = buffers[0] = buffers[0] * momentum + step
        return (p - step * lr, square, *buffers)

    return Rule("rmsprop", tuple(arrays), ("step",), 5, follow, change, momentum=1)


class RMSprop(RuleOptimizer):
    """param -= lr * grad / (sqrt(v) + eps), v the moving average of the gradient's square.

    Tieleman and Hinton 2012.  With `centered` v is the variance, with `momentum` the steps have a
    running sum (Graves 2013).
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, alpha: float = 0.99,
                 eps: float = 1e-8, weight_decay: float = 0, momentum: float = 0,
                 centered: bool = False, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False) -> None:
        check_setting("RMSprop", "lr", float(lr))
        check_setting("RMSprop", "eps", eps)
        check_setting("RMSprop", "momentum", momentum)
        check_setting("RMSprop", "weight_decay", weight_decay)
        check_setting("RMSprop", "alpha", alpha)
        check_options("RMSprop", differentiable, foreach, None)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _rule(group["weight_decay"] != 0, group["centered"], group["momentum"] > 0)

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return group["momentum"], group["alpha"], group["eps"], group["weight_decay"]
