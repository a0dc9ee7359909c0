"""CUDA devices for tests: this machine's, or simulated ones under the installed CuPy."""

from __future__ import annotations

from importlib.util import find_spec

from mlgpu.sim.cuda.install import install, installed, real_devices


def missing() -> list[str]:
    """What is not installed of what devices need."""
    return [name for name in ("cupy", "llvmlite")
            if find_spec(name) is None and (name == "cupy" or not real_devices())]


def prepare() -> None:
    """Simulate two devices, unless there are real ones or `pytest --cuda-sim` has done so."""
    if installed() is None and not real_devices():
        install(devices=2, arch="sm_90", memory="4 GiB")
