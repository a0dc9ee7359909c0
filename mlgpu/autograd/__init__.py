"""Automatic differentiation: `backward`, `grad`, modes, custom `Function`s, hooks.

As torch.autograd; `mlgpu.autograd.functional` has jacobian, hessian, vjp, jvp, hvp and vhp.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlgpu.autograd import graph
from mlgpu.autograd.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from mlgpu.errors import DTypeError, GraphError, ShapeError

if TYPE_CHECKING:
    from mlgpu.tensor import Tensor

__all__ = ["Function", "backward", "enable_grad", "functional", "grad", "gradcheck",
           "gradgradcheck", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled",
           "no_grad", "saved_tensors_hooks", "set_grad_enabled"]


def _roots(name: str, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
           ) -> tuple[list[tuple[Any, int]], list[Tensor]]:
    """Edges to the tensors and the gradients to start from; ones for single elements."""
    if len(grads) != len(tensors):
        raise ShapeError(f"{name}: {len(tensors)} tensors but {len(grads)} gradients were given")
    edges, start = [], []
    for tensor, grad in zip(tensors, grads, strict=True):
        if not tensor.requires_grad:
            raise GraphError(f"{name}: a tensor of shape {tuple(tensor.shape)} does not require "
                             "grad and has no graph; nothing leads back from it")
        if grad is None:
            if tensor.numel() != 1:
                raise GraphError(f"{name}: a gradient is created implicitly only for tensors with "
                                 f"one element, this has shape {tuple(tensor.shape)}; pass one")
            if tensor.is_complex():
                raise GraphError(f"{name}: a gradient is created implicitly only for real tensors")
            grad = graph.arithmetic.one(tensor)
        elif grad._storage.released:
            grad._check()
        elif grad._array.shape != tensor._array.shape:
            raise ShapeError(f"{name}: a gradient has shape {tuple(grad.shape)}, its tensor "
                             f"{tuple(tensor.shape)}")
        elif (grad._array.dtype is not tensor._array.dtype
              and grad.dtype.is_complex != tensor.dtype.is_complex):
            raise DTypeError(f"{name}: a gradient is {grad.dtype!r}, its tensor {tensor.dtype!r}")
        edges.append(tensor._edge())
        start.append(grad)
    return edges, start


def _tuple(tensors: Any) -> tuple[Any, ...]:
    return (tensors,) if tensors is None or hasattr(tensors, "_storage") else tuple(tensors)


def _targets(name: str, inputs: Sequence[Tensor]) -> list[tuple[Any, int]]:
    for tensor in inputs:
        if not tensor.requires_grad:
            raise GraphError(f"{name}: an input of shape {tuple(tensor.shape)} does not require "
                             "grad")
    return [tensor._edge() for tensor in inputs]


def backward(tensors: Tensor | Sequence[Tensor],
             grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
             retain_graph: bool | None = None, create_graph: bool = False,
             inputs: Tensor | Sequence[Tensor] | None = None) -> None:
    """Add the gradients of `tensors` to `.grad` of their leaves (of `inputs` only, if given).

    The graph is freed unless `retain_graph`; with `create_graph` the gradients have a graph of
    their own, and a UserWarning says that leaf and `.grad` then hold each other: `grad` makes no
    such cycle.  Raises GraphError where there is no graph or its saved values are gone or changed.
    """
    if create_graph:
        warnings.warn("backward: with create_graph=True a leaf and its .grad, whose graph leads to "
                      "the leaf, keep each other alive; use mlgpu.autograd.grad, or set .grad to "
                      "None when done", stacklevel=3)
    tensors = _tuple(tensors)
    grads = (None,) * len(tensors) if grad_tensors is None else _tuple(grad_tensors)
    roots, start = _roots("backward", tensors, grads)
    wanted = () if inputs is None else _tuple(inputs)
    if inputs is not None and not wanted:
        raise GraphError("backward: inputs, if given, cannot be empty")
    targets = _targets("backward", wanted)
    found = graph.walk(roots, start, targets,
                       retain_graph=create_graph if retain_graph is None else retain_graph,
                       create_graph=create_graph, deposit=True)
    for tensor, gradient in zip(wanted, found, strict=True):
        if gradient is not None and tensor.grad_fn is not None and not tensor.retains_grad:
            graph.arithmetic.deposit(tensor, gradient, create_graph)


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor],
         grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
         retain_graph: bool | None = None, create_graph: bool = False, only_inputs: bool = True,
         allow_unused: bool | None = None, materialize_grads: bool = False
         ) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`; `.grad` is left alone.

    `only_inputs` stands for PyTorch's, where anything but True is gone.

    Raises GraphError for an input the outputs do not depend on, unless `allow_unused` (None comes
    back) or `materialize_grads` (zeros come back).
    """
    outs, wanted = _tuple(outputs), _tuple(inputs)
    if allow_unused is False and materialize_grads:
        raise ShapeError("grad: materialize_grads needs allow_unused to be True or left out")
    grads = (None,) * len(outs) if grad_outputs is None else _tuple(grad_outputs)
    roots, start = _roots("grad", outs, grads)
    targets = _targets("grad", wanted)
    found = graph.walk(roots, start, targets,
                       retain_graph=create_graph if retain_graph is None else retain_graph,
                       create_graph=create_graph, deposit=False)
    results: list[Tensor | None] = []
    for position, (tensor, gradient) in enumerate(zip(wanted, found, strict=True)):
        if gradient is None and materialize_grads:
            gradient = tensor.detach().new_zeros(tensor.shape)
        elif gradient is None and not allow_unused:
            raise GraphError(f"grad: input {position} was not used in the graph of the outputs; "
                             "pass allow_unused=True to get None for it")
        results.append(gradient)
    return tuple(results)


def __getattr__(name: str) -> Any:
    # These stand below the tensor, which imports this package: they are loaded when asked for.
    if name == "Function":
        from mlgpu.autograd.function import Function

        return Function
    if name == "saved_tensors_hooks":
        from mlgpu.autograd.saved import saved_tensors_hooks

        return saved_tensors_hooks
    if name in ("gradcheck", "gradgradcheck"):
        from mlgpu import testing

        return getattr(testing, name)
    if name == "functional":
        import importlib

        return importlib.import_module("mlgpu.autograd.functional")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
