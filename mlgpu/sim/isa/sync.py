"""Barriers that do not end a segment, and fences."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, one_of
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Instruction

_BARRIER = frozenset("cta sync arrive red popc and or pred u32 warp aligned".split())
_OPERANDS = {"sync": range(1, 3), "arrive": range(2, 3), "red": range(3, 5)}


def check_barrier(e: Emitter, ins: Instruction) -> None:
    """Refuse a barrier of an unknown form."""
    if ins.has("cluster"):
        e.fail("clusters of blocks are not simulated: every block is a cluster of its own")
    for mod in ins.mods:
        if mod not in _BARRIER:
            e.malformed(f"{ins.opcode} has no .{mod}")
    what = one_of(e, ins, _OPERANDS, "action")
    wanted = range(1, 2) if ins.has("warp") else _OPERANDS[what]
    if len(ins.operands) not in wanted or (ins.has("warp") and what != "sync"):
        e.malformed(f"{ins.opcode}.{what} with {len(ins.operands)} operands")
    if what == "red" and (one_of(e, ins, ("popc", "and", "or"), "operation") == "popc") != (
            ins.type == "u32"):
        e.malformed("bar.red.popc gives an .u32, the others a .pred")


@instruction("bar", "barrier")
def barrier(e: Emitter, ins: Instruction) -> None:
    """`bar.warp.sync` and `bar.arrive`; the others end their segment (generate.py)."""
    check_barrier(e, ins)
    if ins.has("warp"):
        e.line(f"x.warp_sync(g, {e.use(ins.operands[0], 'b32')})")
    else:
        aligned = ins.opcode == "bar" or ins.has("aligned")
        number, count = (e.use(o, "u32") for o in ins.operands)
        e.line(f"x.barriers.come(g, {number}, {count}, {e.segment}, None, {aligned}, False)")


@instruction("bar_red")
def bar_red(e: Emitter, ins: Instruction) -> None:
    """The result of `bar.red`, for those who leave the barrier (made by flow.py)."""
    mode = one_of(e, ins, ("popc", "and", "or"), "operation")
    result = f"x.barriers.vote(g, {mode!r}, {e.use(ins.operands[1], 'u32')})"
    e.set(ins.operands[0], "u32" if mode == "popc" else "pred", result)


_SCOPES = ("cta", "cluster", "gpu", "sys", "gl")


@form("fence", mods="sc acq_rel acquire release cta cluster gpu sys proxy alias async global "
                    "shared::cta shared::cluster async::generic sync_restrict::shared::cta "
                    "sync_restrict::shared::cluster mbarrier_init", operands=0)
@form("membar", mods="cta gl sys proxy alias", operands=0)
def fence(e: Emitter, ins: Instruction) -> None:
    """Order the thread's accesses before it against those after it, for others in the scope."""
    if ins.has("proxy") or ins.has("mbarrier_init"):
        e.line("x.proxy_fence(g)")
        return
    scope = one_of(e, ins, _SCOPES, "scope")
    e.line(f"x.fence(g, {('gpu' if scope == 'gl' else scope)!r})")
