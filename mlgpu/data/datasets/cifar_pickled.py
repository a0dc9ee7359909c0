"""The pickles that CIFAR is also published as, read as data: nothing in a file is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.errors import FormatError
from mlgpu.io.pickled import PLAIN, Builder, Reader

__all__ = ["read_batch"]


def read_batch(path: Path) -> dict[str, Any]:
    """The dict in a file of CIFAR's; arrays in it must be of bytes.  FormatError for others."""
    try:
        found = _BatchReader(_NAMES, lambda key: None).read(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path} is no batch of CIFAR: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path} is no batch of CIFAR: it holds a {type(found).__name__}")
    return {name: value.values if isinstance(value, _PickledArray) else value
            for name, value in found.items()}


class _PickledArray:
    """What stands for NumPy's array in a pickle, until its state is set."""

    values: np.ndarray[Any, Any]


class _BatchReader(Reader):
    """Reads arrays of bytes as well."""

    def _set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, _PickledArray):
            _, shape, _, columns_first, raw = state
            raw = raw.encode("latin1") if isinstance(raw, str) else raw
            target.values = np.frombuffer(raw, np.uint8).reshape(
                shape, order="F" if columns_first else "C")
        elif target != "u1":  # whose state says nothing that bytes have
            super()._set_state(target, state)


def _dtype(name: str, *rest: Any) -> str:
    if name != "u1":
        raise FormatError(f"it has an array of {name!r}, and bytes are expected")
    return name


class _Array:
    """NumPy's class, as a name."""


_NAMES = {**PLAIN, "numpy ndarray": _Array(), "numpy dtype": Builder(_dtype), **{
    f"{module} _reconstruct": Builder(lambda *arguments: _PickledArray())
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")}}
