"""What ptxas tells of a kernel, from its own text and from texts of several versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc, ptxas
from mlgpu.sim.errors import CompileError

# An array indexed by a value lies in local memory: 20 floats, 80 bytes.
SOURCE = """
__device__ __noinline__ float pick(float x) {
    float a[20];
    for (int i = 0; i < 20; i++) a[i] = x * i;
    return a[(int)x % 20];
}
extern "C" __global__ void __launch_bounds__(256) small(float* x) {
    __shared__ float s[300];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = pick(s[255 - threadIdx.x]);
}
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* x) {
    float r[64];
    for (int i = 0; i < 64; i++) r[i] = x[i * 1024 + threadIdx.x];
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 64; i++) r[i] = r[i] * r[(i + 7) & 63] + r[(i * 5 + j) & 63];
    for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = r[i];
}
"""


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """An empty cache, and how often ptxas itself ran.  Skips where there is none."""
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(tmp_path / "cache"))
    if ptxas.find() is None:
        pytest.skip("ptxas is not installed: pip install 'mlgpu[sim]' (Linux)")
    runs = []
    real = ptxas._run
    monkeypatch.setattr(ptxas, "_run", lambda *a: runs.append(a) or real(*a))
    return runs


def compiled(arch: str = "sm_80") -> str:
    try:
        return nvrtc.compile(SOURCE, arch).ptx
    except MissingExtraError as missing:
        pytest.skip(str(missing))


def test_registers_spills_and_shared_memory_of_each_kernel(cached):
    found = ptxas.resources(compiled(), "sm_80")
    assert set(found) == {"small", "spills"}
    small, spills = found["small"], found["spills"]
    assert (small.shared, small.barriers, small.stack) == (1200, 1, 80)
    assert (small.spill_stores, small.spill_loads) == (0, 0)
    assert 8 <= small.registers <= 64
    # Two blocks of 1,024 threads share 65,536 registers: 32 for each thread, too few for 64 values.
    assert spills.registers == 32
    assert spills.spill_stores > 0
    assert spills.spill_loads > 0
    assert spills.stack >= 4 * 32
    assert (spills.shared, spills.barriers) == (0, 0)


def test_the_second_time_it_is_not_run(cached):
    ptx = compiled()
    first = ptxas.resources(ptx, "sm_80")
    assert ptxas.resources(ptx, "sm_80") == first
    assert len(cached) == 1
    unoptimised = ptxas.resources(ptx, "sm_80", options=("--opt-level=0",))
    assert unoptimised["spills"] != first["spills"]
    assert len(cached) == 2


def test_what_it_rejects_is_an_error_with_its_text(cached):
    ptx = compiled().replace("add.s", "oops.s", 1).replace("mul.", "oops.", 1)
    with pytest.raises(CompileError, match="oops"):
        ptxas.resources(ptx, "sm_80")
    with pytest.raises(CompileError, match="SM version"):
        ptxas.resources(compiled("sm_80"), "sm_75")


def test_a_text_of_a_newer_toolkit_is_tried_with_every_ptxas(cached, monkeypatch):
    answers = {Path("/old"): "failed\nptxas fatal : Unsupported .version 99.0; current is '8.0'",
               Path("/new"): NEW}
    monkeypatch.setattr(ptxas, "_run", lambda path, command, ptx: answers[path])
    monkeypatch.setattr(ptxas, "_identity", str)
    monkeypatch.setattr(toolkit, "ptxas", lambda: [Path("/old"), Path("/new")])
    assert ptxas.resources("text", "sm_90")["k"].registers == 27
    monkeypatch.setattr(toolkit, "ptxas", lambda: [Path("/old")])
    with pytest.raises(CompileError, match=r"older than the NVRTC.*\n.*99\.0"):
        ptxas.resources("text", "sm_90")


def test_without_ptxas_the_install_is_named(monkeypatch):
    monkeypatch.setattr(toolkit, "ptxas", list)
    assert ptxas.find() is None
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[sim\]'"):
        ptxas.resources("text", "sm_90")


# As CUDA 12.9 and later print for sm_90: constants are not told, stacks are.
NEW = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spill' for 'sm_90'
ptxas info    : Function properties for spill
    624 bytes stack frame, 700 bytes spill stores, 776 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 624 bytes cumulative stack size
ptxas info    : Compile time = 28.228 ms
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 27 registers, used 1 barriers, 80 bytes cumulative stack size, 1200 bytes smem
ptxas info    : Compile time = 3.236 ms
ptxas info    : Function properties for _Z1ff
    80 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
"""
# As older ones print for sm_75.
OLD = """ptxas info    : 64 bytes gmem, 64 bytes cmem[3]
ptxas info    : Compiling entry function '_Z1kPf' for 'sm_75'
ptxas info    : Function properties for _Z1kPf
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 29 registers, 1200 bytes smem, 364 bytes cmem[0], 8 bytes cmem[2]
"""


def test_texts_of_several_versions_are_read():
    new = ptxas.parse(NEW)
    assert new["spill"] == ptxas.Resources("spill", 32, 700, 776, 624, 0, {}, 0)
    assert new["k"] == ptxas.Resources("k", 27, 0, 0, 80, 1200, {}, 1)
    assert set(new) == {"spill", "k"}
    assert ptxas.parse(OLD) == {"_Z1kPf": ptxas.Resources(
        "_Z1kPf", 29, 4, 8, 16, 1200, {"0": 364, "2": 8}, 0)}
    assert ptxas.parse("") == {}
