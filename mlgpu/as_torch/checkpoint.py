"""torch.utils.checkpoint beside mlgpu's: the random state of devices, for checkpoints by hand."""

from __future__ import annotations

from typing import Any

import mlgpu
from mlgpu import Tensor


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """The CUDA devices that tensors are on, and the state of the one stream for each."""
    devices = sorted({arg.get_device() for arg in args if isinstance(arg, Tensor) and arg.is_cuda})
    return devices, [mlgpu.get_rng_state() for _ in devices]


def set_device_states(devices: list[int], states: list[Tensor], *, device_type: str | None = None
                      ) -> None:
    """Put the one stream where `get_device_states` found it."""
    for state in states[:1]:
        mlgpu.set_rng_state(state)
