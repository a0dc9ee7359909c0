"""CUDA sources to images: what is in the cache, what was built ahead of time, many processes."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlgpu.cuda import cache, nvrtc, toolkit
from mlgpu.cuda.compile import Image, build, compatible, compile, target
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import KernelError, MissingExtraError

SOURCE = """#include "common.cuh"
template <typename T, int N> __global__ void scale(T* x) { x[threadIdx.x] *= T(N); }
"""
NAME = "scale<float, 3>"
ELF = b"\x7fELF"
MODULE = sys.modules["mlgpu.cuda.compile"]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """An empty cache, and how often the compiler itself ran."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("MLGPU_KERNELS_DIR", raising=False)
    made = []
    real = nvrtc.compile
    monkeypatch.setattr(nvrtc, "compile", lambda *a: made.append(a) or real(*a))
    return made


@pytest.fixture
def no_compiler(monkeypatch):
    def missing(most=None):
        raise MissingExtraError("NVRTC is not installed")

    return lambda: monkeypatch.setattr(toolkit, "nvrtc", missing)


def forget():
    """As a new process would: nothing is remembered but what is on disk."""
    MODULE._remembered.cache_clear()


def test_both_kinds_of_image():
    code = compile(SOURCE, "sm_80", [NAME])
    assert code.path.read_bytes().startswith(ELF)
    assert code.path.suffix == ".cubin"
    assert code.path.is_relative_to(cache.folder())
    assert code.log == ""
    text = compile(SOURCE, "compute_80", [NAME], kind="ptx", filename="scale.cu")
    ptx = text.path.read_text()
    assert f".entry {text.lowered[NAME]}(" in ptx
    assert '"scale.cu"' in ptx
    assert "-lineinfo" not in ptx
    assert "\0" not in ptx
    assert text.lowered == code.lowered


@pytest.mark.parametrize(("arch", "kind", "expected"), [
    ("sm_80", "cubin", "sm_80"), ("compute_80", "cubin", "sm_80"), ("sm_90a", "ptx", "compute_90a"),
    ("compute_120", "ptx", "compute_120")])
def test_targets_are_spelled_for_the_kind_of_image(arch, kind, expected):
    assert target(arch, kind) == expected


def test_arithmetic_is_precise_and_keeps_small_numbers():
    source = 'extern "C" __global__ void f(float* x) { x[0] = x[1] / x[2] + sqrtf(x[3]); }'
    ptx = compile(source, "sm_80", kind="ptx").path.read_text()
    assert "div.rn.f32" in ptx
    assert "sqrt.rn.f32" in ptx
    assert ".ftz" not in ptx


@pytest.mark.parametrize(("line", "options", "entry"), [
    ("", (), "without"), ("// of __half", (), "without"), ("", ("-DTYPE=float",), "without"),
    ("__device__ __half x;", (), "brought"), ("__device__ __nv_bfloat16 x;", (), "brought"),
    ("", ("-DTYPE=__half",), "brought"), ("#include <cuda_fp16.h>", (), "brought")])
def test_half_types_are_brought_where_one_is_named(line, options, entry):
    source = f"""#include "common.cuh"
{line}
#ifdef ML_NO_HALF
extern "C" __global__ void without() {{}}
#else
extern "C" __global__ void brought() {{}}
#endif
"""
    ptx = compile(source, "sm_80", options=options, kind="ptx").path.read_text()
    assert f".entry {entry}(" in ptx


def test_half_types_are_brought_for_instances_of_them():
    source = SOURCE.replace("*= T(N)", "= ml_cast<T>(float(N))")
    compile(source, "sm_80", ["scale<__half, 3>", "scale<float, 3>"])
    compile(source, "sm_80", ["scale<ml_complex<float>, 3>"])


def test_what_is_asked_again_is_there(runs):
    first = compile(SOURCE, "sm_80", [NAME])
    assert compile(SOURCE, "sm_80", (NAME,)) is first
    forget()
    assert compile(SOURCE, "sm_80", [NAME]) == first
    assert len(runs) == 1
    different = [{"arch": "sm_86"}, {"names": ["scale<float, 4>"]}, {"options": ["-DX"]},
                 {"kind": "ptx"}, {"filename": "other.cu"}, {"source": SOURCE + "//"}]
    for change in different:
        compile(**{"source": SOURCE, "arch": "sm_80", "names": [NAME], **change})
    assert len(runs) == 1 + len(different)


def test_a_file_that_went_is_made_again(runs):
    first = compile(SOURCE, "sm_80", [NAME])
    first.path.unlink()
    assert compile(SOURCE, "sm_80", [NAME]).path.read_bytes().startswith(ELF)
    assert len(runs) == 2


@pytest.mark.parametrize("kind", ["kernels", "files"])
def test_a_damaged_entry_or_image_is_made_again(runs, kind):
    first = compile(SOURCE, "sm_80", [NAME])
    whole = first.path.read_bytes()
    (path,) = cache.folder().glob(f"{kind}/*/*")
    path.write_bytes(path.read_bytes()[:-7])
    forget()
    assert compile(SOURCE, "sm_80", [NAME]) == first
    assert first.path.read_bytes() == whole
    assert len(runs) == 2


def test_a_hit_is_fast():
    compile(SOURCE, "sm_80", [NAME])
    times = []
    for _ in range(20):
        forget()
        start = time.process_time()
        compile(SOURCE, "sm_80", [NAME])
        times.append(time.process_time() - start)
    assert min(times) < 2e-3  # 0.5 ms on an idle machine


def test_a_header_in_the_current_folder_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "common.cuh").write_text("#error not this one\n")
    monkeypatch.chdir(tmp_path)
    compile(SOURCE, "sm_80", [NAME])


def test_messages_call_the_source_by_its_name():
    with pytest.raises(KernelError, match=r"(?m)^broken\.cu\(1\): error: identifier \"y\""):
        compile("__global__ void f() { int x = y; }", "sm_80", filename="broken.cu")
    log = compile("__global__ void f() { int x; }", "sm_80", filename="odd.cu").log
    assert log.startswith("odd.cu(1): warning")


@pytest.mark.parametrize(("change", "told"), [
    ({"arch": "90"}, "no target"), ({"kind": "elf"}, "'cubin' or 'ptx'"),
    ({"names": ["nothing<int>"]}, "nothing"), ({"options": ["-arch=sm_70"]}, "device's arch"),
    ({"arch": "sm_10"}, "sm_10"), ({"source": "\0"}, "NUL")])
def test_what_cannot_be_compiled_is_told(change, told):
    with pytest.raises(KernelError, match=told):
        compile(**{"source": SOURCE, "arch": "sm_80", "names": [NAME], **change})


def test_without_a_cache_images_are_gone_with_their_process(monkeypatch):
    code = f"""
import os
from mlgpu.cuda.compile import compile
image = compile({SOURCE!r}, "sm_80", [{NAME!r}])
assert image.path.read_bytes().startswith({ELF!r})
if os.fork() == 0:
    raise SystemExit  # a forked process leaves its parent's files alone
os.wait()
assert image.path.is_file()
print(image.path)
"""
    monkeypatch.setenv("MLGPU_CACHE_DIR", "")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.suffix == ".cubin"
    assert not path.parents[2].exists()


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(blocked / "cache"))
    assert compile(SOURCE, "sm_80", [NAME]).path.read_bytes().startswith(ELF)


def test_many_processes_and_threads_at_once():
    code = f"""
from mlgpu.cuda.compile import compile
image = compile({SOURCE!r}, "sm_80", [{NAME!r}])
data = image.path.read_bytes()
assert data.startswith({ELF!r}) and image.lowered[{NAME!r}].encode() in data
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: compile(SOURCE, "sm_80", [NAME]), range(4)))
    assert [process.wait(120) for process in running] == [0] * 4
    assert all(image.path.read_bytes().startswith(ELF) for image in images)


def test_built_images_need_no_compiler(tmp_path, monkeypatch, no_compiler, runs):
    made = compile(SOURCE, "sm_80", [NAME], filename="k.cu")
    built = build(SOURCE, "sm_80", tmp_path / "built", [NAME], filename="k.cu")
    assert built.path.is_relative_to(tmp_path / "built")
    no_compiler()
    monkeypatch.setenv("MLGPU_CACHE_DIR", "")
    monkeypatch.setenv("MLGPU_KERNELS_DIR", str(tmp_path / "built"))
    count = len(runs)
    found = compile(SOURCE, "sm_80", [NAME], filename="k.cu")
    assert found == Image(built.path, made.lowered, "")
    assert compile(SOURCE, "sm_86", [NAME], filename="k.cu") == found  # runs there, too
    assert len(runs) == count
    for arch in ("sm_75", "sm_90"):
        with pytest.raises(MissingExtraError, match=rf"scale<float, 3>.*{arch}.*not installed"):
            compile(SOURCE, arch, [NAME], filename="k.cu")
    with pytest.raises(MissingExtraError, match="built ahead"):
        compile(SOURCE + "//", "sm_80", [NAME], filename="k.cu")


def test_a_folder_of_images_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("MLGPU_KERNELS_DIR", str(tmp_path / "none"))
    with pytest.raises(KernelError, match="names no folder"):
        compile(SOURCE, "sm_80", [NAME])


def test_compatible_targets():
    assert [*compatible("sm_86", "cubin")] == [f"sm_8{n}" for n in range(6, -1, -1)]
    assert [*compatible("sm_90", "ptx")][:3] == ["compute_90", "compute_89", "compute_88"]


def test_kernels_that_are_built_do_not_know_where_they_lie(tmp_path, monkeypatch, no_compiler):
    """Images built on one machine are found on another, with mlgpu in another folder."""
    other = tmp_path / "elsewhere" / "kernels"
    other.mkdir(parents=True)
    for path in kernels_dir().glob("*.cuh"):
        (other / path.name).write_bytes(path.read_bytes())
    build(SOURCE, "sm_80", tmp_path / "built", [NAME])
    monkeypatch.setenv("MLGPU_KERNELS_DIR", str(tmp_path / "built"))
    no_compiler()
    monkeypatch.setattr(MODULE, "kernels_dir", lambda: other)
    forget()
    assert compile(SOURCE, "sm_80", [NAME]).path.is_file()
    (other / "common.cuh").write_text((other / "common.cuh").read_text() + "// changed\n")
    forget()
    with pytest.raises(MissingExtraError):
        compile(SOURCE, "sm_80", [NAME])


def test_the_compilers_own_functions_are_loaded_from_beside_it(tmp_path, monkeypatch):
    """That of CUDA 13.0 looks for them by name alone."""
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0"):
        (tmp_path / name).touch()
    loaded = []

    class Library:
        def __init__(self, path):
            loaded.append(Path(path).name)
            self.nvrtcGetErrorString = SimpleNamespace()

    monkeypatch.setattr(nvrtc.ctypes, "CDLL", Library)
    nvrtc._load(tmp_path / "libnvrtc.so.13")
    assert loaded == ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]
