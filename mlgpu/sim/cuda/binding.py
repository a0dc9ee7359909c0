"""CuPy's bindings to CUDA, redirected: their capsules and their Python functions.

Other modules of CuPy take the capsules of `cupy_backends.cuda.api.runtime` and `.driver` when they
are imported, so the change must come before; nothing of CuPy is changed on disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from mlgpu.sim.cuda import errors, signatures, trampolines
from mlgpu.sim.cuda.driver import Driver
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.lock import Lock
from mlgpu.sim.cuda.runtime import Runtime
from mlgpu.sim.cuda.signatures import Signature
from mlgpu.sim.cuda.system import System
from mlgpu.sim.cuda.trampolines import Trampoline
from mlgpu.sim.errors import SimError

RUNTIME, DRIVER = "cupy_backends.cuda.api.runtime", "cupy_backends.cuda.api.driver"
# What needs no device, and stays as it is.
HARMLESS = {"make_Extent", "make_PitchedPtr", "make_Pos", "getChannelDesc", "check_status",
            "getTextureObjectResourceDesc", "getTextureObjectTextureDesc"}


# What destructors call, which may come in the midst of another call: they wait for its end.
LATE = {"free", "freeHost", "freeAsync", "hostUnregister", "streamDestroy", "eventDestroy",
        "graphDestroy", "graphExecDestroy", "memPoolDestroy", "moduleUnload"}


def redirect(system: System, version: int) -> tuple[Runtime, Driver]:
    """Have CuPy's bindings call a simulated system.

    SimError where the installed CuPy declares its functions otherwise than the table here.
    """
    runtime_module, driver_module = import_module(RUNTIME), import_module(DRIVER)
    for module, table in ((runtime_module, signatures.RUNTIME), (driver_module, signatures.DRIVER)):
        _check(module, table)
    runtime = Runtime(system, version or runtime_module.runtimeGetVersion(), runtime_module)
    driver = Driver(system, runtime.version)
    driver_module.CUDADriverError.__init__ = errors.name_status
    plan = [
        (runtime_module, signatures.RUNTIME, runtime,
         lambda e: errors.runtime_error(runtime_module.CUDARuntimeError, e)),
        (driver_module, signatures.DRIVER, driver,
         lambda e: errors.driver_error(driver_module.CUDADriverError, e))]
    made: list[tuple[ModuleType, str, Trampoline]] = []
    for module, table, api, failed in plan:
        for name, signature in table.items():
            function = _guarded(getattr(api, name, None) or _refusal(name), system.lock, failed)
            setattr(module, name, function)
            called = _with_optional(function) if "opt_args" in signature.capsule else function
            short = module.__name__.rpartition(".")[2]
            made.append((module, name, Trampoline(f"{short}_{name}", signature.capsule,
                                                  signature.error, called)))
        for name, value in vars(module).copy().items():
            if name in table or name in HARMLESS or type(value).__name__ not in (
                    "cython_function_or_method", "builtin_function_or_method"):
                continue
            own = getattr(api, name, None)
            if own is not None or not name.startswith("_"):
                setattr(module, name, _guarded(own or _refusal(name), system.lock, failed))
    addresses = trampolines.compile([t for _, _, t in made])
    for module, name, t in made:
        module.__pyx_capi__[name] = trampolines.capsule(addresses[t.name], t.signature.encode())
    return runtime, driver


def _check(module: ModuleType, table: Mapping[str, Signature]) -> None:
    """SimError where a module's functions are not those of the table."""
    found = {name: trampolines.signature_of(capsule)
             for name, capsule in module.__pyx_capi__.items()}
    wrong = [f"{name} is declared {found[name]!r}, not {s.capsule!r}" for name, s in table.items()
             if found.get(name, s.capsule) != s.capsule]
    wrong += [f"{name} is missing" for name in table if name not in found]
    wrong += [f"{name} is not known" for name, text in found.items()
              if "(" in text and name not in table and name not in HARMLESS]
    if wrong:
        raise SimError(f"CuPy on the simulated GPU: this version of CuPy is not known: in "
                       f"{module.__name__}, {'; '.join(wrong[:3])}"
                       f"{' and more' if len(wrong) > 3 else ''}. Known is 14.2, which mlgpu "
                       "needs as well: install 'cupy-cuda12x==14.2.*' or 'cupy-cuda13x==14.2.*'")


def _guarded(function: Callable[..., Any], lock: Lock,
             failed: Callable[[CudaError], Exception]) -> Callable[..., Any]:
    late = function.__name__ in LATE

    def do(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True  # tells pytest that the error is the caller's
        try:
            return function(*args, **kwargs)
        except CudaError as error:
            raise failed(error) from error.finding

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with lock:
            if late and lock.depth > 1:
                lock.later.append(partial(do, *args, **kwargs))
                return None
            return do(*args, **kwargs)
    call.__name__ = call.__qualname__ = function.__name__
    call.__doc__ = function.__doc__
    return call


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise CudaError(errors.NOT_SUPPORTED, f"{name} is not simulated: textures, surfaces, CUDA "
                        "arrays, linking and handles between processes need a real GPU")
    refuse.__name__ = name
    return refuse


def _with_optional(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a caller in C, whose last argument is a struct of the optional one, or null."""
    def call(*args: Any) -> Any:
        *given, address = args
        return function(*given, *_optional(address))
    return call


class _Optional(ctypes.Structure):
    """All functions here have one optional argument at most, an int."""

    _fields_ = [("given", ctypes.c_int), ("value", ctypes.c_int)]


def _optional(address: int) -> list[int]:
    if not address:
        return []
    struct = _Optional.from_address(address)
    return [struct.value] if struct.given else []
