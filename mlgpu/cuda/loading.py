"""CuPy, loaded: on this machine's GPUs, or on simulated ones where MLGPU_CUDA=sim asks for them."""

from __future__ import annotations

import threading
from types import ModuleType

from mlgpu.cuda import environment
from mlgpu.extras import require

_lock = threading.Lock()


def load() -> ModuleType:
    """The module cupy.

    Raises MissingExtraError where it is not installed, DeviceError where MLGPU_CUDA has a value
    without a meaning, SimError where devices cannot be simulated.
    """
    with _lock:
        if environment.wanted():
            from mlgpu.sim.cuda.install import install, installed

            if installed() is None:
                install(**environment.options())
        return require("cupy", "cuda12", "CUDA devices")
