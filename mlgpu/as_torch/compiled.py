"""torch._C, PyTorch's compiled part: what packages call of it in passing."""

from __future__ import annotations

from typing import Any

from mlgpu import Device, Tensor
from mlgpu.as_torch.dispatch import DisableTorchFunctionSubclass as DisableTorchFunctionSubclass
from mlgpu.as_torch.dispatch import disabled as _disabled_torch_function_impl  # noqa: F401
from mlgpu.dtypes import dtype

_TensorMeta = type(Tensor)
TensorType = Tensor
_has_xpu = _has_mps = _has_cuda = False
DisableTorchFunction = DisableTorchFunctionSubclass


class Graph:
    """What a tracer would find; programs name it in annotations."""


class Value(Graph):
    """A value in it."""


class Node(Graph):
    """An operation in it."""


def _log_api_usage_once(*names: Any) -> None:
    """Nothing: mlgpu keeps no log of what is used."""


def _get_tracing_state() -> None:
    """None: nothing is being traced."""
    return


class _nn:
    """How Module.to reads its arguments."""

    @staticmethod
    def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, Any, bool, Any]:
        """(device, dtype, non_blocking, memory_format) of the arguments of `to`."""
        values = [*args, *kwargs.values()]
        like = next((v for v in values if isinstance(v, Tensor)), None)
        device = next((v for v in values if isinstance(v, (Device, str))), None)
        kind = next((v for v in values if isinstance(v, dtype)), None)
        if like is not None:
            device, kind = like.device, like.dtype
        return (None if device is None else Device(device), kind,
                bool(kwargs.get("non_blocking", False)), kwargs.get("memory_format"))
