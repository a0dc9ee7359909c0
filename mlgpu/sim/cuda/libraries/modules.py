"""Modules of ours in the place of CuPy's bindings to NVIDIA's libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.system import System

F = TypeVar("F", bound=Callable[..., Any])


class StatusError(RuntimeError):
    """A library's error: its status by name, and what the simulated library has to say."""

    names: ClassVar[Mapping[int, str]] = {}
    failed = 0  # the status for work that a failed device no longer takes

    def __init__(self, status: int, text: str = "") -> None:
        name = self.names.get(status, f"status {status}")
        super().__init__(name + (f"\n{text}" if text else ""))
        self.status, self.text = status, text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.text)


class Library:
    """The functions of one binding: the public methods, and those of families for each type."""

    error: type[StatusError]
    private: tuple[str, ...] = ()  # functions whose names begin with an underscore

    def __init__(self, system: System) -> None:
        self.system = system


def family(pattern: str, kinds: Sequence[str]) -> Callable[[F], F]:
    """A method that takes the kind of element ("s", "d", ...) first, one function for each."""
    def mark(method: F) -> F:
        method.family = (pattern, tuple(kinds))  # type: ignore[attr-defined]
        return method
    return mark


def functions(library: Library) -> dict[str, Callable[..., Any]]:
    """What a library's module offers, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(type(library)):
        method, bound = getattr(type(library), name), getattr(library, name, None)
        pattern, kinds = getattr(method, "family", ("", ()))
        for kind in kinds:
            found[pattern.format(kind)] = _guarded(library, bound, pattern.format(kind), (kind,))
        public = not name.startswith("_") or name in library.private
        if public and callable(method) and not isinstance(method, type):
            found[name] = _guarded(library, bound, name, ())
    return found


def _guarded(library: Library, function: Any, name: str,
             first: tuple[str, ...]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with library.system.lock:
            try:
                return function(*first, *args, **kwargs)
            except CudaError as error:
                raise library.error(library.error.failed, str(error.text)) from error
    call.__name__ = call.__qualname__ = name
    call.__doc__ = function.__doc__
    return call


def provide(name: str, contents: Mapping[str, Any], doc: str) -> ModuleType:
    """Have `import name` give a module with this contents."""
    module = ModuleType(name, doc)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def attach(name: str) -> None:
    """Make a provided module an attribute of its package, which an import leaves out."""
    package, _, short = name.rpartition(".")
    setattr(import_module(package), short, sys.modules[name])
