"""Loads and stores of matrix fragments: ldmatrix, stmatrix, wmma.load, wmma.store."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, one_of
from mlgpu.sim.isa.memory import space_at
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.numeric.fragments import Wmma, wmma_fragment
from mlgpu.sim.ptx.syntax import Instruction, Operand, Vec


def _count(e: Emitter, ins: Instruction) -> int:
    if not {"sync", "aligned", "m8n8", "b16"} <= {*ins.mods}:
        e.fail("known as .sync.aligned.m8n8 of .b16")
    return int(one_of(e, ins, ("x1", "x2", "x4"), "number of matrices")[1])


def _shared(e: Emitter, ins: Instruction, address: Operand) -> str:
    """The address space of ldmatrix and stmatrix: shared memory, or the generic one."""
    space = space_at(e, ins, address)
    if space not in ("", "shared"):
        e.malformed(f"{ins.opcode} works on shared memory")
    return space


_MATRICES = "sync aligned m8n8 m16n16 m8n16 x1 x2 x4 trans shared shared::cta"


@form("ldmatrix", types="b16 b8", mods=_MATRICES, operands=2)
def ldmatrix(e: Emitter, ins: Instruction) -> None:
    """8 x 8 matrices from shared memory: each lane names a row, and gets a quarter of one."""
    number = _count(e, ins)
    to, source = ins.operands
    if not isinstance(to, Vec) or len(to.items) != number:
        e.malformed(f"{number} registers in braces are needed")
    site = e.site("read", _shared(e, ins, source), np.dtype("u4"), 4)
    result = e.bind(f"fragment_memory.ldmatrix(x, g, {e.address(source)}, {site}, {number}, "
                    f"{ins.has('trans')})")
    for i, item in enumerate(to.items):
        e.set(item, "b32", f"{result}[{i}]")


@form("stmatrix", types="b16 b8", mods=_MATRICES, operands=2)
def stmatrix(e: Emitter, ins: Instruction) -> None:
    """The inverse of ldmatrix."""
    number = _count(e, ins)
    to, source = ins.operands
    if not isinstance(source, Vec) or len(source.items) != number:
        e.malformed(f"{number} registers in braces are needed")
    site = e.site("write", _shared(e, ins, to), np.dtype("u4"), 4)
    registers = ", ".join(e.use(i, "b32") for i in source.items)
    e.line(f"fragment_memory.stmatrix(x, g, {e.address(to)}, {site}, [{registers}], "
           f"{ins.has('trans')})")


_SHAPES = ("m16n16k16", "m8n32k16", "m32n8k16", "m16n16k8", "m8n8k4", "m8n8k32", "m8n8k128")
_SPACES = ("global", "shared", "shared::cta")


def _fragment(e: Emitter, ins: Instruction) -> tuple[Wmma, str]:
    """The fragment and the layout of the matrix in memory."""
    if not 2 <= len(ins.operands) <= 3:
        e.malformed(f"wmma.{ins.mods[0]} with {len(ins.operands)} operands")
    matrix = one_of(e, ins, ("a", "b", "c") if ins.has("load") else ("d",), "matrix")
    shape = one_of(e, ins, _SHAPES, "shape")
    layout = one_of(e, ins, ("row", "col"), "layout")
    if not {"sync", "aligned"} <= {*ins.mods}:
        e.malformed("wmma without .sync.aligned")
    known = {ins.mods[0], matrix, shape, layout, ins.type, "sync", "aligned", *_SPACES}
    for mod in ins.mods:
        if mod not in known:
            e.malformed(f"wmma.{ins.mods[0]} has no .{mod}")
    try:
        return wmma_fragment(matrix, shape, ins.type), layout
    except ValueError as error:
        e.fail(str(error))


@instruction("wmma.load")
def wmma_load(e: Emitter, ins: Instruction) -> None:
    """A fragment from memory."""
    fragment, layout = _fragment(e, ins)
    to, source = ins.operands[:2]
    if not isinstance(to, Vec) or len(to.items) != fragment.registers:
        e.malformed(f"{fragment.registers} registers in braces are needed")
    run = fragment.run(layout)
    site = e.site("read", space_at(e, ins, source), np.dtype(f"u{fragment.item}"), run)
    result = e.bind(f"fragment_memory.wmma_load(x, g, {e.address(source)}, {site}, "
                    f"{_thing(e, fragment)}, {layout!r}, {_stride(e, ins, 2)})")
    for i, item in enumerate(to.items):
        e.set(item, _register(fragment), f"{result}[{i}]")


@instruction("wmma.store")
def wmma_store(e: Emitter, ins: Instruction) -> None:
    """A fragment to memory."""
    fragment, layout = _fragment(e, ins)
    to, source = ins.operands[:2]
    if not isinstance(source, Vec) or len(source.items) != fragment.registers:
        e.malformed(f"{fragment.registers} registers in braces are needed")
    run = fragment.run(layout)
    site = e.site("write", space_at(e, ins, to), np.dtype(f"u{fragment.item}"), run)
    registers = ", ".join(e.use(i, _register(fragment)) for i in source.items)
    e.line(f"fragment_memory.wmma_store(x, g, {e.address(to)}, {site}, {_thing(e, fragment)}, "
           f"{layout!r}, {_stride(e, ins, 2)}, [{registers}])")


def _register(fragment: Wmma) -> str:
    return {"f32": "f32", "f64": "f64", "s32": "s32"}.get(fragment.type, "b32")


def _stride(e: Emitter, ins: Instruction, at: int) -> str:
    """The stride's array, or None for the default."""
    if len(ins.operands) <= at:
        return "None"
    return e.use(ins.operands[at], "u32")


def _thing(e: Emitter, fragment: Wmma) -> str:
    name = f"fragment{id(fragment)}"
    e.namespace[name] = fragment
    return name
