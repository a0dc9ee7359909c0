"""Derivatives of functions: jacobian, hessian, vjp, jvp, vhp, hvp, as torch.autograd.functional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.autograd import enable_grad, grad
from mlgpu.errors import GraphError, ShapeError
from mlgpu.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = Tensor | tuple[Tensor, ...]


def _as_tuple(name: str, value: Any) -> tuple[bool, tuple[Tensor, ...]]:
    given = isinstance(value, tuple)
    tensors = value if given else (value,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a Tensor or a tuple of them, got "
                            f"{type(tensor).__name__}")
    return given, tensors


def _inputs(tensors: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    """Fresh ends of the graph to differentiate with respect to."""
    if create_graph:
        return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
                     for t in tensors)
    return tuple(t.detach().requires_grad_() for t in tensors)


def _outputs(name: str, function: Callable[..., Any], inputs: tuple[Tensor, ...]
             ) -> tuple[bool, tuple[Tensor, ...]]:
    return _as_tuple(f"{name}: the function's result", function(*inputs))


def _gradients(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...],
               seeds: tuple[Tensor | None, ...], create_graph: bool, strict: bool, name: str
               ) -> tuple[Tensor, ...]:
    live = [(out, seed) for out, seed in zip(outputs, seeds, strict=True) if out.requires_grad]
    if strict and len(live) < len(outputs):
        raise GraphError(f"{name}: an output does not depend on the inputs")
    if live:
        outs, starts = zip(*live, strict=True)
        found = grad(outs, inputs, starts, retain_graph=True, create_graph=create_graph,
                     allow_unused=True)
    else:
        found = (None,) * len(inputs)
    if strict and any(g is None for g in found):
        raise GraphError(f"{name}: an output does not depend on one of the inputs")
    return tuple(x.detach().new_zeros(x.shape) if g is None else g
                 for g, x in zip(found, inputs, strict=True))


def _unpack(given: bool, tensors: tuple[Any, ...]) -> Any:
    return tensors if given else tensors[0]


def _finish(tensors: Any, create_graph: bool) -> Any:
    if create_graph:
        return tensors
    if isinstance(tensors, tuple):
        return tuple(_finish(t, False) for t in tensors)
    return tensors.detach()


def _vectors(name: str, v: Any, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise GraphError(f"{name}: v may be left out only where there is a single element")
        return (like[0].detach().new_ones(like[0].shape),)
    _, vectors = _as_tuple(name, v)
    if len(vectors) != len(like):
        raise ShapeError(f"{name}: v has {len(vectors)} tensors, expected {len(like)}")
    for vector, tensor in zip(vectors, like, strict=True):
        if vector.shape != tensor.shape:
            raise ShapeError(f"{name}: v has a tensor of shape {tuple(vector.shape)}, expected "
                             f"{tuple(tensor.shape)}")
    return vectors


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), v^T J): the vector `v` (shaped like the output) times the Jacobian."""
    with enable_grad():
        given, tensors = _as_tuple("vjp", inputs)
        xs = _inputs(tensors, create_graph)
        out_given, outputs = _outputs("vjp", func, xs)
        seeds = _vectors("vjp", v, outputs)
        product = _gradients(outputs, xs, seeds, create_graph, strict, "vjp")
    return (_finish(_unpack(out_given, outputs), create_graph),
            _finish(_unpack(given, product), create_graph))


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), J v): the Jacobian times `v` (shaped like the inputs).

    By differentiating w^T J with respect to w, so the function needs second derivatives.
    """
    with enable_grad():
        _, tensors = _as_tuple("jvp", inputs)
        xs = _inputs(tensors, create_graph)
        vectors = _vectors("jvp", v, xs)
        out_given, outputs = _outputs("jvp", func, xs)
        dummies = tuple(o.detach().new_zeros(o.shape).requires_grad_() for o in outputs)
        pulled = _gradients(outputs, xs, dummies, True, strict, "jvp")
        product = _gradients(pulled, dummies, vectors, create_graph, strict, "jvp")
    return (_finish(_unpack(out_given, outputs), create_graph),
            _finish(_unpack(out_given, product), create_graph))


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
             strict: bool = False, vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """d func / d inputs: shape output.shape + input.shape, nested for tuples as PyTorch's.

    PyTorch's `vectorize` and `strategy` say how, and change nothing here.
    """
    from mlgpu.ops.join import stack

    with enable_grad():
        given, tensors = _as_tuple("jacobian", inputs)
        xs = _inputs(tensors, create_graph)
        out_given, outputs = _outputs("jacobian", func, xs)
        rows = []
        for output in outputs:
            columns: list[list[Tensor]] = [[] for _ in xs]
            flat = output.reshape(-1)
            for i in range(output.numel()):
                found = _gradients((flat[i],), xs, (None,), create_graph, strict, "jacobian")
                for column, g in zip(columns, found, strict=True):
                    column.append(g)
            rows.append(tuple(
                (stack(column) if column else x.detach().new_zeros((0, *x.shape)))
                .reshape((*output.shape, *x.shape)) for column, x in zip(columns, xs, strict=True)))
    result = tuple(_finish(_unpack(given, row), create_graph) for row in rows)
    return _unpack(out_given, result)


def _scalar(name: str, func: Callable[..., Any]) -> Callable[..., Tensor]:
    def checked(*xs: Tensor) -> Tensor:
        out = func(*xs)
        if not isinstance(out, Tensor) or out.numel() != 1:
            raise GraphError(f"{name}: the function must return a tensor with one element")
        return out.reshape(())

    return checked


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False,
            strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """The second derivatives of a function with one output: input.shape + input.shape.

    PyTorch's last two options say how, and change nothing here.
    """
    given, _ = _as_tuple("hessian", inputs)
    checked = _scalar("hessian", func)

    def gradient(*xs: Tensor) -> Any:
        ends = tuple(x if x.requires_grad else x.requires_grad_() for x in xs)
        return _unpack(given, _gradients((checked(*ends),), ends, (None,), True, strict, "hessian"))

    return jacobian(gradient, inputs, create_graph, strict)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), v^T H) for a function with one output."""
    with enable_grad():
        given, tensors = _as_tuple("vhp", inputs)
        xs = _inputs(tensors, create_graph)
        vectors = _vectors("vhp", v, xs)
        output = _scalar("vhp", func)(*xs)
        first = _gradients((output,), xs, (None,), True, strict, "vhp")
        product = _gradients(first, xs, vectors, create_graph, strict, "vhp")
    return _finish(output, create_graph), _finish(_unpack(given, product), create_graph)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), H v) for a function with one output; H is symmetric, so this is `vhp`."""
    return vhp(func, inputs, v, create_graph, strict)
