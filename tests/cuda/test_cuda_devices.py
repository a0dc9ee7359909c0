"""The devices that this folder's tests run on."""

from __future__ import annotations

import pytest
import simulated

import mlgpu
from mlgpu.sim.cuda.install import installed, real_devices


def test_there_are_devices() -> None:
    for name in simulated.missing():
        pytest.skip(f"{name} is not installed: no test of CUDA devices runs")
    assert mlgpu.cuda.is_available()
    assert mlgpu.cuda.device_count() == (real_devices() or len(installed().devices))
