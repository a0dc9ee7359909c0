"""torch.jit: programs are run as they are, so its decorators give back what they are given."""

from __future__ import annotations

from typing import Any
from typing import Final as Final

from mlgpu.errors import MissingNameError
from mlgpu.nn import Module as Module


class ScriptModule(Module):
    """What a scripted module would be; programs derive from it."""


class ScriptFunction:
    """What a scripted function would be: nothing is one."""


def script(obj: Any = None, **options: Any) -> Any:
    """The function, class or module itself."""
    return obj if obj is not None else (lambda decorated: decorated)


def _same(obj: Any) -> Any:
    """What it is given."""
    return obj


script_method = export = unused = interface = freeze = optimize_for_inference = _same
_overload = _overload_method = _same


def trace(func: Any, *args: Any, **options: Any) -> Any:
    """The function or module itself: what it computes is looked up at every call."""
    return func


def trace_module(mod: Module, inputs: Any, **options: Any) -> Module:
    """The module itself."""
    return mod


def _get_trace_graph(*args: Any, **options: Any) -> Any:
    """MissingNameError: mlgpu does not trace programs."""
    raise MissingNameError("torch.jit._get_trace_graph: mlgpu does not trace programs")


class TracerWarning(Warning):
    """What a tracer would warn of."""


def fork(func: Any, *args: Any, **kwargs: Any) -> Any:
    """What the function returns: it is called at once, and `wait` has nothing to wait for."""
    return func(*args, **kwargs)


def wait(future: Any) -> Any:
    """What `fork` gave."""
    return future


def ignore(drop: Any = False, **options: Any) -> Any:
    """The function itself; also a decorator with options."""
    return drop if callable(drop) else _same


def script_if_tracing(fn: Any) -> Any:
    """The function itself."""
    return fn


def is_scripting() -> bool:
    """False."""
    return False


def is_tracing() -> bool:
    """False."""
    return False


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value."""
    return the_value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's isinstance."""
    import builtins

    return builtins.isinstance(obj, target_type)
