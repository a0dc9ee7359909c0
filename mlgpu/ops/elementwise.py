"""Elementwise operations from one line of maths: `@elementwise`, and `fuse` for users.

A decorated function is traced once into an expression.  Called with tensors it runs as one
operation; called with symbols (inside another elementwise function) it becomes part of that one.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from mlgpu.cuda import evaluate as cuda_evaluate
from mlgpu.cuda import runtime as cuda
from mlgpu.errors import GraphError
from mlgpu.expr.graph import Expr, arg, as_expr, trace
from mlgpu.inplace import run_inplace
from mlgpu.ops import applied, link
from mlgpu.ops.applied import Elementwise, empty_result, key_of
from mlgpu.ops.formula import Formula
from mlgpu.tensor import Tensor

__all__ = ["Elementwise", "elementwise", "fuse", "inplace"]

P = ParamSpec("P")
R = TypeVar("R")


class ElementwiseFunction(Generic[P, R]):
    """What `@elementwise` and `fuse` return: a function of tensors, numbers, or symbols."""

    elementwise = True

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.signature = inspect.signature(function)
        self._arity = len(self.signature.parameters)

    @functools.cached_property
    def formula(self) -> Formula:
        """The traced expression."""
        return Formula(self.name, trace(self.function, self._arity), self._arity)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        given: Any = args
        if kwargs or len(args) != self._arity:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.args
        result: Any = link.apply(self.formula, given)
        if result is None:
            function: Any = self.function
            symbols = any(isinstance(a, Expr) for a in given)
            result = function(*given) if symbols else applied.apply(self.formula, given)
        return result  # type: ignore[no-any-return]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<elementwise {self.name}{self.signature}>"


def elementwise(function: Callable[P, R]) -> ElementwiseFunction[P, R]:
    """Make an elementwise operation of a function written with elementwise functions."""
    return ElementwiseFunction(function, function.__name__.strip("_"))


def on_device_arrays(function: ElementwiseFunction[..., Any], dtype: Any, *arguments: Any) -> Any:
    """An elementwise function of one result, of that dtype, on device arrays and numbers."""
    formula = function.formula
    program = formula.program(key_of([*arguments]), dtype)
    out = empty_result(cuda, [*arguments], formula.uses[0], program.output_dtypes[0])
    cuda_evaluate.evaluate(program, arguments, (out,))
    return out


def fuse(function: Callable[P, R]) -> ElementwiseFunction[P, R]:
    """Run a function of tensors and numbers as one pass over memory, with exact derivatives.

    The function may use arithmetic, comparisons, `where` and mlgpu's elementwise functions on its
    arguments, which may be tensors of shapes that broadcast, or numbers; it may return several
    results.  It is traced once: Python's `if` on an argument raises GraphError.  Half-precision
    inputs are computed in float32 and rounded once.  Raises TypeError for a function with `*args`,
    `**options` or keyword-only arguments.
    """
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"fuse: {function.__name__} must take positional arguments only, got "
                            f"{parameter}")
    return ElementwiseFunction(function, function.__name__)


def symbolic(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a public function that works on symbols too, by calling elementwise functions."""
    function.elementwise = True  # type: ignore[attr-defined]
    return function


def inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an elementwise function: the result overwrites the first argument."""
    cache: dict[Any, Formula] = {}
    name = getattr(function, "name", None) or function.__name__

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tensors: list[Tensor] = [self]
        given: list[Any] = [arg(0)]
        for value in args:
            if isinstance(value, Tensor):
                given.append(arg(len(tensors)))
                tensors.append(value)
            else:
                given.append(value)
        named = {}
        for key, value in kwargs.items():
            if key in ("alpha", "value") and isinstance(value, Tensor):
                # A number in PyTorch, which takes a tensor of one and reads it.
                if value.requires_grad:
                    raise GraphError(f"{name}_: {key} is a number, and its gradient would be lost; "
                                     "detach() it, or multiply by it")
                value = value.item()
            if isinstance(value, Tensor):
                named[key] = arg(len(tensors))
                tensors.append(value)
            else:
                named[key] = value
        shape = tuple(v.attr if isinstance(v, Expr) else (type(v), v) for v in (
            *given, *named.values()))
        signature = (shape, tuple(named))
        formula = cache.get(signature)
        if formula is None:
            try:
                traced = as_expr(function(*given, **named))
            except GraphError:
                kinds = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
                raise TypeError(f"{name}_: expected tensors or numbers, got {kinds}") from None
            formula = Formula(name, (traced,), len(tensors))
            if len(cache) < 256:  # numbers are part of the key: a loop over values must not grow it
                cache[signature] = formula
        return run_inplace(Elementwise(formula, (None,) * len(tensors)), self, *tensors[1:])

    method.__name__ = f"{name}_"
    method.__qualname__ = method.__name__
    method.__doc__ = f"`{name}` in place."
    method.__signature__ = _method_signature(function)  # type: ignore[attr-defined]
    return method


def _method_signature(function: Any) -> inspect.Signature:
    signature = inspect.signature(getattr(function, "function", function))
    return signature.replace(return_annotation="Tensor")

