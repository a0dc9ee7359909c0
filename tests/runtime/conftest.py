"""CuPy on simulated devices, for the tests of this folder; on a real GPU they run as they are."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("cupy") is None or find_spec("llvmlite") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from mlgpu.sim.cuda.install import install, real_devices

    if not real_devices():
        install(devices=2, arch="sm_90", memory="4 GiB")


@pytest.fixture(autouse=True)
def fresh() -> None:
    """No error of an earlier test sticks to the devices."""
    from mlgpu.sim.cuda.install import installed

    system = installed()
    if system is not None:
        system.reset()
