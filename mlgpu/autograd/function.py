"""Custom differentiable operations in Python, as torch.autograd.Function."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import graph
from mlgpu.autograd.mode import mode
from mlgpu.autograd.saved import Saved
from mlgpu.device import runtime
from mlgpu.errors import DerivativeError, GraphError, ShapeError
from mlgpu.op import conform_to, wrap
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
        self._to_save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that forward changed these inputs in place."""
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

    def record(self, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        tensors = [t for t in inputs if isinstance(t, Tensor)]
        self.edges = tuple(t._edge() if isinstance(t, Tensor) and t.requires_grad else None
                           for t in inputs)
        self.metas = tuple((tuple(t.shape), t._array.dtype) if isinstance(t, Tensor) else None
                           for t in inputs)
        self.output_metas = tuple((tuple(t.shape), t._array.dtype, t.device) for t in outputs)
        self.nondifferentiable_outputs = tuple(
            i for i, t in enumerate(outputs)
            if id(t) in self._constant or not (t.is_floating_point() or t.is_complex()))
        self.outputs = len(outputs)
        self.stamp()
        positions = {id(t): i for i, t in enumerate(outputs)}
        known = {id(t) for t in tensors}
        self._saved = [
            None if t is None
            else Saved(t, self, None if id(t) in known else positions.get(id(t)))
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
            if grad is None or edge is None or meta is None:
                conformed.append(None)
                continue
            if not isinstance(grad, Tensor):
                raise TypeError(f"{self.name}: backward must return Tensors or None, got "
                                f"{type(grad).__name__}")
            grad._storage.exclusive = False
            conformed.append(conform_to(self.name, grad, *meta))
        return conformed

    def _zeros(self, index: int) -> Tensor:
        shape, dtype, device = self.output_metas[index]
        zeros = runtime(device).empty(shape, dtype, device)
        zeros[...] = 0
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
    def apply(cls, *args: Any) -> Any:
        """Run forward and record the operation."""
        ctx = FunctionContext()
        ctx.function = cls
        ctx.name = cls.__name__
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        record = mode.grad and any(ctx.needs_input_grad)
        grad_before = mode.grad
        mode.grad = False
        try:
            setup = getattr(cls, "setup_context", None)
            if setup is None:
                results = cls.forward(ctx, *args)
            else:
                results = cls.forward(*args)
                setup(ctx, args, results)
        finally:
            mode.grad = grad_before
        single = not isinstance(results, tuple)
        outputs = (results,) if single else results
        outputs = tuple(_fresh(ctx, args, out) for out in outputs)
        tensors = tuple(out for out in outputs if isinstance(out, Tensor))
        if record and tensors:
            if len(tensors) != len(outputs):
                raise TypeError(f"{ctx.name}: forward must return Tensors, got "
                                f"{[type(out).__name__ for out in outputs]}")
            _own(ctx, args, tensors)
        return outputs[0] if single else outputs


def _fresh(ctx: FunctionContext, args: tuple[Any, ...], out: Any) -> Any:
    """An input returned unchanged becomes a view of itself, so that it can be told apart."""
    if isinstance(out, Tensor) and any(out is a for a in args) and id(out) not in ctx._dirty:
        alias = out.detach()
        ctx._constant = tuple(id(alias) if key == id(out) else key for key in ctx._constant)
        return alias
    return out


def _own(ctx: FunctionContext, args: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    for out in outputs:
        if id(out) in ctx._dirty and out.is_leaf and out.requires_grad:
            raise GraphError(f"{ctx.name}: a leaf that requires grad cannot be changed in place")
    ctx.record(args, outputs)
    for index, out in enumerate(outputs):
        if index in ctx.nondifferentiable_outputs:
            continue
        if out._base is not None and id(out) in ctx._dirty:
            raise GraphError(f"{ctx.name}: a view cannot be changed in place by a Function; "
                             "clone() it first")
        out._node, out._index, out._requires = ctx, index, True
        if id(out) in ctx._dirty:
            out._history += 1


def once_differentiable(function: Any) -> Any:
    """Decorator for `backward`: its result has no graph, and asking for one raises by name."""

    def wrapped(ctx: FunctionContext, *grads: Any) -> Any:
        if mode.grad:
            raise DerivativeError(f"{ctx.name}: is only once differentiable; call backward "
                                  "without create_graph")
        return function(ctx, *grads)

    return wrapped
