"""torch.fx: marks for a tracer, of which mlgpu has none, and the classes of what it would make."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import MissingNameError
from mlgpu.nn import Module


def wrap(fn_or_name: Any) -> Any:
    """The function itself: nothing is traced, so that there is nothing to leave whole."""
    return fn_or_name


class _OfTracer:
    """A class that programs name in annotations and ask after; making one raises."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise MissingNameError(f"torch.fx.{type(self).__name__}: mlgpu does not trace programs")


class Graph(_OfTracer):
    """What a tracer would find."""


class Node(_OfTracer):
    """One operation of it."""


class Proxy(_OfTracer):
    """What stands for a tensor while a program is traced."""


class Tracer(_OfTracer):
    """What traces."""


class Interpreter(_OfTracer):
    """What runs a graph."""


class GraphModule(Module):
    """A module made of a graph: none is one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise MissingNameError("torch.fx.GraphModule: mlgpu does not trace programs")


def symbolic_trace(root: Any, concrete_args: Any = None) -> Any:
    """MissingNameError: mlgpu does not trace programs."""
    raise MissingNameError("torch.fx.symbolic_trace: mlgpu does not trace programs")
