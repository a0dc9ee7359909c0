"""Custom differentiable operations in Python, as torch.autograd.Function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import graph
from mlgpu.autograd.mode import mode, no_grad
from mlgpu.autograd.saved import Saved
from mlgpu.device import runtime
from mlgpu.errors import DerivativeError, GraphError, ShapeError
from mlgpu.inplace import rebase
from mlgpu.op import ViewOp, conform_to, wrap
from mlgpu.tensor import Tensor


class FunctionContext(graph.Node):
    """What `forward` and `backward` of a Function share: the argument `ctx`; also the node."""

    function: type[Function]
    needs_input_grad: tuple[bool, ...] = ()
    _to_save: tuple[Tensor | None, ...] = ()
    _dirty: tuple[int, ...] = ()
    _constant: tuple[int, ...] = ()
    _materialize = True
    _saved: list[Saved | None] | None = None
    _freed = False

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (inputs, outputs or others) for backward; read them as `saved_tensors`."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"{self.name}: save_for_backward keeps Tensors and None only, got "
                                f"{type(tensor).__name__}; set an attribute of ctx instead")
        self._to_save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that forward changed these inputs, which it returns, in place."""
        self._dirty = tuple(id(t) for t in tensors)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that these outputs have no gradient."""
        self._constant = tuple(id(t) for t in tensors)

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs without a gradient."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept.  GraphError if it was freed or changed in place."""
        if self._freed:
            raise GraphError(f"{self.name}: backward a second time: its saved values were freed "
                             "after the first; pass retain_graph=True to the first call")
        if self._saved is None:
            return self._to_save
        return tuple(None if s is None else s.tensor(self) for s in self._saved)

    def record(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.edges = tuple(t._edge() if isinstance(t, Tensor) and t.requires_grad else None
                           for t in inputs)
        self.metas = tuple((tuple(t.shape), t._array.dtype) if isinstance(t, Tensor) else None
                           for t in inputs)
        self.output_metas = tuple(
            (tuple(t.shape), t._array.dtype, t.device) if isinstance(t, Tensor) else None
            for t in outputs)
        self.nondifferentiable_outputs = tuple(
            i for i, t in enumerate(outputs) if id(t) in self._constant
            or not (isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())))
        self.outputs = len(outputs)
        self.stamp()
        positions = {id(t): i for i, t in enumerate(outputs)}
        self._saved = [None if t is None else Saved(t, self, positions.get(id(t)))
                       for t in self._to_save]
        self._to_save = ()

    def free(self) -> None:
        if self._saved:
            self._saved = []
            self._freed = True

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> list[Tensor | None]:
        given = [self._zeros(i) if grad is None and self._materialize else grad
                 for i, grad in enumerate(grads)]
        results = self.function.backward(self, *given)
        results = results if isinstance(results, tuple) else (results,)
        if len(results) > len(self.edges) and all(r is None for r in results[len(self.edges):]):
            results = results[:len(self.edges)]
        if len(results) != len(self.edges):
            raise ShapeError(f"{self.name}: backward returned {len(results)} gradients for "
                             f"{len(self.edges)} inputs of forward")
        conformed: list[Tensor | None] = []
        for grad, edge, meta in zip(results, self.edges, self.metas, strict=True):
            if grad is not None and meta is None:
                raise GraphError(f"{self.name}: backward returned a gradient for an argument of "
                                 "forward that is not a Tensor; return None there")
            if grad is None or edge is None or meta is None:
                conformed.append(None)
                continue
            if not isinstance(grad, Tensor):
                raise TypeError(f"{self.name}: backward must return Tensors or None, got "
                                f"{type(grad).__name__}")
            grad._storage.exclusive = False
            conformed.append(conform_to(self.name, grad, *meta))
        return conformed

    def _zeros(self, index: int) -> Tensor | None:
        meta = self.output_metas[index]
        if meta is None:
            return None
        shape, dtype, device = meta
        zeros = runtime(device).empty(shape, dtype, device)
        runtime(device).fill(zeros, 0)
        return wrap(zeros, device)


class Function:
    """Subclass with static `forward(ctx, *args)` and `backward(ctx, *grads)`; call `.apply(*args)`.

    Or `forward(*args)` and `setup_context(ctx, inputs, output)`.  `forward` runs unrecorded;
    `backward` returns one gradient (or None) per argument of forward and, written with tensor
    operations, can itself be differentiated.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The result from the arguments."""
        raise DerivativeError("Function: a subclass must define a static forward")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of forward's arguments from those of its outputs."""
        raise DerivativeError(f"{ctx.name}: has no backward; define a static backward method")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and record the operation.  Keyword arguments have no gradient."""
        setup = getattr(cls, "setup_context", None)
        if setup is not None:
            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        ctx = FunctionContext()
        ctx.function = cls
        ctx.name = cls.__name__
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        record = mode.grad and any(ctx.needs_input_grad)
        with no_grad():
            results = cls.forward(*args, **kwargs) if setup else cls.forward(ctx, *args, **kwargs)
            if setup:
                setup(ctx, args, results)
        single = not isinstance(results, tuple)
        outputs = [_fresh(ctx, args, out) for out in ((results,) if single else results)]
        if not set(ctx._dirty) <= {id(out) for out in outputs}:
            raise GraphError(f"{ctx.name}: an input that was marked dirty must be returned")
        if record:
            _own(ctx, args, outputs)
        return outputs[0] if single else tuple(outputs)


class _MadeByFunction(ViewOp):
    """Stands for what a Function did to make a view of an input."""

    def check_replay(self, name: str) -> None:
        raise GraphError(f"{name}: a view that the Function {self.name} returned cannot follow a "
                         "change in place, of it or of what it shows; clone() it first")


def _fresh(ctx: FunctionContext, args: Sequence[Any], out: Any) -> Any:
    """An input returned unchanged becomes a view of itself, so that it can be told apart."""
    if isinstance(out, Tensor) and any(out is a for a in args) and id(out) not in ctx._dirty:
        alias = out.detach()
        ctx._constant = tuple(id(alias) if key == id(out) else key for key in ctx._constant)
        return alias
    return out


def _own(ctx: FunctionContext, args: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Record the application and make its outputs part of the graph."""
    shown = {id(a._storage): a for a in args if isinstance(a, Tensor)}
    for out in outputs:
        if id(out) in ctx._dirty:
            base = out if out._base is None else out._base
            if base.requires_grad and base.is_leaf:
                raise GraphError(f"{ctx.name}: a leaf that requires grad (or a view of one) cannot "
                                 "be changed in place")
    ctx.record(args, outputs)
    for index, out in enumerate(outputs):
        if index in ctx.nondifferentiable_outputs:
            continue
        if id(out) in ctx._dirty:
            rebase(out, ctx, index)
            continue
        out._node, out._index, out._requires = ctx, index, True
        out._layout = None  # which vouches for the index and the base
        source = shown.get(id(out._storage))
        if source is not None:
            made = _MadeByFunction()
            made.name = ctx.name
            out._base = source if source._base is None else source._base
            out._chain, out._history = (made,), out._base._history


class _OnlyOnce(graph.Node):
    """What made the results of a backward that has no derivative itself."""

    def apply(self, grads: list[Tensor | None], create_graph: bool) -> Sequence[Tensor | None]:
        raise DerivativeError(f"{self.name}: is only once differentiable")


def once_differentiable(function: Any) -> Any:
    """Decorator for `backward`, whose operations are not recorded.

    Differentiating its results again raises DerivativeError by name.
    """
    @functools.wraps(function)
    def wrapped(ctx: FunctionContext, *grads: Any) -> Any:
        with no_grad():
            results = function(ctx, *grads)
        if not mode.grad:
            return results
        node = _OnlyOnce()
        node.name = ctx.name
        node.edges = (*ctx.edges, *(g._edge() for g in grads if g is not None and g.requires_grad))
        made = results if isinstance(results, tuple) else (results,)
        node.outputs = len(made)
        node.stamp()
        owned = tuple(_owned_by(node, index, result) for index, result in enumerate(made))
        return owned if isinstance(results, tuple) else owned[0]

    return wrapped


def _owned_by(node: graph.Node, index: int, result: Any) -> Any:
    if not isinstance(result, Tensor):
        return result
    alias = result.detach()
    alias._node, alias._index, alias._requires = node, index, True
    return alias
