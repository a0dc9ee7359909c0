"""CUDA source to PTX: what the compiler is given, what comes back, and when it is asked again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mlgpu.cuda import cache, toolkit
from mlgpu.cuda import nvrtc as compiler_itself
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc
from mlgpu.sim.errors import CompileError, SimError

SOURCE = """extern "C" __global__ void scale(float* x) {
    x[threadIdx.x] *= 2;
}
"""


@pytest.fixture(autouse=True)
def compiler(tmp_path, monkeypatch):
    """An empty cache, and how often the compiler itself ran."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(tmp_path / "cache"))
    runs = []
    real = compiler_itself.compile
    monkeypatch.setattr(compiler_itself, "compile", lambda *a: runs.append(a) or real(*a))
    return runs


def test_ptx_has_the_entry_and_its_source_lines():
    compiled = nvrtc.compile(SOURCE, "sm_80")
    assert ".visible .entry scale(" in compiled.ptx
    assert re.search(r"^\.target sm_80$", compiled.ptx, re.MULTILINE)
    assert re.search(r'\.file\s+1 "kernel.cu"', compiled.ptx)
    assert re.search(r"\.loc\s+1 2 ", compiled.ptx)
    assert "\0" not in compiled.ptx
    assert compiled.nvrtc >= (12, 0)
    assert compiled.log == ""


@pytest.mark.parametrize(("arch", "target"), [
    ("sm_75", "sm_75"), ("compute_90", "sm_90"), ("sm_90a", "sm_90a"), ("sm_120", "sm_120")])
def test_every_target_compiles(arch, target):
    assert f".target {target}\n" in nvrtc.compile(SOURCE, arch).ptx


def test_templates_are_instantiated_by_name():
    source = "template <class T, int N> __global__ void add(T* x) { x[threadIdx.x] += N; }"
    compiled = nvrtc.compile(source, names=("add<float, 3>", "add<int, 4>"))
    assert set(compiled.lowered) == {"add<float, 3>", "add<int, 4>"}
    for symbol in compiled.lowered.values():
        assert f".entry {symbol}(" in compiled.ptx
    assert nvrtc.compile(source, names=("add<float, 3>",)).lowered == {
        "add<float, 3>": compiled.lowered["add<float, 3>"]}


def test_options_reach_the_compiler():
    source = 'extern "C" __global__ void f(float* x) { *x = __sinf(*x) / VALUE; }'
    exact = nvrtc.compile(source, options=("-DVALUE=3.0f",)).ptx
    fast = nvrtc.compile(source, options=("-DVALUE=3.0f", "--use_fast_math")).ptx
    assert "div.rn.f32" in exact
    assert "div.approx" in fast


@pytest.mark.parametrize(("source", "options", "told"), [
    ("__global__ void f() {\n  int x = y;\n}", (), r'kernel.cu\(2\): error: identifier "y"'),
    (SOURCE, ("--no-such-option",), "no-such-option"),
    (SOURCE, ("-arch=sm_80",), "device's arch"),
    (SOURCE, ("--gpu-architecture", "sm_80"), "device's arch"),
    ("\0" + SOURCE, (), "NUL"),
    ("#include <stdint.h>", (), "<cuda/std/cstdint>"),
    ("#include <type_traits>", (), "<cuda/std/type_traits>"),
    ("#include <missing.cuh>", (), "headers were looked for in"),
    ("#include <crt/missing.h>", (), r"pip install 'mlgpu\[sim\]'"),
])
def test_what_does_not_compile_is_told_with_the_log(source, options, told):
    with pytest.raises(CompileError, match=told):
        nvrtc.compile(source, options=options)


def test_a_name_that_is_no_template_is_an_error():
    with pytest.raises(CompileError, match="nothing"):
        nvrtc.compile(SOURCE, names=("nothing<int>",))


@pytest.mark.parametrize("arch", ["90", "sm_", "sm90", "gfx90", "sm_90x"])
def test_unknown_targets_are_refused(arch):
    with pytest.raises(SimError, match="no target"):
        nvrtc.compile(SOURCE, arch)
    with pytest.raises(CompileError, match="compute_11"):
        nvrtc.compile(SOURCE, "sm_11")


@pytest.mark.parametrize("header", ["cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda_pipeline.h",
                                    "cooperative_groups.h", "cooperative_groups/reduce.h",
                                    "mma.h", "nv/target", "cuda/std/cstdint"])
def test_the_headers_fit_the_compiler(header):
    folders = toolkit.nvrtc().headers
    part = {"mma.h": "crt/mma.h", "cooperative_groups.h": "nv/target",
            "cooperative_groups/reduce.h": "nv/target"}.get(header, header)
    if not any((folder / part).is_file() for folder in folders):
        pytest.skip(f"{part} is not installed: pip install 'mlgpu[sim]'")
    nvrtc.compile(f"#include <{header}>\n{SOURCE}", "sm_90")


INDEXED = """
struct Table { double at[64]; };
__device__ __forceinline__ double pick(const Table& table, int n) {
  const double& held = table.at[n];
  return held > 1 ? held : -held;
}
extern "C" __global__ void pick_one(double* out, Table table, int n) { *out = pick(table, n); }
"""


def test_debugging_one_source_changes_no_other(compiler):
    before = nvrtc.compile(INDEXED, "sm_90")
    debugged = nvrtc.compile(INDEXED, "sm_90", options=("-G",))
    assert ".debug_info" in debugged.ptx
    assert ".debug_info" not in before.ptx
    with pytest.raises(CompileError, match="nonsense"):
        nvrtc.compile("nonsense", "sm_90", options=("-G",))
    after = nvrtc.compile(INDEXED, "sm_90", filename="after.cu")
    assert after.ptx.replace("after.cu", "kernel.cu") == before.ptx


def test_a_second_compilation_comes_from_the_cache(compiler):
    first = nvrtc.compile(SOURCE, names=("scale",))
    assert nvrtc.compile(SOURCE, names=("scale",)) == first
    assert len(compiler) == 1
    different = [{"arch": "sm_80"}, {"options": ("-DX",)}, {"names": ()},
                 {"filename": "other.cu"}, {"source": SOURCE + "// changed"}]
    for change in different:
        nvrtc.compile(**{"source": SOURCE, "names": ("scale",), **change})
    assert len(compiler) == 1 + len(different)


def test_a_changed_header_is_compiled_again(compiler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "outer.cuh").write_text('#include "inner.cuh"\n')
    (tmp_path / "inc" / "inner.cuh").write_text("#define VALUE 111\n")
    source = ('#include <outer.cuh>\nextern "C" __global__ void f(int* x) { *x = VALUE; }')
    for spelled in (("-Iinc",), ("-I", "inc"), ("-I inc",), ("--include-path=inc",)):
        assert "111" in nvrtc.compile(source, options=spelled).ptx
    assert len(compiler) == 1
    (tmp_path / "inc" / "inner.cuh").write_text("#define VALUE 222\n")
    assert "222" in nvrtc.compile(source, options=("-Iinc",)).ptx
    assert len(compiler) == 2


def test_headers_beside_the_source_and_forced_ones_are_seen(compiler, tmp_path):
    (tmp_path / "near.cuh").write_text("#define VALUE 111\n")
    source = 'extern "C" __global__ void f(int* x) { *x = VALUE; }'
    name = str(tmp_path / "f.cu")
    assert "111" in nvrtc.compile('#include "near.cuh"\n' + source, filename=name).ptx
    forced = (f"-I{tmp_path}", "--pre-include=near.cuh")
    assert "111" in nvrtc.compile(source, options=forced).ptx
    (tmp_path / "near.cuh").write_text("#define VALUE 222\n")
    assert "222" in nvrtc.compile('#include "near.cuh"\n' + source, filename=name).ptx
    assert "222" in nvrtc.compile(source, options=forced).ptx


def test_an_include_that_a_macro_names_is_never_cached(compiler, tmp_path):
    (tmp_path / "a.cuh").write_text("#define VALUE 111\n")
    source = '#include NAME\nextern "C" __global__ void f(int* x) { *x = VALUE; }'
    options = (f"-I{tmp_path}", '-DNAME="a.cuh"')
    assert "111" in nvrtc.compile(source, options=options).ptx
    (tmp_path / "a.cuh").write_text("#define VALUE 222\n")
    assert "222" in nvrtc.compile(source, options=options).ptx


def test_mlgpus_own_kernels_are_found():
    compiled = nvrtc.compile('#include "common.cuh"\n' + SOURCE)
    assert ".entry scale(" in compiled.ptx


def test_the_name_of_the_source_does_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLGPU_CACHE_DIR", "")
    here = nvrtc.compile(SOURCE, filename="dir/kernel.cu").ptx
    monkeypatch.chdir(tmp_path)
    assert nvrtc.compile(SOURCE, filename="dir/kernel.cu").ptx == here
    assert '"dir/kernel.cu"' in here
    full = str(tmp_path / "k.cu")
    assert f'"{full}"' in nvrtc.compile(SOURCE, filename=full).ptx


# -- choosing among several installations -------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A machine with nothing but what the test installs; libraries tell the version in them."""
    monkeypatch.setattr(toolkit.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(toolkit, "_toolkits", lambda: list(tmp_path.glob("toolkit*")))
    monkeypatch.setattr(toolkit, "version_of", lambda path: tuple(
        int(n) for n in path.read_text().split(".")))
    monkeypatch.delenv("MLGPU_NVRTC", raising=False)
    toolkit._nvrtc.cache_clear()
    yield tmp_path
    toolkit._nvrtc.cache_clear()


def library(folder: Path, version: str) -> Path:
    path = folder / "lib" / f"libnvrtc.so.{version.split('.')[0]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(version)
    path.with_name("libnvrtc-builtins.so.1").write_text("")
    return path


def headers(folder: Path, version: int, *more: str) -> Path:
    include = folder / "include"
    include.mkdir(parents=True, exist_ok=True)
    (include / "cuda.h").write_text(f"/* */\n#define CUDA_VERSION {version}\n")
    for name in more:
        (include / name).mkdir()
    return include


def test_the_newest_with_headers_is_taken(installed):
    old = library(installed / "nvidia" / "cuda_nvrtc", "12.9")
    library(installed / "nvidia" / "cu13", "13.1")
    include = headers(installed / "nvidia" / "cuda_runtime", 12090)
    cccl = installed / "nvidia" / "cuda_cccl" / "include"
    cccl.mkdir(parents=True)
    found = toolkit.nvrtc()
    assert (found.path, found.version, found.headers) == (old, (12, 9), (include, cccl))
    toolkit._nvrtc.cache_clear()
    new = headers(installed / "nvidia" / "cu13", 13010, "cccl")
    found = toolkit.nvrtc()
    assert (found.version, found.headers) == ((13, 1), (new, new / "cccl"))


def test_machine_code_is_made_by_a_version_that_the_driver_knows(installed):
    old = library(installed / "nvidia" / "cuda_nvrtc", "12.9")
    headers(installed / "nvidia" / "cuda_runtime", 12090)
    new = library(installed / "nvidia" / "cu13", "13.1")
    headers(installed / "nvidia" / "cu13", 13010)
    assert [toolkit.nvrtc(most).path for most in (None, 14, 13, 12)] == [new, new, new, old]
    assert toolkit.nvrtc(11).path == new  # better than nothing


def test_headers_of_another_major_version_are_never_used(installed):
    library(installed / "nvidia" / "cuda_nvrtc", "12.4")
    headers(installed / "toolkit", 13000)
    assert toolkit.nvrtc().headers == ()


def test_headers_of_the_same_version_come_first_then_older_then_newer(installed):
    folders = {v: headers(installed / f"toolkit{v}", v) for v in (12090, 12040, 12010, 11080)}
    assert toolkit.fitting(toolkit.all_headers(), (12, 4)) == (
        folders[12040], folders[12010], folders[12090])


def test_the_environment_chooses(installed, monkeypatch):
    library(installed / "nvidia" / "cu13", "13.1")
    headers(installed / "nvidia" / "cu13", 13010)
    other = library(installed / "elsewhere", "12.2")
    monkeypatch.setenv("MLGPU_NVRTC", str(other))
    assert toolkit.nvrtc() == toolkit.Nvrtc(other, (12, 2), ())
    monkeypatch.setenv("MLGPU_NVRTC", str(installed / "nothing"))
    with pytest.raises(MissingExtraError, match="MLGPU_NVRTC names no file"):
        toolkit.nvrtc()


def test_without_a_compiler_the_install_is_named(installed):
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[sim\]'"):
        toolkit.nvrtc()


def test_a_library_that_cannot_be_loaded_is_passed_over(installed, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(toolkit.sys, "path", [str(installed)])
    monkeypatch.setattr(toolkit, "_toolkits", list)
    broken = library(installed / "nvidia" / "cu13", "13.1")
    with pytest.raises(MissingExtraError, match="is not installed"):
        toolkit.nvrtc()
    with pytest.raises(MissingExtraError, match="cannot be used"):
        toolkit.version_of(broken)


def test_each_real_compiler_makes_the_same_kernel(monkeypatch, compiler):
    """Every NVRTC on this machine, chosen by the environment as a user would."""
    for path in list(toolkit._libraries()):
        monkeypatch.setenv("MLGPU_NVRTC", os.fspath(path))
        compiled = nvrtc.compile(SOURCE)
        assert compiled.nvrtc == toolkit.version_of(path)
        assert ".entry scale(" in compiled.ptx


def test_a_damaged_cache_is_compiled_again(compiler):
    first = nvrtc.compile(SOURCE)
    for damaged, kind in enumerate(("kernels", "files"), 1):  # what is known of the PTX, and itself
        for entry in cache.folder().glob(f"{kind}/*/*"):
            entry.write_bytes(entry.read_bytes()[:-7])
        assert nvrtc.compile(SOURCE) == first
        assert len(compiler) == 1 + damaged
        assert nvrtc.compile(SOURCE) == first
        assert len(compiler) == 1 + damaged
