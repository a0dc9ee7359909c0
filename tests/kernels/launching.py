"""Kernels of kernels/*.cu on a simulated device, launched one at a time with NumPy arrays."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest

from mlgpu import sim
from mlgpu.cuda.compile import compile
from mlgpu.cuda.signature import parameters, with_includes
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import MissingExtraError


@functools.cache
def machine(arch: str = "sm_90") -> sim.Machine:
    return sim.Machine(arch)


@functools.cache
def _kernel(family: str, name: str, arch: str) -> tuple[Any, Any]:
    path = kernels_dir() / f"{family}.cu"
    try:  # as mlgpu does, so that what tests on devices compile too is compiled once
        image = compile(path.read_text(), arch, (name,), kind="ptx", filename=path.name)
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    module = machine(arch).module(image.path.read_text())
    return module.kernel(image.lowered[name]), parameters(with_includes(path), name)


def launch(family: str, name: str, grid: Any, block: Any, args: Sequence[Any], shared: int = 0,
           arch: str = "sm_90") -> Any:
    """Launch the kernel of that name expression; arrays among `args` are written back in place."""
    kernel, declared = _kernel(family, name, arch)
    assert len(declared) == len(args), name
    given = []
    for parameter, arg in zip(declared, args, strict=True):
        if arg is None:
            given.append(0)
        elif parameter.pointer:
            assert arg.dtype == parameter.dtype or parameter.dtype is None, (name, parameter.name)
            given.append(machine(arch).array(arg))
        else:
            given.append(arg if parameter.dtype is None else parameter.dtype.type(arg))
    report = kernel.launch(grid, block, given, shared_mem=shared)
    for parameter, arg, buffer in zip(declared, args, given, strict=True):
        if parameter.pointer and arg is not None:
            arg[...] = buffer.numpy()
            buffer.free()
    return report
