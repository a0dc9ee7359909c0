"""The libraries that are compared, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec


@dataclass(frozen=True)
class Peer:
    """One column: a library and how it is run."""

    name: str
    title: str
    modules: tuple[str, ...]  # what must be installed to run on the CPU
    install: str
    kit: str  # the module of this package that runs workloads in it
    packages: tuple[str, ...]  # distributions whose versions the report names
    environment: Mapping[str, str] = field(default_factory=dict)
    default: bool = False  # measured without being asked for
    cuda: bool = False
    # A program that must be there, after the variable that names another one.
    compiler: tuple[str, str] | None = None
    part: bool = False  # of the work: there are no results to check
    by_affinity: bool = False  # takes its threads from the cores that the process may use

    def installed(self, device: str = "cpu") -> bool:
        """Whether this interpreter has it; nothing is imported."""
        if device != "cpu" and self.name == "mlgpu":
            return True
        if self.compiler is not None and shutil.which(os.environ.get(*self.compiler)) is None:
            return False
        return all(find_spec(module) is not None for module in self.modules)


PEERS = {peer.name: peer for peer in (
    Peer("torch", "PyTorch, eager", ("torch",), "pip install torch", "torch_kit", ("torch",),
         default=True, cuda=True),
    Peer("mlgpu", "mlgpu, with Numba on the CPU", ("numba",), "pip install 'mlgpu[fast]'",
         "torch_kit", ("mlgpu", "numba"), default=True, cuda=True),
    Peer("mlgpu-numpy", "mlgpu, NumPy alone", (), "pip install mlgpu", "torch_kit",
         ("mlgpu", "numpy"), {"MLGPU_FAST": "0"}, default=True),
    Peer("bare", "the calls into NumPy that it is made of, alone", (), "pip install mlgpu",
         "bare_kit", ("numpy",), {"MLGPU_FAST": "0"}, part=True),
    Peer("traffic", "copies of as many bytes; what changes in place needs less", (),
         "pip install mlgpu", "bare_kit", ("numpy",), {"MLGPU_FAST": "0"}, part=True),
    Peer("torch-compile", "PyTorch, torch.compile", ("torch",),
         "pip install torch, and the compiler g++", "torch_kit", ("torch",), cuda=True,
         compiler=("CXX", "g++")),
    Peer("jax", "JAX, jax.jit", ("jax",), "pip install jax", "jax_kit", ("jax",),
         by_affinity=True),
    Peer("tinygrad", "tinygrad, TinyJit", ("tinygrad",),
         "pip install tinygrad, and the compiler clang", "tinygrad_kit", ("tinygrad",),
         compiler=("CC", "clang")),
    Peer("onnxruntime", "ONNX Runtime", ("onnxruntime", "onnx"), "pip install onnxruntime onnx",
         "onnx_kit", ("onnxruntime", "onnx")),
)}
BASELINE = "torch"  # what ratios are over

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                     "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "CPU_COUNT")


def environment(peer: Peer, threads: int) -> dict[str, str]:
    """The variables of the peer's process: every library is given the same threads."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    given = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items()
            if name != "PYTHONDONTWRITEBYTECODE"}  # installed libraries have theirs compiled
    return {**kept, **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
            "PYTHONPATH": os.pathsep.join([here, *([given] if given else [])]),
            **peer.environment}


def command(module: str) -> list[str]:
    """The command that runs `main` of a module of this package, under a name without mlgpu.

    `-m mlgpu.bench.worker` would import mlgpu, and NumPy's BLAS with it, into every peer's process.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    code = (
        "import importlib, importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('mlgpu_bench', {os.path.join(folder, '__init__.py')!r},"
        f" submodule_search_locations=[{folder!r}])\n"
        "sys.modules['mlgpu_bench'] = package = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(package)\n"
        f"importlib.import_module('mlgpu_bench.{module}').main()\n")
    return [sys.executable, "-c", code]
