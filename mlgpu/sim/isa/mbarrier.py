"""mbarrier instructions."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Imm, Instruction, Mem, Sink


@instruction("mbarrier")
def mbarrier(e: Emitter, ins: Instruction) -> None:
    """A counting barrier in shared memory."""
    what = ins.mods[0]
    if what == "pending_count":
        e.set(ins.operands[0], "u32", f"mbarriers.pending_count({e.use(ins.operands[1], 'u64')})")
        return
    address = next(o for o in ins.operands if isinstance(o, Mem))
    at = e.bind(f"mbarriers.offsets({e.address(address)})")
    rest = ins.operands[ins.operands.index(address) + 1:]
    if what in ("init", "inval"):
        site = e.site("write", "shared", np.dtype("u8"))
        values = [e.use(rest[0], "u32")] if what == "init" else []
        e.line(e.guarded(f"mbarriers.{what}", at, site, *values))
        return
    site = e.site("atomic", "shared", np.dtype("u8"), strong=True)
    if what in ("arrive", "arrive_drop"):
        to = ins.operands[0] if ins.operands[0] is not address else Sink()
        expect = ins.has("expect_tx")
        amount = e.use(rest[0] if rest else Imm(1), "u32")
        one = e.use(Imm(1), "u32")
        token = e.bind(e.guarded_values(
            "mbarriers.arrive", 1, np.dtype("u8"), at, site, one if expect else amount,
            repr(what == "arrive_drop"), amount if expect else "None"))
        e.set(to, "u64", f"{token}[0]")
    elif what == "expect_tx":
        e.line(e.guarded("mbarriers.expect", at, site, e.use(rest[0], "u32")))
    elif what == "complete_tx":
        e.line(e.guarded("mbarriers.expect", at, site, f"-{e.use(rest[0], 'u32')}.astype('i8')"))
    elif what in ("test_wait", "try_wait"):
        parity = ins.has("parity")
        token = e.use(rest[0], "u32" if parity else "u64")
        done = e.bind(e.guarded_values("mbarriers.test", 1, np.dtype(bool), at, site, token,
                                       repr(parity)))
        e.set(ins.operands[0], "pred", f"{done}[0]")
    else:
        e.fail("this mbarrier operation is not known")
