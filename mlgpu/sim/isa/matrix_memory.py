"""Loads and stores of matrix fragments: ldmatrix, stmatrix, wmma.load, wmma.store."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.memory import space_of
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.numeric.fragments import Wmma, wmma_fragment
from mlgpu.sim.ptx.syntax import Instruction, Reg, Vec


def _count(e: Emitter, ins: Instruction) -> int:
    if not {"sync", "aligned", "m8n8", "b16"} <= {*ins.mods}:
        e.fail("known as .sync.aligned.m8n8 of .b16")
    return next((int(m[1]) for m in ins.mods if m in ("x1", "x2", "x4")), 0)


@instruction("ldmatrix")
def ldmatrix(e: Emitter, ins: Instruction) -> None:
    """8 x 8 matrices from shared memory: each lane names a row, and gets a quarter of one."""
    number = _count(e, ins)
    to, source = ins.operands
    if not isinstance(to, Vec) or len(to.items) != number:
        e.fail(f"{number} registers in braces are needed")
    site = e.site("read", space_of(ins), np.dtype("u4"), 4)
    result = e.bind(f"fragment_memory.ldmatrix(x, g, {e.address(source)}, {site}, {number}, "
                    f"{ins.has('trans')})")
    for i, item in enumerate(to.items):
        e.set(item, "b32", f"{result}[{i}]")


@instruction("stmatrix")
def stmatrix(e: Emitter, ins: Instruction) -> None:
    """The inverse of ldmatrix."""
    number = _count(e, ins)
    to, source = ins.operands
    if not isinstance(source, Vec) or len(source.items) != number:
        e.fail(f"{number} registers in braces are needed")
    site = e.site("write", space_of(ins), np.dtype("u4"), 4)
    registers = ", ".join(e.use(i, "b32") for i in source.items)
    e.line(f"fragment_memory.stmatrix(x, g, {e.address(to)}, {site}, [{registers}], "
           f"{ins.has('trans')})")


def _fragment(e: Emitter, ins: Instruction) -> tuple[Wmma, str]:
    """The fragment and the layout of the matrix in memory."""
    matrix = ins.mods[1]
    shape = next(m for m in ins.mods if m.startswith("m") and m[1].isdigit())
    layout = "row" if ins.has("row") else "col"
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
        e.fail(f"{fragment.registers} registers in braces are needed")
    run = fragment.run(layout)
    site = e.site("read", space_of(ins), np.dtype(f"u{fragment.item}"), run)
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
        e.fail(f"{fragment.registers} registers in braces are needed")
    run = fragment.run(layout)
    site = e.site("write", space_of(ins), np.dtype(f"u{fragment.item}"), run)
    registers = ", ".join(e.use(i, _register(fragment)) for i in source.items)
    e.line(f"fragment_memory.wmma_store(x, g, {e.address(to)}, {site}, {_thing(e, fragment)}, "
           f"{layout!r}, {_stride(e, ins, 2)}, [{registers}])")


def _register(fragment: Wmma) -> str:
    return {"f32": "f32", "f64": "f64", "s32": "s32"}.get(fragment.type, "b32")


def _stride(e: Emitter, ins: Instruction, at: int) -> str:
    """The stride's array, or None for the default."""
    if len(ins.operands) <= at:
        return "None"
    operand = ins.operands[at]
    return e.use(operand, "u32") if not isinstance(operand, Reg) or \
        e.registers.get(operand.name) != "b64" else e.use(operand, "u64")


def _thing(e: Emitter, fragment: Wmma) -> str:
    name = f"fragment{id(fragment)}"
    e.namespace[name] = fragment
    return name
