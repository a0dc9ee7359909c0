"""Instructions by which the lanes of a warp exchange values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.ptx.syntax import Imm, Instruction, Not, Operand, Pair, Reg, Sink

Array = np.ndarray[Any, Any]
LANE = np.arange(32, dtype=np.int64)
FULL = Imm(0xFFFFFFFF)


def _outputs(operand: Operand) -> tuple[Operand, Operand]:
    return (operand.first, operand.second) if isinstance(operand, Pair) else (operand, Sink())


@instruction("shfl")
def shfl(e: Emitter, ins: Instruction) -> None:
    """A value from another lane, and whether that lane was in range."""
    value, valid = _outputs(ins.operands[0])
    mode = next(m for m in ins.mods if m in ("up", "down", "bfly", "idx"))
    source, lane, clamp = ins.operands[1:4]
    mask = ins.operands[4] if ins.has("sync") else FULL
    result = e.bind(f"warps.shuffle(g, {e.fn(SHUFFLES[mode])}, {e.use(source, 'b32')}, "
                    f"{e.use(lane, 'b32')}, {e.use(clamp, 'b32')}, {e.use(mask, 'b32')})")
    e.set(value, "b32", f"{result}[0]")
    e.set(valid, "pred", f"{result}[1]")


def _segment(clamp: Array) -> tuple[Array, Array]:
    """The limit within the sub-warp, and the lane bits that name the sub-warp."""
    return clamp & 31, (clamp >> 8) & 31


def shfl_up(lane: Array, clamp: Array) -> tuple[Array, Array]:
    """The source lane and whether it is in range."""
    limit, mask = _segment(clamp)
    source = LANE - (lane & 31)
    inside = source >= ((LANE & mask) | (limit & ~mask))
    return np.where(inside, source, LANE), inside


def shfl_down(lane: Array, clamp: Array) -> tuple[Array, Array]:
    """The source lane and whether it is in range."""
    limit, mask = _segment(clamp)
    source = LANE + (lane & 31)
    inside = source <= ((LANE & mask) | (limit & ~mask))
    return np.where(inside, source, LANE), inside


def shfl_bfly(lane: Array, clamp: Array) -> tuple[Array, Array]:
    """The source lane and whether it is in range."""
    limit, mask = _segment(clamp)
    source = LANE ^ (lane & 31)
    inside = source <= ((LANE & mask) | (limit & ~mask))
    return np.where(inside, source, LANE), inside


def shfl_idx(lane: Array, clamp: Array) -> tuple[Array, Array]:
    """The source lane and whether it is in range."""
    limit, mask = _segment(clamp)
    low = LANE & mask
    source = low | (lane & ~mask & 31)
    inside = source <= (low | (limit & ~mask))
    return np.where(inside, source, LANE), inside


SHUFFLES = {"up": shfl_up, "down": shfl_down, "bfly": shfl_bfly, "idx": shfl_idx}


@instruction("vote")
def vote(e: Emitter, ins: Instruction) -> None:
    """Whether a predicate holds for all or any lane, alike, or where (ballot)."""
    mode = next(m for m in ins.mods if m in ("all", "any", "uni", "ballot"))
    mask = ins.operands[2] if ins.has("sync") else FULL
    source = ins.operands[1]
    assert isinstance(source, (Reg, Not, Imm))
    result = f"warps.vote(g, {mode!r}, {e.use(source, 'pred')}, {e.use(mask, 'b32')})"
    e.set(ins.operands[0], "b32" if mode == "ballot" else "pred", result)


@instruction("activemask")
def activemask(e: Emitter, ins: Instruction) -> None:
    """The lanes that execute this together."""
    e.set(ins.operands[0], "b32", "warps.active(g)")


@instruction("match")
def match(e: Emitter, ins: Instruction) -> None:
    """The lanes that hold the same value."""
    value, agree = _outputs(ins.operands[0])
    kind = ins.type
    source, mask = ins.operands[1:3]
    mode = "all" if ins.has("all") else "any"
    result = e.bind(f"warps.match(g, {mode!r}, {e.use(source, kind)}, {e.use(mask, 'b32')})")
    e.set(value, "b32", f"{result}[0]")
    e.set(agree, "pred", f"{result}[1]")


@instruction("redux")
def redux(e: Emitter, ins: Instruction) -> None:
    """A reduction over the lanes of the mask, given to each of them."""
    operation = next(m for m in ins.mods if m in ("add", "min", "max", "and", "or", "xor"))
    kind = ins.type
    nan = ins.has("NaN")
    result = (f"warps.redux(g, {operation!r}, {e.use(ins.operands[1], kind)}, "
              f"{e.use(ins.operands[2], 'b32')}, {ins.has('abs')}, {nan})")
    e.set(ins.operands[0], kind, result)


@instruction("elect")
def elect(e: Emitter, ins: Instruction) -> None:
    """One lane of the mask: the lowest."""
    lane, chosen = _outputs(ins.operands[0])
    result = e.bind(f"warps.elect(g, {e.use(ins.operands[1], 'b32')})")
    e.set(lane, "b32", f"{result}[0]")
    e.set(chosen, "pred", f"{result}[1]")
