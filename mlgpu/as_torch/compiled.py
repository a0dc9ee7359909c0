"""torch._C, PyTorch's compiled part: what packages call of it in passing."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor
from mlgpu.as_torch.dispatch import DisableTorchFunctionSubclass as DisableTorchFunctionSubclass
from mlgpu.as_torch.dispatch import disabled as _disabled_torch_function_impl  # noqa: F401

_TensorMeta = type(Tensor)
TensorType = Tensor
_has_xpu = _has_mps = _has_cuda = False
DisableTorchFunction = DisableTorchFunctionSubclass


def _log_api_usage_once(*names: Any) -> None:
    """Nothing: mlgpu keeps no log of what is used."""


def _get_tracing_state() -> None:
    """None: nothing is being traced."""
    return
