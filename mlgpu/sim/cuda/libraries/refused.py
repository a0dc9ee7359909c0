"""What would reach code that is compiled for a real GPU, and says so instead."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mlgpu.sim.errors import SimError

LIBS = "cupy_backends.cuda.libs"
# Modules that cannot be imported, and what to do without them.
MODULES = {
    f"{LIBS}.cutensor": "cuTENSOR is not simulated; leave it out of CUPY_ACCELERATORS, and use "
                        "cupy.einsum and cupy.tensordot, which run through cuBLAS",
    f"{LIBS}.nccl": "NCCL is not simulated; copy between the devices with cupy (a peer copy), or "
                    "test collectives on real GPUs",
    f"{LIBS}.cusparselt": "cuSPARSELt is not simulated; use dense matrices",
    "cupy.cuda.jitify": "Jitify is not simulated; leave jitify=True out",
    "cupyx._cutensor": "cuTENSOR is not simulated; use cupy.einsum and cupy.tensordot",
}
# Functions of CUB that launch its machine code.
CUB = ("device_reduce", "device_segmented_reduce", "device_scan", "device_histogram",
       "cub_reduction", "cub_scan", "cub_histogram")


class Finder(MetaPathFinder):
    """Says why a module cannot be imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """No module, but an ImportError for those that are refused."""
        if fullname in MODULES:
            raise ImportError(f"{fullname}: {MODULES[fullname]}", name=fullname)
        return None


def refuse_modules() -> None:
    """To be called before CuPy is imported."""
    sys.meta_path.insert(0, Finder())


def hide_libraries(package: Any) -> None:
    """Have the package of the bindings not look for NVIDIA's libraries that are refused."""
    find = package.__getattr__

    def look_up(name: str) -> Any:
        full = f"{LIBS}.{name}"
        if full in MODULES:
            raise ImportError(f"{full}: {MODULES[full]}", name=full)
        return find(name)

    package.__getattr__ = look_up


def refuse_cub(module: Any) -> None:
    """Replace the functions of `cupy.cuda.cub`."""
    for name in CUB:
        setattr(module, name, refusal(
            f"cupy.cuda.cub.{name}", "CUB's reductions and scans are machine code for a real GPU; "
            "leave 'cub' out of CuPy's routine accelerators, as mlgpu.sim.install does, and CuPy's "
            "own kernels run"))


def refusal(name: str, text: str) -> Callable[..., Any]:
    """A function that says what to use instead."""
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise SimError(f"{name} is not simulated: {text}")
    refuse.__name__ = refuse.__qualname__ = name.rpartition(".")[2]
    return refuse
