"""CUDA sources compiled in tests, which are skipped where there is no compiler."""

from __future__ import annotations

import pytest

from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc


def compile_ptx(source: str, arch: str = "compute_75") -> str:
    """The PTX of a CUDA source.  CompileError with the compiler's log where there is none."""
    try:
        return nvrtc.compile(source, arch).ptx
    except MissingExtraError as missing:
        pytest.skip(str(missing))
