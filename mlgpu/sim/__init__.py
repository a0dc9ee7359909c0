"""The simulated GPU: run and check CUDA kernels without one.

It runs the PTX that NVRTC makes of a CUDA source, all threads of many blocks at once over NumPy;
checks every memory access and barrier, as compute-sanitizer does on a GPU; and counts what Nsight
Compute counts.  It is a testing tool for code meant for NVIDIA GPUs, written from the public PTX
specification; nothing of NVIDIA's is patched, disassembled or redistributed.

    m = sim.Machine(arch="sm_90")
    mod = m.module(cuda_source)
    x, y = m.array(numpy_array), m.empty(1000, np.float32)
    report = mod.kernel("scale").launch(4, 256, (x, y, np.float32(0.5), np.int32(1000)))
    y.numpy(), report.findings, report.metrics["global_load_sectors"], report.source()

The guide is docs/simulated-gpu.md; `mlgpu.sim.roofline` estimates the time on a described GPU.

`install` has CuPy itself run on simulated devices; its guide is docs/simulated-cuda.md.
"""

from typing import TYPE_CHECKING, Any

from mlgpu.sim.buffer import Buffer
from mlgpu.sim.errors import (
    CompileError,
    Finding,
    LaunchError,
    PtxError,
    SimError,
    UnsupportedError,
)
from mlgpu.sim.machine import Kernel, Machine, Module
from mlgpu.sim.report import Report

if TYPE_CHECKING:
    from mlgpu.sim.cuda.install import install, reset

__all__ = ["Buffer", "CompileError", "Finding", "Kernel", "LaunchError", "Machine", "Module",
           "PtxError", "Report", "SimError", "UnsupportedError", "install", "reset"]


def __getattr__(name: str) -> Any:
    """`install` and `reset`, which few programs need."""
    if name in ("install", "reset"):
        from mlgpu.sim.cuda import install as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
