"""torch.func: functions of functions, made of mlgpu.autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import mlgpu
from mlgpu import Tensor, autograd
from mlgpu.as_torch.pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from mlgpu.errors import ShapeError
from mlgpu.nn import Module

__all__ = ["functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp",
           "stack_module_state", "vjp", "vmap"]


def functional_call(module: Module, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: Mapping[str, Any] | None = None) -> Any:
    """`module(*args, **kwargs)` with tensors in the place of parameters and buffers of these names.

    Raises KeyError for a name that the module does not have.
    """
    given = parameter_and_buffer_dicts
    tensors: dict[str, Tensor] = {}
    for part in [given] if isinstance(given, Mapping) else given:
        tensors.update(part)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, tensor in tensors.items():
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            table: dict[str, Any] = owner._buffers
            if last in owner._parameters:
                table = owner._parameters
            if last not in table:
                raise KeyError(f"functional_call: {type(module).__name__} has no parameter or "
                               f"buffer {name!r}")
            replaced.append((table, last, table[last]))
            table[last] = tensor
        return module(*args, **kwargs or {})
    finally:
        for table, name, before in reversed(replaced):
            table[name] = before


def grad_and_value(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0,
                   has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradients of `func`, which returns one number, and its value.

    The gradients are nested as the arguments of those numbers are.  They have a graph where they
    depend on tensors of the outside that require grad.
    """
    @wraps(func)
    def found(*args: Any, **kwargs: Any) -> Any:
        numbers = (argnums,) if isinstance(argnums, int) else argnums
        flat, spec = tree_flatten([args[n] for n in numbers])
        with mlgpu.enable_grad():
            own = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in flat]
            inner = list(args)
            for n, value in zip(numbers, tree_unflatten(own, spec), strict=True):
                inner[n] = value
            result = func(*inner, **kwargs)
            value, rest = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise ShapeError("grad: the function must return a tensor with one element")
            outside = any(t.requires_grad for t in flat) or _reaches_others(value, own)
            found = autograd.grad(value, own, create_graph=outside, retain_graph=outside,
                                  materialize_grads=True)
        if not outside:
            value = value.detach()
        nested = tree_unflatten(found, spec)
        grads = nested[0] if isinstance(argnums, int) else tuple(nested)
        return (grads, (value, rest)) if has_aux else (grads, value)

    return found


def _reaches_others(value: Tensor, own: list[Tensor]) -> bool:
    """Whether a graph leads to leaves other than these."""
    known = {id(t) for t in own}
    todo: list[Any] = [value.grad_fn]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen or id(node) in known:
            continue
        seen.add(id(node))
        if isinstance(node, Tensor):
            return True
        todo += [edge[0] for edge in node.edges if edge is not None]
    return False


def grad(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
         ) -> Callable[..., Any]:
    """As `grad_and_value`, without the value."""
    both = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def found(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return found


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`func(*primals)`, and a function that takes gradients of its outputs back to the primals.

    With `has_aux` the function returns (outputs, more), and (outputs, function, more) comes back.
    The gradients are a tuple, nested as the primals are.
    """
    flat, spec = tree_flatten(primals)
    with mlgpu.enable_grad():
        own = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in flat]
        made = func(*tree_unflatten(own, spec))
    outputs, more = made if has_aux else (made, None)
    ends, shape = tree_flatten(outputs)
    outside = any(t.requires_grad for t in flat)

    def back(*cotangents: Any) -> Any:
        given = tree_leaves(cotangents[0] if len(cotangents) == 1 else cotangents)
        used = [(e, g) for e, g in zip(ends, given, strict=True) if e.requires_grad]
        grads = autograd.grad([e for e, _ in used], own, [g for _, g in used],
                              create_graph=outside or any(g.requires_grad for g in given),
                              retain_graph=True, materialize_grads=True)
        return tree_unflatten(grads, spec)

    shown = outputs if outside else tree_unflatten([e.detach() for e in ends], shape)
    return (shown, back, more) if has_aux else (shown, back)


def jvp(func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], *,
        has_aux: bool = False) -> Any:
    """`func(*primals)` and its derivative along the tangents, by differentiating backward twice."""
    flat, spec = tree_flatten(primals)
    with mlgpu.enable_grad():
        own = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in flat]
        made = func(*tree_unflatten(own, spec))
        outputs, more = made if has_aux else (made, None)
        ends, shape = tree_flatten(outputs)
        dummies = [mlgpu.zeros_like(e).requires_grad_() for e in ends]
        pulled = autograd.grad(ends, own, dummies, create_graph=True, materialize_grads=True)
        outside = any(t.requires_grad for t in (*flat, *tree_leaves(tangents)))
        found = autograd.grad(list(pulled), dummies,  # type: ignore[arg-type]
                              tree_leaves(tangents), create_graph=outside,
                              materialize_grads=True)
    shown = outputs if outside else tree_unflatten([e.detach() for e in ends], shape)
    along = tree_unflatten(found, shape)
    return (shown, along, more) if has_aux else (shown, along)


def jacrev(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
           **options: Any) -> Callable[..., Any]:
    """A function that returns the Jacobian of `func` with respect to one argument or several.

    Where an argument or the result is nested, so is the Jacobian: first as the result, then as the
    argument.  PyTorch's options of speed and memory change nothing here.
    """
    numbers = (argnums,) if isinstance(argnums, int) else argnums

    @wraps(func)
    def found(*args: Any) -> Any:
        def of_those(*given: Any) -> Any:
            inner = list(args)
            for n, value in zip(numbers, given, strict=True):
                inner[n] = value
            return func(*inner)

        made = vjp(of_those, *[args[n] for n in numbers], has_aux=has_aux)
        ends, shape = tree_flatten(made[0])
        parts = [_rows(made[1], ends, k, isinstance(argnums, int)) for k in range(len(ends))]
        result = tree_unflatten(parts, shape)
        return (result, made[2]) if has_aux else result

    return found


def _rows(back: Callable[..., Any], ends: list[Tensor], k: int, single: bool) -> Any:
    """The Jacobian of one output: backward from each of its elements, stacked."""
    rows = []
    for i in range(ends[k].numel()):
        cotangents = [mlgpu.zeros_like(e) for e in ends]
        cotangents[k].view(-1)[i] = 1
        rows.append(back(*cotangents))
    nested = tree_map(lambda *parts: mlgpu.stack(parts).reshape(*ends[k].shape, *parts[0].shape),
                      *rows)
    return nested[0] if single else nested


jacfwd = jacrev  # one Jacobian, by whichever way


def hessian(func: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function that returns the second derivatives of `func` with respect to one argument."""
    return jacrev(jacrev(func, argnums), argnums)


def stack_module_state(models: list[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and buffers of modules alike, stacked along a first dimension, by name."""
    def stacked(tables: list[dict[str, Tensor]], learned: bool) -> dict[str, Any]:
        return {name: mlgpu.stack([table[name] for table in tables]).detach().requires_grad_(
            learned and tables[0][name].requires_grad) for name in tables[0]}

    return (stacked([dict(m.named_parameters()) for m in models], True),
            stacked([dict(m.named_buffers()) for m in models], False))


def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error",
         *, chunk_size: int | None = None) -> Callable[..., Any]:
    """`func` of each entry along a dimension of the arguments, the results stacked.

    The function is called once for each entry: the results are PyTorch's, the time is a loop's.
    Where speed matters give the operations a batch dimension themselves.
    """
    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        flat, spec = tree_flatten(args)
        dims = _spread(in_dims, args)
        lengths = {t.shape[d] for t, d in zip(flat, dims, strict=True) if d is not None}
        if len(lengths) != 1:
            raise ShapeError(f"vmap: the mapped dimensions must have one length, got {lengths}")
        results = []
        for i in range(lengths.pop()):
            part = [t if d is None else t.select(d, i) for t, d in zip(flat, dims, strict=True)]
            results.append(func(*tree_unflatten(part, spec), **kwargs))
        outs = out_dims if isinstance(out_dims, tuple) else None
        if outs is not None:
            return tuple(mlgpu.stack([r[k] for r in results], d) for k, d in enumerate(outs))
        return tree_map(lambda *parts: mlgpu.stack(parts, out_dims), *results)

    return mapped


def _spread(in_dims: Any, args: tuple[Any, ...]) -> list[int | None]:
    """The mapped dimension of every leaf of the arguments."""
    if isinstance(in_dims, int):
        return [in_dims if isinstance(leaf, Tensor) else None for leaf in tree_leaves(args)]
    dims: list[int | None] = []
    for dim, arg in zip(in_dims, args, strict=True):
        count = len(tree_leaves(arg))
        dims += [dim] * count if dim is None or isinstance(dim, int) else tree_leaves(dim)
    return dims
