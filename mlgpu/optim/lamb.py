"""LAMB."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu import dtypes
from mlgpu.dtypes import float64
from mlgpu.linalg import vector_norm
from mlgpu.ops.choice import where
from mlgpu.ops.creation import empty_like, zeros_like
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.optimizer_rule import Rule, RuleSettings, apply_rule_
from mlgpu.optim.optimizer import Params, check_betas, check_setting, grad_of
from mlgpu.optim.rule import RuleOptimizer
from mlgpu.tensor import Tensor


@cache
def _direction() -> Rule:
    """Adam's averages, and the direction of the step: it is long where the rate makes no sense."""
    def follow(t: Any, lr: Any, beta1: Any, beta2: Any, eps: Any, decay: Any) -> Any:
        t = t + 1
        return (t, 1 - beta1, beta2, 1 - beta2, 1 / (1 - beta1 ** t), sqrt(1 - beta2 ** t), eps,
                decay)

    def change(p: Any, g: Any, mean: Any, square: Any, direction: Any, share1: Any, beta2: Any,
               share2: Any, scale: Any, root: Any, eps: Any, decay: Any) -> Any:
        mean = mean + (g - mean) * share1
        square = square * beta2 + g * g * share2
        return p, mean, square, mean * scale / (sqrt(square) / root + eps) + p * decay

    return Rule("lamb direction", ("exp_avg", "exp_avg_sq"), ("step",), 5, follow, change,
                momentum=1, scratch=1)


@cache
def _step() -> Rule:
    def follow(trust: Any, lr: Any) -> Any:
        return trust, trust * lr

    return Rule("lamb step", (), ("trust",), 1, follow, lambda p, g, size: (p - g * size,),
                single=float64)


class LAMB(RuleOptimizer):
    """Adam's direction with decay; a step is lr times as long as the parameter.

    Where the parameter or the direction is 0 the step is lr * direction.  You et al. 2020.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
                 weight_decay: float = 1e-2, *, maximize: bool = False) -> None:
        check_setting("LAMB", "lr", float(lr))
        check_setting("LAMB", "eps", eps)
        check_betas("LAMB", betas)
        check_setting("LAMB", "weight_decay", weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps,
                                  "weight_decay": weight_decay, "maximize": maximize})

    def rule(self, group: dict[str, Any]) -> Rule:
        return _direction()

    def numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        return (*group["betas"], group["eps"], group["weight_decay"])

    def _apply(self, rule: Rule, params: list[Tensor], settings: list[RuleSettings]) -> None:
        made = empty_like if self.found_inf is None else zeros_like  # left out, it is read
        directions = [made(param) for param in params]
        states = [self.state[param] for param in params]
        apply_rule_(rule, params, [grad_of(param) for param in params],
                    [(state["exp_avg"], state["exp_avg_sq"], direction)
                     for state, direction in zip(states, directions, strict=True)],
                    [(state["step"],) for state in states], settings,
                    grad_factor=self.grad_factor, found_inf=self.found_inf)
        rates = {id(s): RuleSettings(s.numbers[:1]) for s in settings}
        apply_rule_(_step(), params, directions, [()] * len(params),
                    [(_trust(*pair),) for pair in zip(params, directions, strict=True)],
                    [rates[id(s)] for s in settings], found_inf=self.found_inf)


def _trust(param: Tensor, direction: Tensor) -> Tensor:
    """The share of the direction's norm in the parameter's, float64; 1 where one is 0."""
    wide = dtypes.compute_dtype(param.dtype)
    ours, theirs = (vector_norm(t.to(wide)).to(float64) for t in (param, direction))
    return where((ours > 0) & (theirs > 0), ours / theirs, 1.0)
