"""Instructions by which the lanes of a warp exchange values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, one_of
from mlgpu.sim.ptx.syntax import Imm, Instruction, Operand, Pair, Sink

Array = np.ndarray[Any, Any]
LANE = np.arange(32, dtype=np.int64)
FULL = Imm(0xFFFFFFFF)


def _outputs(operand: Operand) -> tuple[Operand, Operand]:
    return (operand.first, operand.second) if isinstance(operand, Pair) else (operand, Sink())


def _mask(e: Emitter, ins: Instruction, operands: int) -> str:
    """The lanes that take part: the last operand of the forms with .sync, else all."""
    if len(ins.operands) != operands + ins.has("sync"):
        e.malformed(f"{len(ins.operands)} operands; {ins.opcode}{'.sync' * ins.has('sync')} has "
                    f"{operands + ins.has('sync')}")
    return e.use(ins.operands[operands] if ins.has("sync") else FULL, "b32")


@form("shfl", types="b32", mods="sync up down bfly idx", operands=4, most=5)
def shfl(e: Emitter, ins: Instruction) -> None:
    """A value from another lane, and whether that lane was in range."""
    value, valid = _outputs(ins.operands[0])
    mode = one_of(e, ins, SHUFFLES, "direction")
    names = ", ".join(e.use(operand, "b32") for operand in ins.operands[1:4])
    result = e.bind(f"warps.shuffle(g, {e.fn(SHUFFLES[mode])}, {names}, {_mask(e, ins, 4)})")
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


@form("vote", types="pred b32", mods="sync all any uni ballot", operands=2, most=3)
def vote(e: Emitter, ins: Instruction) -> None:
    """Whether a predicate holds for all or any lane, alike, or where (ballot)."""
    mode = one_of(e, ins, ("all", "any", "uni", "ballot"), "mode")
    result = f"warps.vote(g, {mode!r}, {e.use(ins.operands[1], 'pred')}, {_mask(e, ins, 2)})"
    e.set(ins.operands[0], "b32" if mode == "ballot" else "pred", result)


@form("activemask", types="b32", operands=1)
def activemask(e: Emitter, ins: Instruction) -> None:
    """The lanes that execute this together."""
    e.set(ins.operands[0], "b32", "warps.active(g)")


@form("match", types="b32 b64", mods="sync any all", operands=3)
def match(e: Emitter, ins: Instruction) -> None:
    """The lanes that hold the same value."""
    value, agree = _outputs(ins.operands[0])
    mode = one_of(e, ins, ("all", "any"), "mode")
    if not ins.has("sync") or (mode == "any" and not isinstance(agree, Sink)):
        e.malformed("match.sync.any gives one result, match.sync.all may give a predicate too")
    result = e.bind(f"warps.match(g, {mode!r}, {e.use(ins.operands[1], ins.type)}, "
                    f"{_mask(e, ins, 2)})")
    e.set(value, "b32", f"{result}[0]")
    e.set(agree, "pred", f"{result}[1]")


_REDUX = {"add": ("u32", "s32"), "min": ("u32", "s32", "f32"), "max": ("u32", "s32", "f32"),
          "and": ("b32",), "or": ("b32",), "xor": ("b32",)}


@form("redux", types="u32 s32 b32 f32", mods="sync add min max and or xor abs NaN", operands=3)
def redux(e: Emitter, ins: Instruction) -> None:
    """A reduction over the lanes of the mask, given to each of them."""
    operation, kind = one_of(e, ins, _REDUX, "operation"), ins.type
    magnitude, nan = ins.has("abs"), ins.has("NaN")
    if kind not in _REDUX[operation] or ((magnitude or nan) and kind != "f32"):
        e.malformed(f"redux.{operation} has no such form of .{kind}")
    if not ins.has("sync"):
        e.malformed("redux without .sync")
    result = (f"warps.redux(g, {operation!r}, {e.use(ins.operands[1], kind)}, "
              f"{_mask(e, ins, 2)}, {magnitude}, {nan})")
    e.set(ins.operands[0], kind, result)


@form("elect", mods="sync", operands=2)
def elect(e: Emitter, ins: Instruction) -> None:
    """One lane of the mask: the lowest."""
    lane, chosen = _outputs(ins.operands[0])
    result = e.bind(f"warps.elect(g, {_mask(e, ins, 1)})")
    e.set(lane, "b32", f"{result}[0]")
    e.set(chosen, "pred", f"{result}[1]")
