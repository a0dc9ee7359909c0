"""mlgpu.cuda: what there is to know about CUDA on this machine.

Everything of mlgpu that computes on CUDA devices gets CuPy from `loading.py`.  Operations do not
run there yet, so no device is offered: `is_available()` is False and `unavailable_reason()` says
why.
"""

from __future__ import annotations

from importlib.util import find_spec

from mlgpu.device import DeviceRuntime
from mlgpu.errors import DeviceError


def unavailable_reason() -> str | None:
    """Why CUDA devices cannot be used, or None where they can."""
    if find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'mlgpu[cuda12]')"
    return "this version of mlgpu runs operations on the CPU only"


def is_available() -> bool:
    """Whether tensors can live on a CUDA device."""
    return unavailable_reason() is None


def device_count() -> int:
    """How many CUDA devices can be used."""
    return 0


def load_runtime() -> DeviceRuntime:
    """The CUDA runtime.  Raises DeviceError where there is none."""
    raise DeviceError(f"cuda: no device can be used: {unavailable_reason()}")
