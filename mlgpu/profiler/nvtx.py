"""Ranges for NVIDIA's tools: Nsight Systems shows them above the kernels that ran in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlgpu.cpu.runtime import CpuRuntime
from mlgpu.cuda.loading import load
from mlgpu.cuda.runtime import CudaRuntime

_ranges: Any = None  # CuPy's module while ranges are wanted


def push(name: str) -> None:
    """Open a range, if they are wanted."""
    if _ranges is not None:
        _ranges.RangePush(name)


def pop() -> None:
    """Close the last range, if they are wanted."""
    if _ranges is not None:
        _ranges.RangePop()


@contextmanager
def emit_nvtx(enabled: bool = True) -> Iterator[None]:
    """Within the block, an NVTX range around each operation and each `record_function`.

    For a program that runs under `nsys profile`.  Raises MissingExtraError without CuPy.
    """
    global _ranges
    if not enabled or _ranges is not None:
        yield
        return
    from mlgpu.profiler.recorder import _name

    ranges = load().cuda.nvtx

    def around(original: Any) -> Any:
        @functools.wraps(original)
        def call(engine: Any, function: Callable[..., Any], *rest: Any) -> Any:
            ranges.RangePush(_name(function))
            try:
                return original(engine, function, *rest)
            finally:
                ranges.RangePop()

        return call

    before = [(owner, owner.call) for owner in (CpuRuntime, CudaRuntime)]
    _ranges = ranges
    try:
        for owner, original in before:
            setattr(owner, "call", around(original))  # noqa: B010  (a method is replaced)
        yield
    finally:
        for owner, original in before:
            setattr(owner, "call", original)  # noqa: B010
        _ranges = None
