"""Instructions that the machine itself carries out: parameters, address spaces, prefetches."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.memory import LOCAL_WINDOW, SHARED_WINDOW, WINDOW
from mlgpu.sim.ptx.syntax import Args, Imm, Instruction


@instruction("param_move")
def param_move(e: Emitter, ins: Instruction) -> None:
    """A piece of a call's parameter, to or from its register (made by inline.py)."""
    to, source = ins.operands
    e.set(to, ins.type, e.use(source, ins.type))


@instruction("cvta")
def cvta(e: Emitter, ins: Instruction) -> None:
    """Between an address in a space and the generic one."""
    to, source = ins.operands
    wide = ins.type
    base = {"shared": SHARED_WINDOW, "shared::cta": SHARED_WINDOW,
            "local": LOCAL_WINDOW}.get(ins.mods[-2], 0)
    value = e.address(source, wide)
    if base:
        amount = e.use(Imm(base), "u64")
        value = f"{value} - {amount}" if ins.has("to") else f"{value} + {amount}"
    e.set(to, "u64" if wide == "u64" else "u32",
          value if wide == "u64" else f"({value}).astype({e.fn(np.dtype('u4'))})")


@instruction("isspacep")
def isspacep(e: Emitter, ins: Instruction) -> None:
    """Whether a generic address lies in a space."""
    to, source = ins.operands
    address = e.use(source, "u64")
    low = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(ins.mods[0].split("::")[0])
    if low is not None:
        start, end = e.use(Imm(low), "u64"), e.use(Imm(low + WINDOW), "u64")
        e.set(to, "pred", f"({address} >= {start}) & ({address} < {end})")
    elif ins.mods[0] == "global":
        e.set(to, "pred", f"{address} < {e.use(Imm(SHARED_WINDOW), 'u64')}")
    elif ins.mods[0] in ("const", "param"):
        e.set(to, "pred", f"x.is_constant({address})")
    else:
        e.fail("unknown space")


@instruction("prefetch", "prefetchu", "applypriority", "discard", "nanosleep", "pmevent",
             "griddepcontrol", "setmaxnreg", "createpolicy", "fence_none")
def nothing(e: Emitter, ins: Instruction) -> None:
    """Hints to a memory system and scheduler that the simulation does not have."""
    if ins.opcode == "createpolicy":
        e.set(ins.operands[0], "u64", e.use(Imm(0), "u64"))


@instruction("vprintf")
def vprintf(e: Emitter, ins: Instruction) -> None:
    """`printf`: the format's address and the address of its arguments."""
    returns, args = ins.operands
    assert isinstance(returns, Args)
    assert isinstance(args, Args)
    text, values = (e.use(a, "u64") for a in args.items)
    e.line(e.guarded("intrinsics.print_lines", text, values))
    for item in returns.items:
        e.set(item, "s32", e.use(Imm(0), "s32"))
