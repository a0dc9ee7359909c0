"""Wrong arguments of public functions: a TypeError that names them, at no cost to right ones.

A function reads attributes of what it takes for tensors; where that fails because something else
was given, the AttributeError is turned into a TypeError that says so.  Likewise NumPy's names of
arguments (`axis`, `keepdims`) and `size=` for `*size`, which PyTorch takes too, are translated only
where they come up.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from mlgpu.amp.policy import by_policy
from mlgpu.expr.graph import Expr
from mlgpu.tensor import Tensor

_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"}


def guard(function: Callable[..., Any], home: str | None = None) -> Callable[..., Any]:
    """`function` with TypeErrors for arguments that are no tensors, as elementwise functions have.

    `home` is the module under whose name pickle finds the result.
    """
    if not isinstance(function, FunctionType):
        return function
    if hasattr(function, "elementwise"):
        return by_policy(function)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            translated = _translated(function, args, kwargs)
            if translated is not None:
                return function(*translated[0], **translated[1])
            if isinstance(error, AttributeError):
                _refuse_others(function, args, kwargs)
            raise

    if home is not None:
        guarded.__module__, guarded.__qualname__ = home, function.__name__
    return by_policy(guarded)


def guard_module(namespace: dict[str, Any]) -> None:
    """Guard all functions that a module of public names has imported."""
    for name, value in list(namespace.items()):
        if not name.startswith("_") and isinstance(value, FunctionType):
            namespace[name] = guard(value, namespace["__name__"])


def _translated(function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
                ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments under the names the function has; None where there is nothing to translate."""
    known = inspect.signature(function).parameters
    renamed: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name == "out" and value is None and name not in known:
            continue
        other = _NUMPY_NAMES.get(name, name)
        renamed[other if name not in known and other in known else name] = value
    for name, parameter in known.items():
        if parameter.kind is parameter.VAR_POSITIONAL and name in renamed:
            return (*args, renamed.pop(name)), renamed  # size=(2, 3) for *size
    return None if renamed.keys() == kwargs.keys() else (args, renamed)


def _refuse_others(function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise TypeError where an argument annotated as a tensor is none."""
    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        if signature.parameters[name].annotation == "Tensor" and not isinstance(
                value, (Tensor, Expr)):
            raise TypeError(f"{function.__name__}: {name} must be a Tensor, got "
                            f"{type(value).__name__}") from None
