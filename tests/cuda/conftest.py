"""CUDA devices, simulated where there are none, for the tests of this folder.

What simulated devices find fails the test that it belongs to.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import simulated

from mlgpu.sim.cuda.install import installed
from mlgpu.sim.pytest_plugin import NAME, Simulated

MISSING = simulated.missing()
if MISSING:  # test_cuda_devices.py says so
    collect_ignore_glob = [path.name for path in Path(__file__).parent.glob("test_*.py")
                           if path.name != "test_cuda_devices.py"]
else:
    simulated.prepare()
_system = installed()
_hooks = None if _system is None else Simulated(_system)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    if _hooks is not None and not item.config.pluginmanager.has_plugin(NAME):
        return (yield from _hooks.pytest_runtest_setup(item))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if _hooks is not None and not item.config.pluginmanager.has_plugin(NAME):
        return (yield from _hooks.pytest_runtest_call(item))
    return (yield)
