"""Build the API documentation from the docstrings: `python docs/build.py [FOLDER]`."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc

from mlgpu import Tensor, api

MODULES = ["mlgpu", "mlgpu.amp", "mlgpu.as_torch", "mlgpu.autograd", "mlgpu.autograd.functional",
           "mlgpu.checkpoint", "mlgpu.cuda", "mlgpu.data", "mlgpu.data.datasets",
           "mlgpu.distributions", "mlgpu.errors", "mlgpu.fft", "mlgpu.io", "mlgpu.linalg",
           "mlgpu.masked",
           "mlgpu.memory", "mlgpu.nn", "mlgpu.nn.functional", "mlgpu.nn.init", "mlgpu.nn.utils",
           "mlgpu.nn.utils.parametrizations", "mlgpu.nn.utils.parametrize", "mlgpu.nn.utils.prune",
           "mlgpu.nn.utils.rnn", "mlgpu.optim", "mlgpu.optim.lr_scheduler", "mlgpu.peft",
           "mlgpu.profiler", "mlgpu.quantization", "mlgpu.random", "mlgpu.sim",
           "mlgpu.signal.windows", "mlgpu.sim.metrics", "mlgpu.sim.roofline", "mlgpu.special",
           "mlgpu.testing", "mlgpu.train", "mlgpu.utils", "mlgpu.utils.checkpoint",
           "mlgpu.utils.data"]


def bind_all() -> None:
    """Put every function and method of the table in its place, as a plain function.

    The table binds names on first use, and elementwise functions are objects: pdoc, which reads
    dictionaries, would pass over both.
    """
    package = import_module("mlgpu")
    for name in api.names():
        setattr(package, name, inspect.unwrap(getattr(package, name)))
    for name in list(vars(Tensor)):
        bound = getattr(Tensor, name)
        if callable(bound) and not isinstance(bound, type):
            raw = inspect.getattr_static(Tensor, name)
            setattr(Tensor, name, inspect.unwrap(raw) if hasattr(raw, "__wrapped__") else raw)
        function = getattr(bound, "fget", inspect.unwrap(bound) if callable(bound) else None)
        if inspect.isfunction(function):
            function.__annotations__ = _evaluated(function)


def _evaluated(function: Any) -> dict[str, Any]:
    """Annotations as types, while they mean what they say: in the class, `int` is a method."""
    names = {"Self": Tensor, **function.__globals__}
    return {name: eval(text, names) if isinstance(text, str) else text
            for name, text in function.__annotations__.items()}


def public(module: ModuleType) -> list[str]:
    """The names that a module's page shows: its `__all__`, or all it has of this package."""
    declared: list[str] | None = getattr(module, "__all__", None)
    if declared is not None:
        return [*declared, *(name for name in dir(module) if name not in declared
                             and f"{module.__name__}.{name}" in MODULES)]
    return [name for name in dir(module) if not name.startswith("_") and _ours(module, name)]


def _ours(module: ModuleType, name: str) -> bool:
    found = getattr(module, name)
    if isinstance(found, ModuleType):
        return f"{module.__name__}.{name}" in MODULES
    home = getattr(found, "__module__", None) or type(found).__module__
    # A class has one place: `mlgpu.device` is `mlgpu.Device`.
    return home.partition(".")[0] == "mlgpu" and (
        not isinstance(found, type) or found.__name__ == name)


def main() -> None:
    """Write one page per module in MODULES."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    bind_all()
    modules: list[Any] = [import_module(name) for name in MODULES]
    for module in modules:
        module.__all__ = public(module)
        for attribute in module.__all__:  # what the module imports on first use
            setattr(module, attribute, getattr(module, attribute))
    # Signatures are shown as they are written.  They cannot always be evaluated: Tensor's casts
    # hide int and float, and the declarations of methods are no module.
    for message in ("Error parsing type annotation", "Failed to run TYPE_CHECKING code"):
        warnings.filterwarnings("ignore", message)
    pdoc.render.configure(docformat="markdown", footer_text="mlgpu")
    pdoc.pdoc("mlgpu", f"!(?!({'|'.join(map(re.escape, MODULES))})$)", output_directory=folder)
    print(f"{sum(1 for _ in folder.rglob('*.html'))} pages in {folder}")


if __name__ == "__main__":
    main()
