"""Asynchronous copies: cp.async, cp.async.bulk, cp.reduce.async.bulk, and their waits."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Imm, Instruction, Mem, Reg


@instruction("cp")
def cp(e: Emitter, ins: Instruction) -> None:
    """Every instruction whose name begins with cp."""
    if ins.has("reduce"):
        _bulk_store(e, ins, reduce=True)
    elif ins.has("commit_group"):
        e.line(e.guarded("copies.commit", repr("bulk" if ins.has("bulk") else "async")))
    elif ins.has("wait_group") or ins.has("wait_all"):
        kind = "bulk" if ins.has("bulk") else "async"
        allowed = None
        if ins.has("wait_group"):
            number = ins.operands[0]
            assert isinstance(number, Imm)
            allowed = number.value
        e.line(e.guarded("copies.wait", repr(kind), repr(allowed)))
    elif ins.has("mbarrier") or any(m.startswith("mbarrier::arrive") for m in ins.mods):
        site = e.site("atomic", "shared", np.dtype("u8"), strong=True)
        e.line(e.guarded("copies.arrive", e.address(ins.operands[0]), site,
                         repr(ins.has("noinc"))))
    elif ins.has("prefetch"):
        return
    elif ins.has("bulk"):
        _bulk(e, ins)
    else:
        _async(e, ins)


def _async(e: Emitter, ins: Instruction) -> None:
    to, source, size, *rest = ins.operands
    if not isinstance(size, Imm) or size.value not in (4, 8, 16):
        e.fail("the size must be 4, 8 or 16")
    count = max(size.value // 4, 1)
    read = e.site("read", "global", np.dtype("u4"), count)
    write = e.site("write", "shared", np.dtype("u4"), count)
    take = "None"
    policy = any("cache_hint" in m for m in ins.mods)
    if len(rest) - policy > 0:
        given = rest[0]
        if isinstance(given, Reg) and e.registers.get(given.name) == "pred":
            take = f"where({e.use(given, 'pred')}, 0, {size.value})"  # ignore-src
        else:
            take = e.use(given, "u32")
    e.line(e.guarded("copies.cp_async", e.address(to), e.address(source), read, write,
                     take if take == "None" else e.bind(take)))


def _bulk(e: Emitter, ins: Instruction) -> None:
    spaces = [m.split("::")[0] for m in ins.mods if m.split("::")[0] in ("shared", "global")]
    if ins.has("tensor") or any(m.startswith("tensor") for m in ins.mods):
        e.fail("copies through tensor maps are not supported yet; use cp.async.bulk of rows")
    if any(m.startswith("multicast") for m in ins.mods):
        e.fail("copies to several blocks of a cluster are not supported")
    if spaces[:2] == ["shared", "global"]:
        to, source, size, barrier = ins.operands[:4]
        read = e.site("read", "global", np.dtype("u4"), 4)
        write = e.site("write", "shared", np.dtype("u4"), 4)
        e.line(e.guarded("copies.bulk_load", e.address(to), e.address(source),
                         e.use(size, "u32"), e.address(barrier), read, write))
    elif spaces[:2] == ["global", "shared"]:
        _bulk_store(e, ins, reduce=False)
    else:
        e.fail("bulk copies between these spaces are not supported")


def _bulk_store(e: Emitter, ins: Instruction, reduce: bool) -> None:
    to, source, size = ins.operands[:3]
    if not isinstance(to, Mem):
        raise ValueError("an address was expected")
    read = e.site("read", "shared", np.dtype("u4"), 4)
    write = e.site("write", "global", np.dtype("u4"), 4, strong=reduce)
    operation = next((m for m in ins.mods if m in ("add", "min", "max", "and", "or", "xor", "inc",
                                                   "dec")), "") if reduce else ""
    e.line(e.guarded("copies.bulk_store", e.address(to), e.address(source), e.use(size, "u32"),
                     read, write, repr(operation), repr(ins.type)))


