"""torch.save and torch.load: PyTorch's files of weights, read without running anything in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlgpu.device import Device, resolve
from mlgpu.io.pytorch import File, load_pytorch, save_pytorch


def save(obj: object, f: File, pickle_module: Any = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Write `obj`, made of tensors and plain values, as PyTorch does (see `save_pytorch`)."""
    save_pytorch(obj, f)


def load(f: File, map_location: Any = None, pickle_module: Any = None, *,
         weights_only: bool | None = None, mmap: bool | None = None, **pickle_load_args: Any
         ) -> Any:
    """What `save`, or PyTorch's, wrote; `map_location` is a device, a dict of them, or a function.

    Nothing in a file is executed, whatever `weights_only` says.  Raises FormatError for objects of
    other classes than state dicts are made of.
    """
    if map_location is None:
        return load_pytorch(f)
    if isinstance(map_location, (str, Device, int)):
        return load_pytorch(f, map_location if isinstance(map_location, str)
                            else Device(map_location))

    def placing(location: str) -> Device:
        if isinstance(map_location, dict):
            return resolve(map_location.get(location, location))
        placed = map_location(_Storage(resolve("cpu")), location)
        return resolve(location) if placed is None else placed.device

    return load_pytorch(f, placing=placing)


DEFAULT_PROTOCOL = 2
MAP_LOCATION = Any


@contextmanager
def safe_globals(safe_globals: list[Any]) -> Iterator[None]:
    """A block in which nothing is different: see `add_safe_globals`."""
    yield


def get_safe_globals() -> list[Any]:
    """None: what a file may name is fixed."""
    return []


def clear_safe_globals() -> None:
    """Nothing: what a file may name is fixed."""


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Nothing: what a file may name is fixed, and no class of a program is among it."""


class _Storage:
    """What a function given as `map_location` is asked to place: `lambda storage, loc: storage`."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def cpu(self) -> _Storage:
        return _Storage(resolve("cpu"))

    def cuda(self, device: int | str | None = None) -> _Storage:
        return _Storage(resolve("cuda" if device is None else device))


