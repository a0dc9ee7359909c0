"""Putting the simulated devices under CuPy."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mlgpu.cuda.cache import folder
from mlgpu.extras import require
from mlgpu.memory import parse_bytes
from mlgpu.sim import arch as archs
from mlgpu.sim.cuda import allocators, libraries, lines
from mlgpu.sim.cuda.binding import RUNTIME, redirect
from mlgpu.sim.cuda.system import System
from mlgpu.sim.errors import SimError

_installed: System | None = None


def install(devices: int = 2, arch: str = "sm_90", memory: int | str = "4 GiB", seed: int = 0,
            allocations: str = "pool", **options: Any) -> System:
    """Have CuPy run on simulated devices, in this process, from now on.

    - `devices`: how many there are.
    - `arch`: what they are, such as "sm_90".
    - `memory`: what each has, in bytes or as text.
    - `seed`: of the order in which streams run; 0 is the order that hurts most.
    - `allocations`: "pool" keeps CuPy's memory pool, in which an access to bytes that belong to no
      array is found; "separate" gives each array memory far from any other's, so that an overrun
      by any distance is found.

    To be called before `import cupy`.  SimError where CuPy is imported already, is not installed,
    or is a version that is not known, and where there is a real GPU; MissingExtraError without
    llvmlite.
    """
    global _installed
    if _installed is not None:
        raise SimError("install: the simulated devices are installed already")
    if "cupy" in sys.modules or RUNTIME in sys.modules:
        raise SimError("install: CuPy is imported already; call mlgpu.sim.install before any "
                       "import of cupy")
    if find_spec("cupy") is None:
        raise SimError("install: CuPy is not installed; pip install 'cupy-cuda12x==14.2.*'")
    require("llvmlite.binding", "sim", "CuPy on the simulated GPU")
    if real_devices():
        raise SimError("install: this machine has an NVIDIA GPU; run the program on it, or hide it "
                       "with CUDA_VISIBLE_DEVICES=-1")
    archs.find(arch)
    allocators.check(allocations)
    if isinstance(devices, bool) or not isinstance(devices, int) or not 1 <= devices <= 16:
        raise SimError(f"install: devices={devices!r}; 1 to 16 are possible")
    os.environ["CUPY_COMPILE_WITH_PTX"] = "1"
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are machine code
    cache = folder()
    if cache is not None:  # PTX is no business of a real GPU's cache
        os.environ.setdefault("CUPY_CACHE_DIR", str(cache / "cupy"))
    system = System(devices, arch, parse_bytes(memory), seed, **options)
    runtime, _ = redirect(system, 0)
    libraries.prepare(system, runtime.version)
    import_module("cupy")
    libraries.complete(system)
    lines.follow(import_module("cupy.cuda.compiler"))
    allocators.follow(system, allocations)
    _installed = system
    atexit.register(system.close)
    return system


def reset() -> None:
    """Start afresh: errors that stick and findings are forgotten, work that waits is dropped.

    What the program has in memory stays.
    """
    if _installed is None:
        raise SimError("reset: there are no simulated devices; call mlgpu.sim.install first")
    _installed.reset()


def installed() -> System | None:
    """The simulated system that CuPy runs on in this process, if it does."""
    return _installed


def real_devices() -> int:
    """How many devices a real driver offers."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value
