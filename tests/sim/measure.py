"""The counters of a launch: the same however blocks are batched, and with and without checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlgpu import sim
from mlgpu.sim import launch
from mlgpu.sim.metric_names import METRICS
from mlgpu.sim.report import SLOW

REGISTERS = """
    .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<30>; .reg .b64 %q<30>; .reg .f32 %f<20>;
    .reg .f64 %d<9>; .reg .b32 %t; .reg .b32 %i; .reg .b32 %s; .reg .b32 %l; .reg .b32 %n;
    .reg .b64 %a; .reg .b64 %b; .reg .b64 %x; .reg .b64 %y;
"""


def ptx(body: str, shared: int = 0, local: int = 0, target: str = "sm_80", extra: str = "") -> str:
    """A kernel `k(a, b, n)`: two addresses in %a and %b, a number in %n; %t is the thread in its
    block, %i in the grid, %s and %l the addresses of bytes in shared and local memory.

    The head executes ld.param three times, cvta.to.global twice, mov three times, mad once, and
    mov once for %s and once for %l where there are such bytes.
    """
    arrays = (f".shared .align 128 .b8 smem[{shared}];\n" if shared else "") + (
        f".local .align 16 .b8 lmem[{local}];\n" if local else "")
    moves = ("mov.u32 %s, smem;\n" if shared else "") + ("mov.u32 %l, lmem;\n" if local else "")
    return f""".version 8.7
.target {target}
.address_size 64
{extra}
.visible .entry k(.param .u64 k_a, .param .u64 k_b, .param .u32 k_n)
{{
    {REGISTERS}
    {arrays}
    ld.param.u64 %q0, [k_a];
    ld.param.u64 %q1, [k_b];
    ld.param.u32 %n, [k_n];
    cvta.to.global.u64 %a, %q0;
    cvta.to.global.u64 %b, %q1;
    mov.u32 %t, %tid.x;
    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %ntid.x;
    mad.lo.s32 %i, %r0, %r1, %t;
    {moves}
    {body}
    ret;
}}
"""


HEAD = 9  # instructions of the head, without the moves to %s and %l


def at(scale: int, shift: int = 0, base: str = "%a", index: str = "%i", to: str = "%x") -> str:
    """PTX that puts base + scale * index + shift into a register."""
    return f"mad.wide.u32 {to}, {index}, {scale}, {base}; add.s64 {to}, {to}, {shift};"


def shared_at(scale: int, shift: int = 0, index: str = "%t", to: str = "%r2") -> str:
    """PTX that puts an address in shared memory into a 32-bit register."""
    return f"mad.lo.u32 {to}, {index}, {scale}, %s; add.u32 {to}, {to}, {shift};"


def run(source: str, grid: Any, block: Any, args: list[Any], *, arch: str = "sm_80",
        kernel: str = "k", shared_mem: int = 0, l2_bytes: int | None = None) -> dict[str, float]:
    """The counters of a launch by their aliases, equal in three runs: as usual, block by block,
    and without checks.  Arguments that are arrays are placed anew for each."""
    results = []
    for checks, threads in ((sim.machine.CHECKS, None), (sim.machine.CHECKS, 1), ((), None)):
        with pytest.MonkeyPatch.context() as patch:
            if threads is not None:
                patch.setattr(launch, "BATCH_THREADS", threads)
            m = sim.Machine(arch=arch, checks=checks)
            if l2_bytes is not None:
                m.arch = replace(m.arch, l2_bytes=l2_bytes)
            mod = m.module(source)
            placed = [m.array(a) if isinstance(a, np.ndarray) else a for a in args]
            report = mod.kernel(kernel).launch(grid, block, placed, shared_mem=shared_mem)
            results.append({metric.alias: report.metrics[name] for name, metric in METRICS.items()
                            if name not in SLOW and name in report.metrics})
    first, *others = results
    for other in others:
        assert other == first
    return first


def measure(body: str, grid: Any = 1, block: Any = 32, *, a: Any = None, b: Any = None, n: int = 0,
            shared: int = 0, local: int = 0, arch: str = "sm_80",
            extra: str = "") -> dict[str, float]:
    """The counters of a kernel written as PTX (see `ptx`); a and b are 64 KiB of zeros unless
    given."""
    a, b = (np.zeros(1 << 16, np.uint8) if given is None else given for given in (a, b))
    return run(ptx(body, shared, local, arch, extra), grid, block, [a, b, np.uint32(n)], arch=arch)


def check(counted: dict[str, float], **expected: float) -> None:
    """Compare those of the counters that are named."""
    assert {name: counted.get(name) for name in expected} == pytest.approx(expected)
