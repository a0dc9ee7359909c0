"""The devices that this folder's tests run on."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from mlgpu.sim.cuda.install import installed, real_devices


def test_there_are_devices() -> None:
    real = real_devices()
    for name in ("cupy", *(() if real else ("llvmlite",))):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: no test of CuPy on devices runs")
    import cupy

    system = installed()
    assert (system is None) == bool(real)
    assert cupy.cuda.runtime.getDeviceCount() == (real if system is None else len(system.devices))
