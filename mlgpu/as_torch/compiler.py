"""torch.compiler: nothing is compiled as a graph, so its marks do nothing."""

from __future__ import annotations

from typing import Any

from mlgpu.as_torch.toplevel import compile as compile
from mlgpu.nn import Module


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function itself; also a decorator with options."""
    return fn if fn is not None else (lambda decorated: decorated)


class OptimizedModule(Module):
    """What a compiled module would be: none is one, as `compile` gives back the module itself."""


class _Switches:
    """Settings of the compiler: they can be set, and do nothing."""


config = _Switches()
allow_in_graph = assume_constant_result = disable


def is_compiling() -> bool:
    """False."""
    return False


def is_dynamo_compiling() -> bool:
    """False."""
    return False


def reset() -> None:
    """Nothing."""


def cudagraph_mark_step_begin() -> None:
    """Nothing."""


class TransformGetItemToIndex:
    """A block in which nothing is different: vmap is a loop, where a tensor is an index anyway."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...
