"""torch.nn.modules.module: hooks of all modules, and what packages import from there by name."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from mlgpu.nn import Module
from mlgpu.nn.hooks import register
from mlgpu.nn.state import IncompatibleKeys
from mlgpu.tensor import RemovableHandle

_IncompatibleKeys = IncompatibleKeys
_before: OrderedDict[int, Any] = OrderedDict()
_after: OrderedDict[int, Any] = OrderedDict()
_own_call = Module.__call__


@functools.wraps(_own_call)
def _call(self: Module, *args: Any, **kwargs: Any) -> Any:
    """Calling a module, with the hooks of all modules around its own."""
    for hook in list(_before.values()):
        replaced = hook(self, args)
        if replaced is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    result = _own_call(self, *args, **kwargs)
    for hook in list(_after.values()):
        replaced = hook(self, args, result)
        if replaced is not None:
            result = replaced
    return result


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Before every module's forward call `hook(module, args)`, which may return other arguments."""
    Module.__call__ = _call  # type: ignore[method-assign]
    return register(_before, hook)


def register_module_forward_hook(hook: Callable[..., Any], *, with_kwargs: bool = False,
                                 always_call: bool = False) -> RemovableHandle:
    """After every module's forward call `hook(module, args, output)`, which may replace the output.

    Raises TypeError for the two options, which are those of a module's own hooks here.
    """
    if with_kwargs or always_call:
        raise TypeError("register_module_forward_hook: with_kwargs and always_call are options of "
                        "a module's own register_forward_hook")
    Module.__call__ = _call  # type: ignore[method-assign]
    return register(_after, hook)
