"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from mlgpu.dtypes import float32
from mlgpu.ops.creation import zeros, zeros_like
from mlgpu.ops.optimizer import adam_
from mlgpu.optim.optimizer import Optimizer, Params, check_options, check_setting
from mlgpu.tensor import Tensor


class Adam(Optimizer):
    """param -= lr * m / (sqrt(v) + eps), m and v the debiased averages of gradient and square.

    Kingma and Ba 2015.  `weight_decay` adds its multiple of the parameter to the gradient or, if
    decoupled, shrinks the parameter by lr * weight_decay; `amsgrad` divides by the largest v so
    far.  The update is always fused: `foreach`, `fused` and `capturable` choose nothing.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False,
                 fused: bool | None = None, decoupled_weight_decay: bool = False) -> None:
        owner = type(self).__name__
        check_setting(owner, "lr", float(lr))
        check_setting(owner, "eps", eps)
        check_setting(owner, "betas[0]", betas[0], high=1.0)
        check_setting(owner, "betas[1]", betas[1], high=1.0)
        check_setting(owner, "weight_decay", weight_decay)
        check_options(owner, differentiable, foreach, fused)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay})

    def update(self, group: dict[str, Any]) -> None:
        params = [param for param in group["params"] if param.grad is not None]
        states = [self._state_of(param, group["amsgrad"]) for param in params]
        beta1, beta2 = group["betas"]
        adam_(params, [param.grad for param in params],
              [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states],
              [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
              [state["step"] for state in states], lr=float(group["lr"]), beta1=float(beta1),
              beta2=float(beta2), eps=group["eps"], weight_decay=group["weight_decay"],
              decoupled=group["decoupled_weight_decay"], maximize=group["maximize"])

    def _state_of(self, param: Tensor, amsgrad: bool) -> dict[str, Any]:
        state = self.state[param]
        if not state:
            state["step"] = zeros((), dtype=float32, device="cpu")
            state["exp_avg"] = zeros_like(param)
            state["exp_avg_sq"] = zeros_like(param)
        if amsgrad and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): param *= 1 - lr * decay."""

    def __init__(self, params: Params, lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach,
                         maximize=maximize, capturable=capturable, differentiable=differentiable,
                         fused=fused, decoupled_weight_decay=True)
