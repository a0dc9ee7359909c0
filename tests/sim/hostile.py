"""Small kernels in PTX for the tests of hostile input."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import sim

REGISTERS = (".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<19>; .reg .u32 %u<9>; "
             ".reg .b64 %rd<19>; .reg .f32 %f<19>; .reg .f64 %fd<9>;")


def ptx(body: str, params: str = ".param .u64 out", outer: str = "", target: str = "sm_90",
        directives: str = "") -> str:
    """A module whose kernel `k` has this body, which begins in line 9 of the text."""
    assert "\n" not in outer + params + directives
    return (f'.version 8.8\n.target {target}\n.address_size 64\n.file 1 "k.cu"\n{outer}\n'
            f".visible .entry k({params}) {directives} {{\n"
            f"{REGISTERS}\n.shared .align 16 .b8 tile[64]; .local .align 8 .b8 mine[16];\n"
            f"{body}\n}}\n")


def kernel(body: str, machine: sim.Machine | None = None, **parts: str) -> sim.Kernel:
    """The kernel of this body."""
    machine = machine or sim.Machine(arch="sm_90")
    return machine.module(ptx(body, **parts)).kernel("k")


def run(body: str, block: int = 32, dtype: Any = np.uint32, **machine: Any) -> np.ndarray[Any, Any]:
    """What a kernel stores: it finds `[%rd1]`, its thread's element of the output."""
    m = sim.Machine(arch="sm_90", **machine)
    size = np.dtype(dtype).itemsize
    out = m.zeros(block, dtype)
    kernel("ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; "
           f"mul.wide.u32 %rd2, %r1, {size}; add.u64 %rd1, %rd1, %rd2;\n{body}",
           m).launch(1, block, (out,))
    return out.numpy()


# Adds 1 to each of its first n numbers.
ADD = ptx("""
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r4, [n];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    setp.ge.u32 %p1, %r1, %r4;
    @%p1 bra DONE;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd1, %rd1, %rd2;
    ld.global.u32 %r5, [%rd1];
    add.u32 %r5, %r5, 1;
    st.global.u32 [%rd1], %r5;
DONE:
    ret;""", ".param .u64 out, .param .u32 n")
