"""Modules whose parameters will be loaded."""

from __future__ import annotations

from typing import Any, TypeVar

from mlgpu.errors import MlgpuError
from mlgpu.nn import init
from mlgpu.nn.module import Module

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """`module_cls(*args, **kwargs)` without the time it takes to initialise parameters.

    What `mlgpu.nn.init` would write, in the module and all it makes for itself, is left out: those
    parameters hold any values until they are loaded or set, and no random numbers are drawn.
    Buffers have their first values, and so has what the class computes in another way.  PyTorch
    takes only classes with a `device` argument here.  MlgpuError for what is no Module class.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise MlgpuError(f"skip_init: expected a class derived from Module, got {module_cls!r}")
    with init.skipped():
        return module_cls(*args, **kwargs)
