"""Loads, stores, atomics and reductions."""

from __future__ import annotations

import numpy as np

from mlgpu.sim import access, atomics
from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import SIZES, Instruction, Mem, Operand, Sink, Sym, Vec

STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio")
SPACES = {"global": "global", "const": "const", "shared": "shared", "shared::cta": "shared",
          "shared::cluster": "shared", "local": "local", "param": "param", "param::entry": "param",
          "param::func": "param"}
LOADS = {"global": access.load_global, "const": access.load_global, "shared": access.load_shared,
         "local": access.load_local, "": access.load_generic, "param": access.load_global}
STORES = {"global": access.store_global, "shared": access.store_shared,
          "local": access.store_local, "": access.store_generic}
RAW = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def space_of(ins: Instruction) -> str:
    """The address space that the instruction names ("" for the generic one)."""
    return next((SPACES[m] for m in ins.mods if m in SPACES), "")


def flags_of(ins: Instruction) -> dict[str, object]:
    """How the access orders others: strong, acquire, release, and its scope."""
    scope = next((m for m in ("cta", "cluster", "gpu", "sys") if m in ins.mods), "gpu")
    return {"strong": any(m in ins.mods for m in STRONG),
            "acquire": ins.has("acquire") or ins.has("acq_rel"),
            "release": ins.has("release") or ins.has("acq_rel"), "scope": scope}


def element(ins: Instruction) -> np.dtype[np.generic]:
    """The dtype of an element in memory."""
    dtype = DTYPES[ins.type]
    return np.dtype("u2") if dtype == np.float16 else dtype


@instruction("ld", "ldu")
def load(e: Emitter, ins: Instruction) -> None:
    """A load into one register or a vector of them."""
    space, kind = space_of(ins), ins.type
    to, source = ins.operands[:2]
    items: tuple[Operand, ...] = to.items if isinstance(to, Vec) else (to,)
    if space == "param" and isinstance(source, Mem) and isinstance(source.base, Sym) \
            and source.base.name in e.code.param_offsets:
        at = e.code.param_offsets[source.base.name] + source.base.offset + source.offset
        for i, item in enumerate(items):
            e.set(item, kind, f"x.param({at + i * SIZES[kind]}, {e.fn(DTYPES[kind])})")
        return
    if kind == "b128":
        raise ValueError("128-bit elements")
    dtype = element(ins)
    flags = flags_of(ins)
    if source in e.code.guesses:
        flags["strong"] = True
    site = e.site("read", "const" if space == "param" else space, dtype, len(items), **flags)
    raw = RAW[dtype.itemsize] if DTYPES[kind].kind == "f" and dtype.itemsize == 2 else kind
    address = e.address(source)
    function = f"access.{LOADS[space].__name__}"
    result = e.bind(e.guarded_values(function, len(items), dtype, address, site))
    for i, item in enumerate(items):
        e.set(item, raw, f"{result}[{i}]")


@instruction("st")
def store(e: Emitter, ins: Instruction) -> None:
    """A store from one register or a vector of them."""
    space, kind = space_of(ins), ins.type
    target, source = ins.operands[:2]
    items: tuple[Operand, ...] = source.items if isinstance(source, Vec) else (source,)
    dtype = element(ins)
    raw = RAW[dtype.itemsize] if DTYPES[kind].kind == "f" and dtype.itemsize == 2 else kind
    site = e.site("write", space, dtype, len(items), **flags_of(ins))
    values = ", ".join(e.use(i, raw) for i in items)
    address = e.address(target)
    e.line(e.guarded(f"access.{STORES[space].__name__}", address, site, f"[{values}]"))


@instruction("atom", "red")
def atomic(e: Emitter, ins: Instruction) -> None:
    """A read-modify-write; `red` gives no old value back."""
    operation = next(m for m in ins.mods if m in atomics.OPERATIONS)
    kind, space = ins.type, space_of(ins)
    operands = list(ins.operands)
    to = operands.pop(0) if ins.opcode == "atom" else Sink()
    address = e.address(operands.pop(0))
    width = 2 if ins.has("v2") else 4 if ins.has("v4") else 8 if ins.has("v8") else 1
    raw = RAW[SIZES[kind]] if DTYPES[kind].kind != "f" or SIZES[kind] == 2 else kind
    if operation in ("min", "max", "add") and DTYPES[kind].kind == "i":
        raw = kind
    flags = flags_of(ins) | {"strong": True}
    site = e.site("atomic", space, DTYPES[raw], width, **flags)
    wanted = 2 if operation == "cas" else 1
    values = []
    for operand in operands[:wanted]:
        items = operand.items if isinstance(operand, Vec) else (operand,)
        values.append("[" + ", ".join(e.use(i, raw) for i in items) + "]")
    result = not isinstance(to, Sink)
    found = e.bind(e.guarded_values("atomics.atomic", width, DTYPES[raw], address, site,
                                    repr(operation), repr(kind), str(result), *values))
    if result:
        for i, item in enumerate(to.items if isinstance(to, Vec) else (to,)):
            e.set(item, raw, f"{found}[{i}]")
