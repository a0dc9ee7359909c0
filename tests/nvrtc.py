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
    """The compiler and the folders of CUDA's headers, wherever the wheels of CUDA 12 or 13 lie."""
    nvidia = find_spec("nvidia")
    folders = [] if nvidia is None else [Path(f) for f in nvidia.submodule_search_locations]
    found = [p for f in folders for p in sorted(f.glob("*/lib/libnvrtc.so.*"))
             if "builtins" not in p.name]
    headers = [p.parent for f in folders for p in sorted(f.glob("*/include/cuda_fp16.h"))]
    if not found or not headers:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu12 "
                    "nvidia-cuda-runtime-cu12 (Linux)")
    return ctypes.CDLL(str(found[0])), headers


def compile_ptx(source: str, arch: str = "compute_75") -> str:
    """The PTX of a CUDA source.  AssertionError with the compiler's log where there is none."""
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
