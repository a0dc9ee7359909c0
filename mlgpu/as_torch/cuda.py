"""torch.cuda beside mlgpu.cuda: seeds, flags and statistics in the words of PyTorch's programs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import DeviceError
from mlgpu.errors import OutOfMemoryError as OutOfMemoryError
from mlgpu.typed import CUDA_CLASSES


def manual_seed(seed: int) -> None:
    """Start the one stream of random numbers, which serves every device, anew.

    Nothing where there is no CUDA device, as in PyTorch.
    """
    if mlgpu.cuda.is_available():
        mlgpu.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As `manual_seed`."""
    manual_seed(seed)


def initial_seed() -> int:
    """What the stream was started from."""
    return int(mlgpu.initial_seed())


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of the one stream."""
    return mlgpu.get_rng_state()


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Put the one stream where it was."""
    mlgpu.set_rng_state(new_state)


def get_rng_state_all() -> list[Tensor]:
    """The state, once for each device."""
    return [get_rng_state() for _ in range(mlgpu.cuda.device_count())]


def set_rng_state_all(new_states: list[Tensor]) -> None:
    """Put the one stream where it was."""
    for state in new_states[:1]:
        set_rng_state(state)


def is_initialized() -> bool:
    """Whether there is a device: one is initialised with its first use."""
    return mlgpu.cuda.is_available()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 can be computed with: on every device that there is."""
    return mlgpu.cuda.is_available()


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that were allocated at a time."""
    return mlgpu.cuda.max_memory_allocated(device)


class StreamContext:
    """A block whose work goes to a stream, as `torch.cuda.stream(stream)`; None changes nothing."""

    def __init__(self, stream: Any) -> None:
        self._block = nullcontext() if stream is None else mlgpu.cuda.stream(stream)

    def __enter__(self) -> Any:
        return self._block.__enter__()

    def __exit__(self, *exception: object) -> Any:
        return self._block.__exit__(*exception)


def synchronize(device: Any = None) -> None:
    """Wait for a device."""
    mlgpu.cuda.synchronize(device)


def empty_cache() -> None:
    """Give bytes that no tensor has to the system; nothing where there is no device."""
    if mlgpu.cuda.is_available():
        mlgpu.cuda.empty_cache()


class _NeedsDevice(type):
    """A name of mlgpu.cuda where there is no device: it can be named, and says so when called."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise DeviceError(f"cuda.{cls.__name__}: no device can be used: "
                          f"{mlgpu.cuda.unavailable_reason()}")


def __getattr__(name: str) -> Any:
    if name == "_initialized":
        return is_initialized()
    if name in mlgpu.cuda.__all__ and not mlgpu.cuda.is_available() and name not in vars(
            mlgpu.cuda):
        return _NeedsDevice(name, (), {})
    if name in CUDA_CLASSES:
        return CUDA_CLASSES[name]
    raise AttributeError(name)
