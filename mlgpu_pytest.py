"""The pytest plugin `--cuda-sim`: tests run CuPy on simulated devices (docs/simulated-cuda.md).

pytest imports this module wherever mlgpu is installed.  It stands beside the package so that this
costs nothing: mlgpu itself is imported only where the option asks for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlgpu.sim.cuda.system import System

OPTIONS = {"devices": ("N", "how many devices (2)"), "arch": ("SM", "what they are (sm_90)"),
           "memory": ("SIZE", "memory of each (4 GiB)"),
           "seed": ("N", "of the order in which streams run; 0, the default, hurts most"),
           "allocations": ("KIND", "pool or separate: how arrays get their memory (pool)")}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cuda-sim", "simulated CUDA devices (mlgpu)")
    group.addoption("--cuda-sim", action="store_true",
                    help="run CuPy on simulated CUDA devices; what they find fails the test")
    for name, (metavar, text) in OPTIONS.items():
        group.addoption(f"--cuda-sim-{name}", metavar=metavar, help=text)


@pytest.hookimpl(tryfirst=True)  # before a conftest.py can import CuPy
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    _start(early_config, early_config.known_args_namespace)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda_findings: under --cuda-sim, the test sees to findings "
                                       "itself, and they do not fail it")
    _start(config, config.option)


def _start(config: pytest.Config, options: Any) -> None:
    """Install the devices, once."""
    given = {name: getattr(options, f"cuda_sim_{name}") for name in OPTIONS}
    if options.cuda_sim:
        from mlgpu.sim import pytest_plugin

        pytest_plugin.start(config, given)
    elif any(given.values()):
        name = next(name for name, value in given.items() if value)
        raise pytest.UsageError(f"--cuda-sim-{name} means nothing without --cuda-sim")


@pytest.fixture
def cuda_sim() -> System:
    """The simulated devices that the test runs on; where there are none, the test is skipped."""
    module = sys.modules.get("mlgpu.sim.cuda.install")
    system: System | None = module.installed() if module is not None else None
    if system is None:
        pytest.skip("CUDA is not simulated; run pytest --cuda-sim")
    return system
