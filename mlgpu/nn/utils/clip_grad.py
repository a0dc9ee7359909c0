"""Keeping gradients small.

On CUDA a launch or two go over all gradients of a dtype, and nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlgpu.autograd import no_grad
from mlgpu.errors import MlgpuError
from mlgpu.linalg import vector_norm
from mlgpu.ops.creation import tensor
from mlgpu.ops.join import stack
from mlgpu.ops.optimizer import alike, confine_, norm_of, scale_to_norm_
from mlgpu.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]


def _list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in _list(parameters) if p.grad is not None]


@no_grad()
def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """The norm of all elements of all tensors together, 0-dim; 0 for no tensors.

    Raises MlgpuError for an infinity or NaN if `error_if_nonfinite`.  `foreach` chooses nothing.
    """
    parts = _list(tensors)
    if not parts:
        return tensor(0.0)
    device = parts[0].device
    norms = [norm.to(device) for norm in _norms(parts, float(norm_type))]
    single = len(norms) == 1 and device.type == "cuda"
    total = norms[0] if single else vector_norm(stack(norms), norm_type)
    if error_if_nonfinite and not total.isfinite().item():
        raise MlgpuError(f"clip_grad_norm_: the total norm of order {norm_type} is "
                         f"{total.item()}; pass error_if_nonfinite=False to clip by it anyway")
    return total


def _norms(parts: list[Tensor], order: float) -> list[Tensor]:
    """The norm of each tensor or, on CUDA, of all of a dtype at once; not waited for."""
    norms: list[Tensor] = []
    for tensors in alike(parts):
        first = tensors[0]
        complete = order != 0 and ((math.isfinite(order) and order > 0) or
                                   all(t.numel() for t in tensors))
        if first.device.type == "cuda" and complete and (
                first.is_floating_point() or (first.is_complex() and order == 2)):
            norms.append(norm_of(tensors, order))
        else:
            norms += [vector_norm(part, order) for part in tensors]
    return norms


@no_grad()
def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float,
                          total_norm: Tensor, foreach: bool | None = None) -> None:
    """Multiply the gradients by max_norm / (total_norm + 1e-6), but by 1 at most."""
    scale: Tensor | None = None
    for grads in alike(_grads(parameters)):
        if grads[0].device.type == "cuda":
            scale_to_norm_(grads, total_norm, float(max_norm))
            continue
        if scale is None:
            scale = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale.to(grad.device))


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float,
                    norm_type: float = 2.0, error_if_nonfinite: bool = False,
                    foreach: bool | None = None) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; returns the norm.

    The norm returned is the one before, 0-dim.
    """
    parameters = _list(parameters)
    total = get_total_norm(_grads(parameters), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float,
                     foreach: bool | None = None) -> None:
    """Confine each element of the gradients to ±clip_value."""
    for grads in alike(_grads(parameters)):
        if grads[0].device.type == "cuda" and grads[0].is_floating_point():
            confine_(grads, float(clip_value))
        else:
            for grad in grads:
                grad.clamp_(-clip_value, clip_value)
