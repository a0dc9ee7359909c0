"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.ops.creation import empty_like
from mlgpu.ops.optimizer import sgd_
from mlgpu.optim.optimizer import Optimizer, Params, check_options, check_setting
from mlgpu.tensor import Tensor


class SGD(Optimizer):
    """param -= lr * d, with d the gradient + weight_decay * param, or its running sum.

    With `momentum`, v = momentum * v + (1 - dampening) * d (v = d at first) takes the place of d,
    or d + momentum * v does with `nesterov`.  The update is always fused: `foreach` and `fused`
    are accepted and choose nothing.
    """

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
        momentum = group["momentum"]
        params = [param for param in group["params"] if param.grad is not None]
        buffers: list[Tensor | None] = [None] * len(params)
        first = [False] * len(params)
        if momentum != 0:
            for number, param in enumerate(params):
                buffer = self.state[param].get("momentum_buffer")
                first[number] = buffer is None
                if buffer is None:
                    buffer = self.state[param]["momentum_buffer"] = empty_like(param)
                buffers[number] = buffer
        sgd_(params, [param.grad for param in params], buffers, first, lr=float(group["lr"]),
             momentum=momentum, dampening=group["dampening"], weight_decay=group["weight_decay"],
             nesterov=group["nesterov"], maximize=group["maximize"])
