"""CuPy on simulated devices, for the tests of this folder; on a real GPU they run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import simulated

from mlgpu.sim.cuda.install import installed

MISSING = simulated.missing()
if MISSING:  # test_devices.py says so
    collect_ignore_glob = [path.name for path in Path(__file__).parent.glob("test_*.py")
                           if path.name != "test_devices.py"]
else:
    simulated.prepare()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cuda_findings")


@pytest.fixture(autouse=True)
def fresh() -> None:
    """No error of an earlier test sticks to the devices, and none has access to another."""
    system = installed()
    if system is not None:
        system.reset()
        for device in system.devices:
            for peer in tuple(device.peers):
                device.peers.discard(peer)
                device.space.others.remove(system.devices[peer].space)
