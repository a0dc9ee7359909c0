"""Asynchronous copies: cp.async, cp.async.bulk, cp.reduce.async.bulk, and their waits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import one_of
from mlgpu.sim.isa.memory import space_at
from mlgpu.sim.isa.registry import Emit, instruction
from mlgpu.sim.ptx.syntax import Imm, Instruction, Not, Operand, Reg

_FORMS: dict[str, tuple[frozenset[str], range, Emit]] = {}
_CACHE = "L2::cache_hint L2::64B L2::128B L2::256B"
_SPACES = ("shared", "shared::cta", "shared::cluster", "global")


def _kind(name: str, mods: str, operands: int, most: int = 0) -> Callable[[Emit], Emit]:
    """Declare the function that emits one kind of cp, and what it looks like."""
    def declare(emit: Emit) -> Emit:
        known = frozenset((*mods.split(), *name.split(".")))
        _FORMS[name] = known, range(operands, (most or operands) + 1), emit
        return emit
    return declare


@instruction("cp")
def cp(e: Emitter, ins: Instruction) -> None:
    """Every instruction whose name begins with cp."""
    if ins.has("tensor"):
        e.fail("copies through tensor maps are not simulated yet; use cp.async.bulk of rows")
    if ins.has("multicast::cluster"):
        e.fail("copies to several blocks of a cluster are not simulated")
    kind = max((name for name in _FORMS if {*name.split(".")} <= {*ins.mods}), key=len, default="")
    if not kind:
        e.malformed("a copy without .async")
    known, operands, emit = _FORMS[kind]
    for mod in ins.mods:
        if mod not in known:
            e.malformed(f"cp.{kind} has no .{mod}")
    if len(ins.operands) not in operands:
        e.malformed(f"cp.{kind} with {len(ins.operands)} operands")
    emit(e, ins)


@_kind("async.commit_group", "", 0)
@_kind("async.bulk.commit_group", "", 0)
def _commit(e: Emitter, ins: Instruction) -> None:
    e.line(e.guarded("copies.commit", repr("bulk" if ins.has("bulk") else "async")))


@_kind("async.wait_all", "", 0)
@_kind("async.wait_group", "", 1)
@_kind("async.bulk.wait_group", "read", 1)
def _wait(e: Emitter, ins: Instruction) -> None:
    allowed = None
    if ins.operands:
        number = ins.operands[0]
        if not isinstance(number, Imm) or number.kind != "int" or not (
                0 <= number.value < 1 << 31):
            e.malformed("the number of groups to leave must be a small constant")
        allowed = number.value
    e.line(e.guarded("copies.wait", repr("bulk" if ins.has("bulk") else "async"), repr(allowed),
                     repr(ins.has("read"))))


@_kind("async.mbarrier.arrive", "noinc b64 shared shared::cta", 1)
def _arrive(e: Emitter, ins: Instruction) -> None:
    if space_at(e, ins, ins.operands[0]) not in ("", "shared"):
        e.malformed("an mbarrier lies in shared memory")
    site = e.site("atomic", "shared", np.dtype("u8"), strong=True)
    e.line(e.guarded("copies.arrive", e.address(ins.operands[0]), site, repr(ins.has("noinc"))))


@_kind("async", f"ca cg shared shared::cta global {_CACHE}", 3, 5)
def _async(e: Emitter, ins: Instruction) -> None:
    to, source, size, *rest = ins.operands
    kept = one_of(e, ins, ("ca", "cg"), "caching")
    sizes = (16,) if kept == "cg" else (4, 8, 16)
    if _direction(e, ins) != ["shared", "global"]:
        e.malformed("cp.async copies from global to shared memory")
    if not isinstance(size, Imm) or size.value not in sizes:
        e.malformed(f"the size of cp.async.{kept} must be {' or '.join(map(str, sizes))}")
    if ins.has("L2::cache_hint"):
        if not rest:
            e.malformed(".L2::cache_hint without a policy")
        rest.pop()
    if len(rest) > 1:
        e.malformed("too many operands")
    _in(e, to, "shared")
    _in(e, source, "global")
    count = size.value // 4
    read = e.site("read", "global", np.dtype("u4"), count)
    write = e.site("write", "shared", np.dtype("u4"), count)
    take = "None"
    if rest:
        given = rest[0]
        if isinstance(given, Not) or (isinstance(given, Reg)
                                      and e.registers.get(given.name) == "pred"):
            take = f"where({e.use(given, 'pred')}, 0, {size.value})"  # ignore-src
        elif isinstance(given, Imm) and not 0 <= given.value <= size.value:
            e.malformed(f"{given.value} bytes of {size.value}")
        else:
            take = e.use(given, "u32")
        take = e.bind(take)
    e.line(e.guarded("copies.cp_async", e.address(to), e.address(source), read, write, take))


def _direction(e: Emitter, ins: Instruction) -> list[str]:
    """The address spaces that the copy names: to, from."""
    return [m.split("::")[0] for m in ins.mods if m in _SPACES]


def _in(e: Emitter, address: Operand, space: str) -> None:
    """Refuse an address without brackets, or a variable that lies elsewhere."""
    space_at(e, Instruction(e.ins.opcode, (space,), ()), address)


@_kind("async.bulk", f"{' '.join(_SPACES)} mbarrier::complete_tx::bytes bulk_group {_CACHE}", 3, 5)
def _bulk(e: Emitter, ins: Instruction) -> None:
    spaces = _direction(e, ins)
    if spaces == ["global", "shared"]:
        _bulk_store(e, ins)
        return
    if spaces != ["shared", "global"]:
        e.fail("bulk copies between these spaces are not simulated")
    if not ins.has("mbarrier::complete_tx::bytes") or len(ins.operands) != 4 + ins.has(
            "L2::cache_hint"):
        e.malformed("a bulk copy to shared memory takes two addresses, a size and an mbarrier")
    to, source, size, barrier = ins.operands[:4]
    _in(e, to, "shared")
    _in(e, source, "global")
    _in(e, barrier, "shared")
    read = e.site("read", "global", np.dtype("u4"), 4)
    write = e.site("write", "shared", np.dtype("u4"), 4)
    e.line(e.guarded("copies.bulk_load", e.address(to), e.address(source), e.use(size, "u32"),
                     e.address(barrier), read, write))


@_kind("async.bulk.prefetch", f"L2 global {_CACHE}", 2, 3)
def _prefetch(e: Emitter, ins: Instruction) -> None:
    """A hint."""


_HALVES = ("f16", "bf16")
_REDUCED = {"add": ("u32", "s32", "u64", "f32", "f64", *_HALVES), "and": ("b32", "b64"),
            "min": ("u32", "s32", "u64", "s64", *_HALVES), "or": ("b32", "b64"),
            "max": ("u32", "s32", "u64", "s64", *_HALVES), "xor": ("b32", "b64"),
            "inc": ("u32",), "dec": ("u32",)}


@_kind("reduce.async.bulk", f"""{' '.join(_SPACES)} bulk_group add min max and or xor inc dec noftz
       u32 s32 u64 s64 b32 b64 f16 bf16 f32 f64 {_CACHE}""", 3, 4)
def _bulk_store(e: Emitter, ins: Instruction) -> None:
    operation = ""
    if ins.has("reduce"):
        operation = one_of(e, ins, _REDUCED, "operation")
        if ins.type not in _REDUCED[operation]:
            e.malformed(f"{operation} has no .{ins.type}")
    if _direction(e, ins) != ["global", "shared"]:
        e.fail("bulk reductions between these spaces are not simulated")
    if not ins.has("bulk_group") or len(ins.operands) != 3 + ins.has("L2::cache_hint"):
        e.malformed("a bulk copy to global memory takes two addresses and a size, and .bulk_group")
    to, source, size = ins.operands[:3]
    _in(e, to, "global")
    _in(e, source, "shared")
    read = e.site("read", "shared", np.dtype("u4"), 4)
    write = e.site("write", "global", np.dtype("u4"), 4, strong=bool(operation))
    e.line(e.guarded("copies.bulk_store", e.address(to), e.address(source), e.use(size, "u32"),
                     read, write, repr(operation), repr(ins.type)))
