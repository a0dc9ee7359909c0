"""torch.ops: the operators that a program registered with torch.library, by namespace."""

from __future__ import annotations

import functools
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.as_torch.library import find
from mlgpu.errors import MissingNameError


class _Builtin:
    """One of PyTorch's own operators: a key for tables, and mlgpu's function of that name."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> _Builtin:
        if name.startswith("__"):
            raise AttributeError(name)
        return self  # one of its forms, by the kinds of its arguments

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__
        found = getattr(Tensor, name, None) or getattr(mlgpu, name, None) or getattr(
            mlgpu.nn.functional, name, None)
        if found is None:
            raise MissingNameError(f"torch.ops.aten.{name}: mlgpu has no function of this name")
        return found(*args, **kwargs)


_builtin = functools.cache(_Builtin)


class _Namespace:
    """The operators of one namespace, as attributes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _builtin(name) if self._name in ("aten", "prims") else find(self._name, name)


def load_library(path: Any) -> None:
    """MissingNameError: compiled code for PyTorch cannot be used."""
    raise MissingNameError(f"torch.ops.load_library: {path} is compiled for PyTorch")


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return _Namespace(name)
