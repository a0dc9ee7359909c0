"""Barriers that do not end a segment, and fences."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Instruction


@instruction("bar", "barrier")
def barrier(e: Emitter, ins: Instruction) -> None:
    """`bar.warp.sync` and `bar.arrive`; the others end their segment (code.py)."""
    if ins.has("warp"):
        e.line(f"x.warp_sync(g, {e.use(ins.operands[0], 'b32')})")
    elif ins.has("arrive"):
        aligned = ins.opcode == "bar" or ins.has("aligned")
        number, count = (e.use(o, "u32") for o in ins.operands)
        e.line(f"x.barriers.come(g, {number}, {count}, {e.segment}, None, {aligned}, False)")
    else:
        e.fail("a barrier in the middle of a segment")


@instruction("bar_red")
def bar_red(e: Emitter, ins: Instruction) -> None:
    """The result of `bar.red`, from the predicates that its threads left (made by flow.py)."""
    mode = next(m for m in ins.mods if m in ("popc", "and", "or"))
    result = (f"warps.bar_red(x, g, {mode!r}, {e.use(ins.operands[1], 'pred')}, "
              f"{e.use(ins.operands[2], 'u32')})")
    e.set(ins.operands[0], "u32" if mode == "popc" else "pred", result)


@instruction("membar", "fence")
def fence(e: Emitter, ins: Instruction) -> None:
    """Order the thread's accesses before it against those after it, for others in the scope."""
    if ins.has("proxy") or any(m.startswith("proxy") for m in ins.mods):
        e.line("x.proxy_fence(g)")
        return
    scope = next((m for m in ("cta", "cluster", "gpu", "sys", "gl") if m in ins.mods), "gpu")
    e.line(f"x.fence(g, {('gpu' if scope == 'gl' else scope)!r})")


