"""NVIDIA's libraries, as far as CuPy calls them, on simulated devices.

Their kernels are machine code, and several parts of CuPy hold such code themselves, each with a
CUDA runtime of its own that knows nothing of the simulated devices.  None of that is reached:

| of CuPy | simulated by | what it serves |
|---|---|---|
| libs.cublas | cublas.py, NumPy | matmul, dot, tensordot, einsum, inner, cupy.cublas, norms |
| libs.cusolver, cupyx._cusolver | cusolver.py, cusolver_arrays.py, NumPy | cupy.linalg, lu |
| cupy.cuda.cufft | cufft.py, NumPy | cupy.fft, cupyx.scipy.fft, Plan1d, PlanNd |
| cupy.cuda.thrust | thrust.py, NumPy | sort, argsort, lexsort, partition, unique, median |
| libs.curand | curand.py, NumPy's Philox | cupy.random.rand, RandomState and the like |
| libs.cusparse | cusparse.py, NumPy | cupyx.scipy.sparse: conversions, sums, products |
| cupy.random._generator_api | generator.py, NumPy's Philox | cupy.random.default_rng, Generator |

All these run on CuPy's current stream when the stream comes to them, find operands that are out of
bounds or were never written as kernels' accesses are, and give results as exact as NumPy's: digits
differ from a GPU's, whose sums have another order, and random numbers are NumPy's.

| of CuPy | refused, because |
|---|---|
| cupy.cuda.cub | its reductions and scans are machine code; CuPy's own kernels run instead |
| libs.cusparse: triangular solves, ilu | not simulated |
| libs.cutensor, libs.nccl, libs.cusparselt | not simulated; importing them says so |
| cupy.cuda.jitify | not simulated |
| callbacks and several GPUs of cuFFT, float16 transforms | not simulated |
| textures, CUDA arrays | not simulated (binding.py) |

What CuPy compiles when it runs (elementwise and reduction kernels, cupyx.jit, RawKernel) needs none
of this.
"""

from __future__ import annotations

import sys
from importlib import import_module

from mlgpu.sim.cuda.libraries import (
    cublas,
    cufft,
    curand,
    cusolver,
    cusolver_arrays,
    cusparse,
    generator,
    refused,
    thrust,
)
from mlgpu.sim.cuda.libraries.modules import Library, attach, functions, provide
from mlgpu.sim.cuda.libraries.refused import LIBS
from mlgpu.sim.cuda.system import System


def prepare(system: System, version: int) -> None:
    """Put the simulated libraries in place, before CuPy is imported."""
    refused.refuse_modules()
    apis: list[tuple[str, Library, dict[str, int]]] = [
        ("cublas", cublas.Cublas(system, version * 10), cublas.CONSTANTS),
        ("cusolver", cusolver.Cusolver(system, version), cusolver.CONSTANTS),
        ("curand", curand.Curand(system), curand.CONSTANTS),
        ("cusparse", cusparse.Cusparse(system, version), cusparse.CONSTANTS)]
    for name, api, constants in apis:
        contents = {**constants, **functions(api), api.error.__name__: api.error}
        provide(f"{LIBS}.{name}", contents, type(api).__doc__ or "")
    sys.modules[f"{LIBS}.cusparse"].__getattr__ = cusparse.look_up  # type: ignore[method-assign]
    provide("cupyx._cusolver", cusolver_arrays.CusolverArrays(system).contents(),
            cusolver_arrays.__doc__ or "")
    provide("cupy.cuda.cufft", cufft.contents(system, version), cufft.__doc__ or "")
    for name in ("cublas", "cusolver", "curand", "cusparse"):
        attach(f"{LIBS}.{name}")
    refused.hide_libraries(import_module(LIBS))


def complete(system: System) -> None:
    """Replace what CuPy's own modules hold, after CuPy is imported."""
    attach("cupy.cuda.cufft")
    sorts = import_module("cupy.cuda.thrust")
    for name, function in thrust.functions(system).items():
        setattr(sorts, name, function)
    refused.refuse_cub(import_module("cupy.cuda.cub"))
    generator.replace(system, import_module("cupy.random._generator_api"))
