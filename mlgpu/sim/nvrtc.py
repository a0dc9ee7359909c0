"""CUDA source to PTX: NVIDIA's run-time compiler NVRTC, which needs no GPU and no driver.

NVRTC's own defaults hold (C++17, unmarked functions are host code), so that what compiles here
compiles for CuPy and in any other program; only `-lineinfo` is added, which leaves the code as it
is and lets findings and counters name source lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlgpu.cuda import toolkit
from mlgpu.cuda.compile import image
from mlgpu.errors import KernelError
from mlgpu.sim import arch as archs
from mlgpu.sim.errors import CompileError


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a source."""

    ptx: str
    lowered: Mapping[str, str]  # name expression -> the symbol's name in the PTX
    log: str  # warnings
    nvrtc: tuple[int, int]


def compile(source: str, arch: str = "sm_90", options: Sequence[str] = (),
            names: Sequence[str] = (), filename: str = "kernel.cu") -> Compiled:
    """The PTX of a CUDA source, from the cache where it was compiled before.

    `options` are NVRTC's (`-DN=4`, `--use_fast_math`, `-Ifolder`); mlgpu's kernels and CUDA's
    headers are found without.  `names` are name expressions such as "kernel<float>", which make
    NVRTC instantiate templates.  `filename` stands in messages and line information; quoted
    includes are looked for beside it.  CompileError with the compiler's log where there is no PTX.
    """
    found = toolkit.nvrtc()
    target = archs.compute(arch)
    try:
        made = image(source, target, names, ["-lineinfo", *options], "ptx", filename)
    except KernelError as error:
        raise CompileError(str(error)) from None
    ptx = made.path.read_text("utf-8", "replace")
    return Compiled(ptx, made.lowered, made.log, found.version)
