"""NVIDIA's run-time compiler from its PyPI wheel, which needs no GPU and no driver."""

from __future__ import annotations

import ctypes
import functools
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlgpu.cuda.sources import kernels_dir


@functools.cache
def _library():
    spec = find_spec("nvidia.cuda_nvrtc")
    found = [] if spec is None else sorted(
        p for folder in spec.submodule_search_locations
        for p in Path(folder).glob("lib/libnvrtc.so.*") if "builtins" not in p.name)
    if not found:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu12 (Linux)")
    headers = [Path(folder) / "include"
               for folder in find_spec("nvidia.cuda_runtime").submodule_search_locations]
    return ctypes.CDLL(str(found[0])), headers


def compile_ptx(source: str, arch: str = "compute_75") -> str:
    """The PTX of a CUDA source.  AssertionError with the compiler's log where it does not compile."""
    nvrtc, headers = _library()
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0,
                                    None, None) == 0
    try:
        options = [f"--gpu-architecture={arch}", "--std=c++17", f"-I{kernels_dir()}",
                   *(f"-I{h}" for h in headers)]
        array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        result = nvrtc.nvrtcCompileProgram(program, len(options), array)
        assert result == 0, f"{_text(nvrtc, program, 'ProgramLog')}\n{source}"
        return _text(nvrtc, program, "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc, program, what: str) -> str:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.value.decode()
