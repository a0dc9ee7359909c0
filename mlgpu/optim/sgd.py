"""Stochastic gradient descent."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlgpu.device import Device
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import empty_like, zeros_like
from mlgpu.ops.optimizer import SgdSettings, sgd_
from mlgpu.optim.optimizer import (
    Optimizer,
    Params,
    PerDevice,
    check_options,
    check_setting,
)
from mlgpu.tensor import Tensor


class SGD(Optimizer):
    """param -= lr * d, with d the gradient + weight_decay * param, or its running sum.

    With `momentum`, v = momentum * v + (1 - dampening) * d (v = d at first) takes the place of d,
    or d + momentum * v does with `nesterov`.  The update is always fused: `foreach` and `fused`
    are accepted and choose nothing.
    """

    reads_found_inf = True

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, momentum: float = 0,
                 dampening: float = 0, weight_decay: float = 0, nesterov: bool = False, *,
                 maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        check_setting("SGD", "lr", float(lr))
        check_setting("SGD", "momentum", momentum)
        check_setting("SGD", "weight_decay", weight_decay)
        check_options("SGD", differentiable, foreach, fused)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ShapeError(f"SGD: nesterov needs a momentum and no dampening, got momentum "
                             f"{momentum} and dampening {dampening}")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused})

    def update(self, group: dict[str, Any]) -> None:
        self._update_groups([group])

    def _update_all(self) -> None:
        if type(self).update is SGD.update:
            self._update_groups(self.param_groups)
        else:
            super()._update_all()

    def _update_groups(self, groups: list[dict[str, Any]]) -> None:
        params, buffers, first, settings = [], [], [], []
        for group in groups:
            common = PerDevice(partial(self._settings, group))
            for param in group["params"]:
                if param.grad is not None:
                    buffer, begins = self._buffer(param, group["momentum"])
                    params.append(param)
                    buffers.append(buffer)
                    first.append(begins)
                    settings.append(common(param._storage.device))
        sgd_(params, [param.grad for param in params], buffers, first, settings,
             grad_factor=self.grad_factor, found_inf=self.found_inf)

    def _settings(self, group: dict[str, Any], device: Device) -> SgdSettings:
        lr, cell = self._moving(group, device)
        return SgdSettings(lr, group["momentum"], group["dampening"], group["weight_decay"],
                           group["nesterov"], group["maximize"], cell)

    def _buffer(self, param: Tensor, momentum: float) -> tuple[Tensor | None, bool]:
        """The running sum of a parameter, and whether it begins."""
        if momentum == 0:
            return None, False
        buffer = self.state[param].get("momentum_buffer")
        if buffer is not None:
            return buffer, False
        self._check_begun()
        # An update that is left out must not leave it undefined.
        made = empty_like(param) if self.found_inf is None else zeros_like(param)
        self.state[param]["momentum_buffer"] = made
        return made, True
