"""`__torch_function__`: classes that have a say in what PyTorch's functions do with their objects.

A subclass of Tensor gets its methods in a form that asks its `__torch_function__`; functions ask
that of every argument's class, once there is such a subclass.  Any other object is asked where a
function has refused it, so that a program with plain tensors pays for nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from mlgpu import Tensor
from mlgpu.as_torch.out import into
from mlgpu.nn.parameter import Parameter

# Properties whose values are made of the tensor's elements; others are facts about it.
_PROPERTIES = ("H", "T", "imag", "mH", "mT", "real")
# What makes, names or describes an object, and is nobody's to override.
_KEPT = frozenset("""__new__ __init__ __init_subclass__ __class__ __getattribute__ __setattr__
    __delattr__ __del__ __dir__ __doc__ __hash__ __reduce__ __reduce_ex__ __sizeof__
    __subclasshook__ __torch_function__ __getstate__ __class_getitem__ as_subclass requires_grad_
    _make _check __format__ __deepcopy__""".split())


class _State(threading.local):
    disabled = 0  # how many blocks there are within which subclasses are not asked


_state = _State()
_subclasses: list[type] = []  # those of Tensor that may be asked


class DisableTorchFunctionSubclass:
    """A block in which subclasses of Tensor are taken for tensors."""

    def __enter__(self) -> None:
        _state.disabled += 1

    def __exit__(self, *exception: object) -> None:
        _state.disabled -= 1


def disabled(cls: type, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """The `__torch_function__` of a class that is not asked, as Parameter's."""
    return NotImplemented


def default(cls: type[Tensor], func: Callable[..., Any], types: Iterable[type],
            args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
    """What `__torch_function__` does unless a class has its own: results are of the class."""
    if not all(issubclass(cls, kind) for kind in types):
        return NotImplemented
    with DisableTorchFunctionSubclass():
        return _converted(func(*args, **(kwargs or {})), cls)


def _converted(value: Any, cls: type[Tensor]) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, cls):
        return value.as_subclass(cls)
    if isinstance(value, (tuple, list)):
        parts = [_converted(part, cls) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def overloaded(values: Iterable[Any]) -> list[Any]:
    """The objects whose classes are to be asked, one of each; a subclass comes before its base."""
    found: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is Tensor or not _asked(kind) or any(type(other) is kind for other in found):
            continue
        place = next((i for i, other in enumerate(found) if issubclass(kind, type(other))),
                     len(found))
        found.insert(place, value)
    return found


def _asked(kind: type) -> bool:
    handler = getattr(kind, "__torch_function__", None)
    if handler is None or getattr(handler, "__func__", handler) is disabled:
        return False
    return not (_state.disabled and issubclass(kind, Tensor))


def ask(func: Callable[..., Any], found: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
    """What the first of the classes says that does not say NotImplemented; TypeError if all do."""
    types = tuple(type(value) for value in found)
    for value in found:
        result = type(value).__torch_function__(func, types, args, kwargs)
        if result is not NotImplemented:
            return result
    raise TypeError(f"{func.__name__}: no __torch_function__ of {[t.__name__ for t in types]} "
                    "takes it")


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments, and what is in those that are lists or tuples."""
    flat: list[Any] = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) in (list, tuple):
            flat += value
        else:
            flat.append(value)
    return flat


@functools.cache
def function(inner: Callable[..., Any]) -> Callable[..., Any]:
    """One of PyTorch's functions: it asks the classes of its arguments, and takes `out=`."""
    @functools.wraps(inner)
    def called(*args: Any, **kwargs: Any) -> Any:
        if _subclasses and (found := overloaded(_flat(args, kwargs))):
            return ask(called, found, args, kwargs)
        try:
            if kwargs and kwargs.get("out") is not None:
                out = kwargs.pop("out")
                return into(inner, out, args, kwargs)
            return inner(*args, **kwargs)
        except (TypeError, AttributeError):
            if found := overloaded(_flat(args, kwargs)):
                return ask(called, found, args, kwargs)
            raise

    return called


# What an operator is called where it is asked about.
_OPERATORS = {f"__{prefix}{name}__": name for prefix in ("", "r", "i")
              for name in ("add", "mul")} | {
                  f"__{name}__": name for name in "sub matmul eq ne lt le gt ge neg abs".split()}


def _method(name: str, inner: Any) -> Any:
    """A method of Tensor in the form that subclasses have."""
    asked = _OPERATORS.get(name, name)

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if found := overloaded(_flat((self, *args), kwargs)):
            return ask(getattr(Tensor, asked), found, (self, *args), kwargs)
        return inner(self, *args, **kwargs)

    called.__name__ = name
    return called


def _property(name: str, inner: property) -> property:
    def get(self: Any) -> Any:
        if found := overloaded((self,)):
            return ask(inner.fget, found, (self,), {})  # type: ignore[arg-type]
        return getattr(Tensor, name).__get__(self)

    return property(get, inner.fset)


@functools.cache
def _forms() -> dict[str, Any]:
    """The methods of Tensor, in the form that subclasses have."""
    forms = {}
    for name in dir(Tensor):
        if name in _KEPT:
            continue
        inner = getattr(Tensor, name)
        if name in _PROPERTIES:
            forms[name] = _property(name, inner)
        elif isinstance(inner, FunctionType) or hasattr(inner, "elementwise"):
            forms[name] = _method(name, inner)
    return forms


def _init_subclass(cls: type[Tensor], **options: Any) -> None:
    """A new subclass of Tensor: its methods ask it, but for those that it has of its own."""
    if issubclass(cls, Parameter) and cls.__torch_function__.__func__ is disabled:  # type: ignore[attr-defined]
        return
    _subclasses.append(cls)
    for name, form in _forms().items():
        if getattr(cls, name, None) is getattr(Tensor, name, None):
            setattr(cls, name, form)


def _make_subclass(cls: type[Tensor], data: Tensor, require_grad: bool = False) -> Tensor:
    """The memory of `data` as a leaf of the class."""
    return data.detach().as_subclass(cls).requires_grad_(require_grad)


def install() -> None:
    """Give Tensor and Parameter what PyTorch's have."""
    Tensor.__torch_function__ = classmethod(default)  # type: ignore[attr-defined]
    Parameter.__torch_function__ = classmethod(disabled)  # type: ignore[attr-defined]
    Tensor._make_subclass = staticmethod(_make_subclass)  # type: ignore[attr-defined]
    Tensor.__init_subclass__ = classmethod(_init_subclass)  # type: ignore[arg-type,assignment,method-assign]
