"""torch.nn.parallel.scatter_gather: a batch spread over devices, of which a model has one."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor
from mlgpu.as_torch.pytree import tree_map
from mlgpu.errors import DeviceError


def scatter(inputs: Any, target_gpus: Any, dim: int = 0) -> list[Any]:
    """What is nested in `inputs`, moved to the only device.  DeviceError for more."""
    if len(target_gpus) != 1:
        raise DeviceError(f"scatter: mlgpu runs a model on one device, got {len(target_gpus)}")
    return [tree_map(lambda t: t.to(target_gpus[0]) if isinstance(t, Tensor) else t, inputs)]


def gather(outputs: list[Any], target_device: Any, dim: int = 0) -> Any:
    """The only result, moved to a device.  DeviceError for more."""
    if len(outputs) != 1:
        raise DeviceError(f"gather: mlgpu runs a model on one device, got {len(outputs)} results")
    return tree_map(lambda t: t.to(target_device) if isinstance(t, Tensor) else t, outputs[0])
