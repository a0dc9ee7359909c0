"""What would reach machine code for a real GPU says so, and what to use instead."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim import SimError
from mlgpu.sim.cuda.install import installed

pytestmark = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


@contextmanager
def accelerators(kind: str, *names: str) -> Iterator[None]:
    """Let CuPy use accelerators for a time."""
    before = getattr(cp._core, f"get_{kind}_accelerators")()
    getattr(cp._core, f"set_{kind}_accelerators")(names)
    try:
        yield
    finally:
        getattr(cp._core, f"set_{kind}_accelerators")(before)


@pytest.mark.parametrize(("call", "name"), [
    (lambda x: x.sum(), "cub_reduction"), (lambda x: x.prod(), "cub_reduction"),
    (lambda x: x.max(axis=1), "cub_reduction"), (lambda x: x.argmin(), "cub_reduction"),
    (lambda x: x.cumsum(), "cub_scan"), (lambda x: cp.histogram(x, 4), "cub_")])
def test_cub(call: Callable[[Any], Any], name: str) -> None:
    x = cp.arange(12, dtype="f").reshape(3, 4)
    with accelerators("routine", "cub"), pytest.raises(
            SimError, match=rf"cupy\.cuda\.cub\.{name}.* is not simulated: .*own kernels run"):
        call(x)
    call(x)


def test_cub_of_a_block_is_compiled_and_runs() -> None:
    x = cp.arange(3000, dtype="f").reshape(3, 1000)
    with accelerators("reduction", "cub"):
        np.testing.assert_array_equal(x.sum(axis=1).get(), x.get().sum(axis=1))


@pytest.mark.parametrize("name", ["device_reduce", "device_segmented_reduce", "device_scan",
                                  "device_histogram", "cub_histogram"])
def test_functions_of_cub(name: str) -> None:
    with pytest.raises(SimError, match=f"{name} is not simulated"):
        getattr(cp.cuda.cub, name)(cp.ones(3))


@pytest.mark.parametrize(("name", "instead"), [
    ("cupy_backends.cuda.libs.cutensor", "cupy.einsum and cupy.tensordot"),
    ("cupy_backends.cuda.libs.nccl", "a peer copy"),
    ("cupy_backends.cuda.libs.cusparselt", "dense matrices"),
    ("cupy.cuda.jitify", "leave jitify=True out"), ("cupyx._cutensor", "cupy.einsum")])
def test_modules(name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=f"{name}: .* not simulated; .*{instead}"):
        import_module(name)
    package, _, short = name.rpartition(".")
    if package != "cupyx":  # the others import what they are asked for
        with pytest.raises(ImportError, match="not simulated"):
            getattr(import_module(package), short)


def test_nccl_is_not_available() -> None:
    with pytest.warns(UserWarning, match="NCCL is not simulated"):
        from cupy.cuda import nccl
    assert not nccl.available


def test_jitify_of_a_kernel() -> None:
    with pytest.warns(DeprecationWarning, match="jitify=True is deprecated"):
        kernel = cp.RawKernel('extern "C" __global__ void f() {}', "f", jitify=True)
    with pytest.raises(ImportError, match="Jitify is not simulated"):
        kernel((1,), (1,), ())


def test_sparse_equations() -> None:
    from cupyx import cusparse
    from cupyx.scipy import sparse

    matrix, right = sparse.csr_matrix(cp.eye(3)), cp.ones((3, 1), order="F")
    with pytest.raises(SimError, match=r"cuSPARSE's spSM_\w+ is not simulated: compute with dense"):
        cusparse.spsm(matrix, right)
    with pytest.raises(NotImplementedError, match="solve the dense one"):
        import_module("cupyx.cusolver").csrlsvqr(matrix, right[:, 0])


def test_textures() -> None:
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="not simulated: textures"):
        cp.cuda.texture.CUDAarray(
            cp.cuda.texture.ChannelFormatDescriptor(32, 0, 0, 0,
                                                    cp.cuda.runtime.cudaChannelFormatKindFloat),
            16)


# Symbols of NVIDIA's runtime that a module has in it.
OWN_RUNTIME = (b"cudaGetExportTable", b"cudart")
# What keeps each such module from being reached.
GUARDED = {"cupy_backends/cuda/api/runtime": "every function is redirected (binding.py)",
           "cupy/cuda/thrust": "its sorts are replaced", "cupy/cuda/cub": "refused",
           "cupy/cuda/jitify": "refused", "cupy/random/_generator_api": "Generator is replaced"}


def test_all_modules_with_a_runtime_of_their_own_are_known() -> None:
    root = Path(cp.__file__).parent.parent
    found = set()
    for package in ("cupy", "cupyx", "cupy_backends"):
        for path in (root / package).rglob("*.so"):
            if path.read_bytes().count(OWN_RUNTIME[1]) > 100:
                found.add(str(path.relative_to(root)).partition(".")[0])
    assert found == set(GUARDED)


def test_nothing_but_what_is_harmless_is_left_in_them() -> None:
    kinds = ("builtin_function_or_method", "cython_function_or_method")
    left = {}
    for name in ("cupy.cuda.thrust", "cupy.cuda.cub", "cupy.random._generator_api"):
        module = import_module(name)
        left[name] = {n for n, v in vars(module).items() if type(v).__name__ in kinds
                      and not n.startswith("__")}
    assert left == {
        "cupy.cuda.thrust": {"get_build_version"},
        "cupy.cuda.cub": {"get_build_version", "_get_cuda_build_version", "_preprocess_array",
                          "_cub_device_segmented_reduce_axis_compatible"},
        "cupy.random._generator_api": set()}
    own = cp.random.Generator.__mro__[1]
    drawing = {"random", "uniform", "integers", "beta", "geometric", "hypergeometric", "logseries",
               "standard_exponential", "poisson", "standard_normal", "standard_gamma", "gamma",
               "binomial"}
    made_of_others = {"chisquare", "dirichlet", "exponential", "f", "power"}
    assert {n for n in vars(own) if not n.startswith("_")} == drawing | made_of_others
    assert {n for n in vars(cp.random.Generator) if not n.startswith("_")} == drawing


def test_it_is_the_same_whatever_the_environment_says() -> None:
    program = textwrap.dedent("""
        from mlgpu.sim.cuda.install import install
        install(devices=1)
        import cupy
        assert int(cupy.arange(10).sum()) == 45
        assert cupy._core.get_routine_accelerators() == []
        print(cupy.linalg.norm(cupy.ones((3, 3))), cupy.cuda.cublas.CUBLAS_OP_T)
    """)
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, env={"CUPY_ACCELERATORS": "cub,cutensor", "PYTHONPATH": root,
                                           "HOME": "/tmp", "PATH": ""})
    assert done.stdout == "3.0 1\n"
