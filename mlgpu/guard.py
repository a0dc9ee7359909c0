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

# How many of the first arguments PyTorch takes only as tensors, of functions that would compute
# with a Python number as well.
_OF_TENSORS = {
    **dict.fromkeys("""clamp_max clamp_min copysign eq fmod ge greater greater_equal gt le less
        less_equal lt ne not_equal rsub""".split(), 1),
    **dict.fromkeys("""arctan2 atan2 fmax fmin gcd heaviside igamma igammac lcm ldexp logical_and
        logical_or logical_xor maximum minimum""".split(), 2)}
_BOUNDS = frozenset("clamp_max clamp_min fmax fmin maximum minimum".split())
_NUMBERS = (bool, int, float, complex)

_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"}


def guard(function: Callable[..., Any], home: str | None = None) -> Callable[..., Any]:
    """`function` with TypeErrors for arguments that are no tensors, as elementwise functions have.

    `home` is the module under whose name pickle finds the result.
    """
    count = _OF_TENSORS.get(getattr(function, "__name__", "").strip("_"), 0)
    if count:
        return _of_tensors(function, count, home)
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


def _of_tensors(function: Callable[..., Any], count: int, home: str | None) -> Callable[..., Any]:
    """`function`, which refuses numbers as its first `count` arguments, as PyTorch does."""
    name = function.__name__.strip("_")
    bound = ("; clamp() takes a number as a bound" if name in _BOUNDS
             else "; make one with mlgpu.tensor()")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for position, value in enumerate(args if count == 1 else (*args, *kwargs.values())):
            if position < count and isinstance(value, _NUMBERS) and not any(
                    isinstance(other, Expr) for other in args):  # which are within another function
                raise TypeError(f"{name}: argument {position} must be a Tensor, got "
                                f"{type(value).__name__}{bound}")
        return function(*args, **kwargs)

    checked.elementwise = True  # type: ignore[attr-defined]  # symbols have it as a method, too
    if home is not None:
        checked.__module__, checked.__qualname__ = home, function.__name__
    return checked


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
