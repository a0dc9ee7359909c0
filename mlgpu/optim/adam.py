"""Adam and AdamW."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlgpu.device import Device
from mlgpu.dtypes import float32
from mlgpu.ops.creation import zeros, zeros_like
from mlgpu.ops.optimizer import AdamSettings, adam_
from mlgpu.optim.optimizer import (
    Optimizer,
    Params,
    PerDevice,
    check_options,
    check_setting,
)
from mlgpu.tensor import Tensor


class Adam(Optimizer):
    """param -= lr * m / (sqrt(v) + eps), m and v the debiased averages of gradient and square.

    Kingma and Ba 2015.  `weight_decay` adds its multiple of the parameter to the gradient or, if
    decoupled, shrinks the parameter by lr * weight_decay; `amsgrad` divides by the largest v so
    far.  The update is always fused: `foreach` and `fused` choose nothing.  A captured CUDA graph
    goes on counting the steps; with `capturable` they are counted on the parameter's device only.
    """

    reads_found_inf = True

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
        self._update_groups([group])

    def _update_all(self) -> None:
        if type(self).update is Adam.update:
            self._update_groups(self.param_groups)
        else:
            super()._update_all()

    def _update_groups(self, groups: list[dict[str, Any]]) -> None:
        params, states, settings = [], [], []
        for group in groups:
            common = PerDevice(partial(self._settings, group))
            for param in group["params"]:
                if param.grad is not None:
                    params.append(param)
                    states.append(self._state_of(param, group))
                    settings.append(common(param._storage.device))
        peaks = [state["max_exp_avg_sq"] if peaked else None for state, peaked in states]
        adam_(params, [param.grad for param in params],
              [state["exp_avg"] for state, _ in states],
              [state["exp_avg_sq"] for state, _ in states], peaks,
              [state["step"] for state, _ in states], settings, grad_factor=self.grad_factor,
              found_inf=self.found_inf)

    def _settings(self, group: dict[str, Any], device: Device) -> AdamSettings:
        beta1, beta2 = group["betas"]
        lr, cell = self._moving(group, device)
        return AdamSettings(lr, float(beta1), float(beta2), group["eps"], group["weight_decay"],
                            group["decoupled_weight_decay"], group["maximize"], cell)

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The state of a parameter, and whether it has a peak.

        Steps are counted on the CPU, but on the device if `capturable` says so or where only the
        device knows whether there was a step.
        """
        state, peaked = self.state[param], group["amsgrad"]
        counted = group["capturable"] or self.found_inf is not None
        if not state or (peaked and "max_exp_avg_sq" not in state):
            self._check_begun()
        if not state:
            state["step"] = zeros((), dtype=float32, device=param.device if counted else "cpu")
            state["exp_avg"] = zeros_like(param)
            state["exp_avg_sq"] = zeros_like(param)
        elif counted and state["step"].device != param.device:
            state["step"] = state["step"].to(param.device)
        if peaked and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state, peaked


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
