"""mbarrier instructions."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form
from mlgpu.sim.isa.memory import space_at
from mlgpu.sim.ptx.syntax import Imm, Instruction

# Of each operation: results before the address, and how many operands may follow it.
_OPERANDS = {"init": (0, range(1, 2)), "inval": (0, range(1)), "arrive": (1, range(2)),
             "arrive_drop": (1, range(2)), "expect_tx": (0, range(1, 2)),
             "complete_tx": (0, range(1, 2)), "test_wait": (1, range(1, 2)),
             "try_wait": (1, range(1, 3))}


@form("mbarrier", types="b64", mods=f"""{' '.join(_OPERANDS)} pending_count noComplete parity
      acquire release relaxed cta cluster shared shared::cta shared::cluster""", operands=1, most=4)
def mbarrier(e: Emitter, ins: Instruction) -> None:
    """A counting barrier in shared memory."""
    what = ins.mods[0]
    if what == "pending_count":
        if len(ins.operands) != 2:
            e.malformed("pending_count takes a state and gives a number")
        e.set(ins.operands[0], "u32", f"mbarriers.pending_count({e.use(ins.operands[1], 'u64')})")
        return
    if what not in _OPERANDS:
        e.malformed(f"mbarrier.{what} is no operation")
    results, more = _OPERANDS[what]
    if len(ins.operands) - results - 1 not in more:
        e.malformed(f"mbarrier.{what} with {len(ins.operands)} operands")
    address, rest = ins.operands[results], ins.operands[results + 1:]
    if space_at(e, ins, address) not in ("", "shared"):
        e.malformed("an mbarrier lies in shared memory")
    at = e.bind(f"mbarriers.offsets({e.address(address)})")
    if what in ("init", "inval"):
        site = e.site("write", "shared", np.dtype("u8"))
        values = [e.use(rest[0], "u32")] if what == "init" else []
        e.line(e.guarded(f"mbarriers.{what}", at, site, *values))
        return
    site = e.site("atomic", "shared", np.dtype("u8"), strong=True)
    if what in ("arrive", "arrive_drop"):
        to = ins.operands[0]
        expect = ins.has("expect_tx")
        if expect and not rest:
            e.malformed("mbarrier.arrive.expect_tx without a number of bytes")
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
    else:
        parity = ins.has("parity")
        token = e.use(rest[0], "u32" if parity else "u64")
        done = e.bind(e.guarded_values("mbarriers.test", 1, np.dtype(bool), at, site, token,
                                       repr(parity)))
        e.set(ins.operands[0], "pred", f"{done}[0]")
