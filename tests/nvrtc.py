"""CUDA sources compiled in tests, which are skipped where there is no compiler."""

from __future__ import annotations

import pytest

from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc


def compile_ptx(source: str, arch: str = "compute_75", options: tuple[str, ...] = ()) -> str:
    """The PTX of a CUDA source.  CompileError with the compiler's log where there is none."""
    try:
        return nvrtc.compile(source, arch, options).ptx
    except MissingExtraError as missing:
        pytest.skip(str(missing))


def unoptimised() -> tuple[str, ...]:
    """Options for sources that are only to compile: several times faster, with worse PTX."""
    try:
        return ("-Ofc=max",) if toolkit.nvrtc().version >= (12, 9) else ()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
