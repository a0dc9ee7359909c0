"""The device that tests run on: `pytest --device cuda` runs the same tests there."""

from __future__ import annotations

import gc
import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already: BLAS threads would only wait for each other.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import pytest

import mlgpu

pytest_plugins = ["withtorch"]


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="the device to test: cpu, cuda or cuda:N")
    parser.addoption("--torch", action="store_true",
                     help="only the tests that PyTorch takes part in")


def pytest_configure(config):
    config.addinivalue_line("markers", "cuda_findings: sees to findings itself (mlgpu_pytest.py)")
    name = config.getoption("--device")
    if name != "cpu" and (problem := mlgpu.cuda.unavailable_reason()) is not None:
        raise pytest.UsageError(f"--device {name}: {problem}; --cuda-sim simulates devices")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Slow tests stand side by side: a process that is done takes over what another has left."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_report_header(config):
    return f"mlgpu {mlgpu.__version__} on {config.getoption('--device')}"


def pytest_collection_finish(session):
    """Tests of memory call the collector: spare it the tens of thousands of tests themselves."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def spared():
    """Tests of memory call the collector: spare it what earlier files left, such as kernels."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_cuda(monkeypatch):
    """A machine without CuPy, as far as mlgpu can tell."""
    monkeypatch.setattr(mlgpu.cuda, "unavailable_reason", lambda: "CuPy is not installed (pip "
                                                                  "install 'mlgpu[cuda12]')")


@pytest.fixture(scope="session")
def device(request):
    """The name of the device under test; it is the current one in tests that ask for it."""
    return str(mlgpu.Device(request.config.getoption("--device")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """A test that does not ask for the device is about the CPU, whatever ran before it."""
    name = item.config.getoption("--device")
    if name == "cpu" or "device" not in item.fixturenames:
        return (yield)
    with mlgpu.Device(name):
        return (yield)
