"""Findings and counters name lines of the source, for kernels that CuPy compiles."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim import Finding, SimError
from mlgpu.sim.cuda import lines
from mlgpu.sim.cuda.install import installed
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Module
from mlgpu.sim.report import Report

SHIFT = """\
extern "C" __global__ void shift(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i + 1];
}
"""

pytestmark = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


@pytest.fixture
def reports() -> Any:
    """The reports of a test's launches, as they come."""
    system = installed()
    assert system is not None
    found: list[Report] = []

    def watch(launch: Launch, module: Module) -> None:
        found.append(Report(launch, module))

    system.watchers.append(watch)
    yield found
    system.watchers.remove(watch)


def overrun(kernel: Any) -> Finding:
    """What is found where a kernel reads one element beyond its array."""
    with cp.cuda.using_allocator(None):
        x, y = cp.ones(100, cp.float32), cp.ones(100, cp.float32)
    kernel((1,), (128,), (x, y, np.int32(100)))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError) as error:
        cp.cuda.runtime.deviceSynchronize()
    finding: Finding = error.value.finding
    assert str(finding) in str(error.value)
    return finding


def test_raw_kernel() -> None:
    finding = overrun(cp.RawKernel(SHIFT, "shift"))
    assert (finding.kernel, finding.file, finding.line) == ("shift", "shift.cu", 4)
    assert finding.launched.startswith(f"{__file__}:")
    assert "at shift (shift.cu:4)" in str(finding)


def test_module_of_several_kernels() -> None:
    module = cp.RawModule(code=SHIFT + SHIFT.replace("shift", "other"))
    finding = overrun(module.get_function("other"))
    assert (finding.kernel, finding.file, finding.line) == ("other", "kernels.cu", 9)


def test_name_expressions() -> None:
    source = SHIFT.replace('extern "C"', "template <class T>").replace("float", "T")
    module = cp.RawModule(code=source, name_expressions=["shift<float>"])
    finding = overrun(module.get_function("shift<float>"))
    assert (finding.file, finding.line) == ("shift.cu", 4)


def test_functions_put_into_the_kernel_name_their_callers() -> None:
    source = ("__device__ __forceinline__ float next(const float* p) {\n    return p[1];\n}\n"
              + SHIFT.replace("x[i + 1]", "next(x + i)"))
    finding = overrun(cp.RawKernel(source, "shift"))
    assert (finding.file, finding.line, finding.calls) == ("shift.cu", 2, ("shift.cu:7",))


def test_ptx_keeps_what_it_says(tmp_path: Path) -> None:
    compiled, _ = cp.cuda.compiler.compile_using_nvrtc(SHIFT, ("-lineinfo",))
    bare, _ = cp.cuda.compiler.compile_using_nvrtc(SHIFT)
    for name, ptx, file in (("with", compiled, "shift.cu"), ("bare", bare, "<ptx>")):
        path = tmp_path / f"{name}.ptx"
        path.write_bytes(ptx)
        finding = overrun(cp.RawModule(path=str(path)).get_function("shift"))
        assert finding.file == file
        if file == "<ptx>":
            assert "ld.global" in ptx.decode().splitlines()[finding.line - 1]
        else:
            assert finding.line == 4
        installed().reset()  # type: ignore[union-attr]


def test_source_shows_counts_beside_the_text(reports: list[Report]) -> None:
    kernel = cp.RawKernel(SHIFT, "shift")
    x, y = cp.ones(129, cp.float32), cp.empty(128, cp.float32)
    kernel((1,), (128,), (x, y, np.int32(128)))
    cp.cuda.runtime.deviceSynchronize()
    assert reports[-1].kernel == "shift"
    row = next(line for line in reports[-1].source().splitlines() if "y[i] = x[i + 1];" in line)
    assert row.split("|")[0].strip() == "4"
    assert row.split("|")[3].strip() == "4.5 (4.0)"  # reads lie across sectors, writes do not


def test_generated_kernels(reports: list[Report]) -> None:
    x = cp.arange(100, dtype=cp.float32)
    cp.ElementwiseKernel("float32 x", "float32 y", "y = x * 3 + 1", "thrice")(x)
    cp.ReductionKernel("float32 x", "float32 y", "x * x", "a + b", "y = a", "0", "squares")(x)
    (x + 5).sum()
    cp.cuda.runtime.deviceSynchronize()
    names = [r.kernel for r in reports]
    for part, text in (("thrice", "y = x * 3 + 1"), ("squares", "REDUCE(_s, _a)"),
                       ("cupy_add", "in0 + in1")):
        report = next(r for r in reports if part in r.kernel)
        assert f"{report.kernel}.cu:" in report.source(), names
        counted = [line for line in report.source().splitlines() if text in line
                   and "|" in line and line.split("|")[1].strip() not in ("", "0")]
        assert counted, report.source()


def test_lines_are_in_what_is_cached(tmp_path: Path) -> None:
    """A second process, which compiles nothing, says the same; without a cache it does too."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(f"""
        from mlgpu.sim.cuda.install import install
        system = install()
        import cupy as cp, numpy as np
        cp.cuda.set_allocator(None)
        kernel = cp.RawModule(code={SHIFT!r}).get_function("shift")
        x = cp.ones(100, cp.float32)
        kernel((1,), (128,), (x, x, np.int32(100)))
        try:
            cp.cuda.runtime.deviceSynchronize()
        except cp.cuda.runtime.CUDARuntimeError as error:
            print(error.finding.file, error.finding.line)
        """))
    for cache in ({}, {}, {"CUPY_CACHE_IN_MEMORY": "1"}):
        environment = os.environ | {"CUPY_CACHE_DIR": str(tmp_path / "cache")} | cache
        done = subprocess.run([sys.executable, program], env=environment, text=True,
                              capture_output=True, timeout=120)
        assert done.stdout == "shift.cu 4\n", done.stderr
    kept = [p.read_bytes() for p in (tmp_path / "cache").iterdir()]
    assert any(b'.file\t1 "shift.cu"' in content for content in kept)
    assert not any(b".cubin.cu" in content for content in kept)


def test_names() -> None:
    assert lines.name_of("__global__ void __launch_bounds__(256, 2) k(int n) {}") == "k.cu"
    assert lines.name_of("__global__ __launch_bounds__(256)\nvoid k(int n) {}") == "k.cu"
    assert lines.name_of("// __global__ void old(int n)\n__global__ void k() {}") == "k.cu"
    assert lines.name_of("__global__ void a() {} __global__ void b() {}") == "kernels.cu"
    assert lines.name_of("__device__ int x;") == "kernels.cu"


def test_another_compiler_is_refused() -> None:
    class Compiler:
        @staticmethod
        def _compile_with_cache_cuda(source: str, options: Any) -> None: ...

    with pytest.raises(SimError, match=r"_compile_with_cache_cuda is not as in 14\.2"):
        lines.follow(Compiler)
