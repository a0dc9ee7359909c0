"""Adafactor."""

from __future__ import annotations

from typing import Any

from mlgpu.dtypes import compute_dtype, finfo, float32, float64
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import zeros, zeros_like
from mlgpu.optim.optimizer import Optimizer, Params, check_options, check_setting, grad_of
from mlgpu.tensor import Tensor


class Adafactor(Optimizer):
    """Adam's second moment of matrices as rows times columns, and steps relative to the parameter.

    A step is lr_t * update / max(1, rms(update) / d), with update = grad / sqrt(v), lr_t =
    max(eps[1], rms(param)) * min(lr, 1 / sqrt(step)), and v the average of squares whose last share
    is step^beta2_decay; eps[0] (the dtype's own if None) keeps v from 0.  State takes rows +
    columns numbers for a matrix.  Shazeer and Stern 2018.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0,
                 weight_decay: float = 0.0, *, foreach: bool | None = None,
                 maximize: bool = False) -> None:
        check_setting("Adafactor", "lr", float(lr))
        if beta2_decay > 0:
            raise ShapeError(f"Adafactor: beta2_decay must be at most 0, got {beta2_decay}")
        check_setting("Adafactor", "eps[0]", 0.0 if eps[0] is None else eps[0])
        check_setting("Adafactor", "eps[1]", eps[1])
        check_setting("Adafactor", "d", d, low=1.0)
        check_setting("Adafactor", "weight_decay", weight_decay)
        check_options("Adafactor", False, foreach, None)
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize})

    def update(self, group: dict[str, Any]) -> None:
        for param in group["params"]:
            if param.grad is not None:
                if param.is_complex():
                    raise ShapeError("Adafactor: parameters must be real, got a complex one of "
                                     f"shape {tuple(param.shape)}")
                lr, _ = self._moving(group, param.device)
                grad = grad_of(param, group["maximize"])
                self._update(param, grad, self._state_of(param), group, lr)

    def _state_of(self, param: Tensor) -> dict[str, Any]:
        state = self.state[param]
        if not state:
            self._check_begun()
            state["step"] = zeros((), dtype=float32, device=param.device)
            if param.ndim > 1:
                *outer, rows, columns = param.shape
                state["row_var"] = param.new_zeros(*outer, rows, 1)
                state["col_var"] = param.new_zeros(*outer, 1, columns)
            else:
                state["variance"] = zeros_like(param)
        elif state["step"].device != param.device:
            state["step"] = state["step"].to(param.device)
        return state

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any],
                lr: float | Tensor) -> None:
        least = finfo(param.dtype).eps if group["eps"][0] is None else group["eps"][0]
        wide = compute_dtype(param.dtype)
        step = state["step"].add_(1).to(float64)
        share = (step ** group["beta2_decay"]).to(wide)
        rate = (step ** -0.5).clamp(max=lr.reshape(()) if isinstance(lr, Tensor) else lr).to(wide)
        size = _rms(param.to(wide)).clamp(min=group["eps"][1]) * rate
        if group["weight_decay"] != 0:
            param.mul_(1 - lr * group["weight_decay"])
        if grad.ndim > 1:
            rows = state["row_var"].lerp_(grad.square().mean(-1, keepdim=True), share)
            columns = state["col_var"].lerp_(grad.square().mean(-2, keepdim=True), share)
            variance = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=least)
        else:
            variance = state["variance"].lerp_(grad.square(), share)
        change = variance.clamp(min=least * least).rsqrt() * grad
        param.sub_(change * (size / (_rms(change.to(wide)) / group["d"]).clamp(min=1.0)))


def _rms(x: Tensor) -> Tensor:
    """The root of the mean square; 0 of nothing."""
    return (x.square().sum() / max(x.numel(), 1)).sqrt()
