"""How simulated devices are chosen: mlgpu.sim.install, and MLGPU_CUDA with its fellows."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import pytest

from mlgpu import info, sim
from mlgpu.cuda import environment
from mlgpu.cuda.loading import load
from mlgpu.errors import DeviceError
from mlgpu.sim.cuda.install import installed, real_devices


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of CUDA."""
    for name in [name for name in os.environ if name.startswith(("MLGPU_CUDA", "MLGPU_SIM_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


def process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLGPU_CUDA",
                                                                            "MLGPU_SIM_"))}
    return subprocess.run([sys.executable, "-c", code], env=environment | variables, text=True,
                          capture_output=True, timeout=120)


def test_importing_the_simulator_imports_neither_cupy_nor_llvm() -> None:
    done = process("import sys, mlgpu.sim, mlgpu.cuda.loading; assert callable(mlgpu.sim.install); "
                   "print(*{m.partition('.')[0] for m in sys.modules})")
    assert "mlgpu" in done.stdout.split()
    assert not {"cupy", "cupy_backends", "llvmlite"} & {*done.stdout.split()}


def test_names_that_are_not_there_stay_so() -> None:
    with pytest.raises(AttributeError, match="uninstall"):
        sim.uninstall  # noqa: B018


@pytest.mark.skipif(bool(real_devices()), reason="there is a real GPU")
def test_loading_under_the_environment() -> None:
    done = process(
        "from mlgpu.cuda.loading import load\n"
        "cupy = load(); assert load() is cupy\n"
        "runtime = cupy.cuda.runtime\n"
        "print(runtime.getDeviceCount(), cupy.cuda.Device().compute_capability,\n"
        "      runtime.memGetInfo()[1], int(cupy.arange(5).sum()))\n"
        "from mlgpu.sim.cuda.install import installed\n"
        "print(installed().streams.hurt)",
        MLGPU_CUDA="sim", MLGPU_SIM_DEVICES="3", MLGPU_SIM_ARCH="sm_80",
        MLGPU_SIM_MEMORY="64 MiB", MLGPU_SIM_SEED="5")
    assert done.stdout == f"3 80 {64 << 20} 10\nFalse\n", done.stderr


def test_loading_without_a_choice_simulates_nothing() -> None:
    done = process("from mlgpu.cuda.loading import load\nfrom mlgpu.sim.cuda.install import *\n"
                   "load(); print(installed())")
    assert done.stdout == "None\n", done.stderr


@pytest.mark.skipif(installed() is None, reason="the devices are not simulated")
def test_loading_keeps_devices_that_are_installed(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("MLGPU_CUDA", "sim")
    variables.setenv("MLGPU_SIM_DEVICES", "7")
    before = installed()
    load()
    assert installed() is before


def test_other_choices_are_errors(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("MLGPU_CUDA", "on")
    with pytest.raises(DeviceError, match="MLGPU_CUDA='on': possible are 'sim'"):
        load()


@pytest.mark.skipif(bool(real_devices()), reason="there is a real GPU")
def test_options_of_the_environment(variables: pytest.MonkeyPatch) -> None:
    assert environment.options() == {}
    assert environment.described() == ""
    given: dict[str, Any] = {"devices": 1, "arch": "sm_120", "memory": "1 GiB", "seed": 3}
    for name in ("MLGPU_CUDA", *environment._NAMES.values()):
        variables.setenv(name, "")  # is put back afterwards
    environment.ask(given)
    assert environment.wanted()
    assert environment.options() == given
    text = "1 simulated device sm_120 of 1 GiB, seed 3 (MLGPU_CUDA=sim)"
    assert environment.described() == text
    assert f"\n  CUDA: {text}\n" in info.text(info.collect())
    variables.setenv("MLGPU_SIM_SEED", "-1")
    with pytest.raises(DeviceError, match="MLGPU_SIM_SEED='-1': a whole number"):
        environment.options()
    assert "MLGPU_SIM_SEED='-1'" in info.text(info.collect())


def test_described_defaults_are_those_of_install(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("MLGPU_CUDA", "sim")
    own = {name: p.default for name, p in inspect.signature(sim.install).parameters.items()}
    assert environment.described() == (f"{own['devices']} simulated devices {own['arch']} of "
                                       f"{own['memory']}, seed {own['seed']} (MLGPU_CUDA=sim)")


def test_reset_needs_devices() -> None:
    done = process("from mlgpu import sim\ntry:\n    sim.reset()\n"
                   "except sim.SimError as error:\n    print(error)")
    assert done.stdout == ("reset: there are no simulated devices; call mlgpu.sim.install "
                           "first\n"), done.stderr
