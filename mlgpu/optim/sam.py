"""Sharpness-aware minimization, around any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.autograd import enable_grad, no_grad
from mlgpu.errors import GraphError
from mlgpu.linalg import vector_norm
from mlgpu.ops.join import stack
from mlgpu.optim.optimizer import Optimizer, check_setting
from mlgpu.tensor import Tensor


class SAM(Optimizer):
    """Steps of `optimizer` by the gradients at param + rho * grad / norm(all gradients).

    There the loss is highest nearby, to first order (Foret et al. 2021); with `adaptive` nearness
    is measured relative to each element (Kwon et al. 2021).  Groups and state are the optimizer's,
    whose schedules go on working.  `step(closure)` calls the closure twice; without one, call
    `first_step`, compute the gradients again, then `second_step`.
    """

    needs_closure = True

    def __init__(self, optimizer: Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"SAM: expected an Optimizer, got {type(optimizer).__name__}")
        check_setting("SAM", "rho", rho)
        self.optimizer = optimizer
        self.rho = rho
        self.adaptive = adaptive
        self._climbed: list[tuple[Tensor, Tensor]] = []
        self._step_pre_hooks = optimizer._step_pre_hooks
        self._step_post_hooks = optimizer._step_post_hooks

    # Groups and state are the optimizer's own, also after it has loaded others.
    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The optimizer's groups."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Any, dict[str, Any]]:  # type: ignore[override]
        """The optimizer's state."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer's defaults."""
        return self.optimizer.defaults

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the optimizer's."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """As the optimizer's."""
        self.optimizer.load_state_dict(state_dict)

    @no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Climb: param += rho * grad / norm, with param² * grad in place of grad if adaptive."""
        if self._climbed:
            raise GraphError("SAM.first_step: called twice; second_step comes between")
        params = [param for group in self.param_groups for param in group["params"]
                  if param.grad is not None]
        if params:
            slopes = [param.abs() * param.grad if self.adaptive else param.grad
                      for param in params]
            norms = [vector_norm(slope).to(params[0].device) for slope in slopes]
            scale = self.rho / (vector_norm(stack(norms)) + 1e-12)
            self._climbed = [(param, param.clone()) for param in params]
            for param, slope in zip(params, slopes, strict=True):
                step = param.abs() * slope if self.adaptive else slope
                param.add_(step * scale.to(param.device))
        if zero_grad:
            self.zero_grad()

    @no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Go back, and step by the gradients of above."""
        for param, value in self._climbed:
            param.copy_(value)
        self._climbed = []
        self.optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Both steps; `closure` computes loss and gradients anew.  Returns its first loss."""
        if closure is None:
            raise TypeError("SAM.step: needs a closure that computes the loss and its gradients; "
                            "or call first_step and second_step")
        with enable_grad():
            loss = closure()
        self.first_step()
        with enable_grad():
            closure()
        self.second_step()
        return loss

    def __repr__(self) -> str:
        return f"SAM (rho: {self.rho}, adaptive: {self.adaptive})\n{self.optimizer!r}"
