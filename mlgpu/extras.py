"""Optional dependencies: imported where a feature needs them, with a clear error where absent."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mlgpu.errors import MissingExtraError


def require(module: str, extra: str, feature: str) -> ModuleType:
    """The optional module that a feature needs.

    Raises MissingExtraError naming the `pip install` where it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise  # it is there, but something it needs is not: that is its own message
        raise MissingExtraError(f"{feature}: needs the package {error.name}, which is not "
                                f"installed; pip install 'mlgpu[{extra}]'") from None
