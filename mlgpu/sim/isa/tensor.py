"""Instructions of the tensor cores: products of matrices spread over a warp, and transposes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import INSTRUCTIONS, instruction
from mlgpu.sim.numeric.fragments import movmatrix
from mlgpu.sim.numeric.mma import Product
from mlgpu.sim.numeric.mma_forms import mma_function, wmma_function
from mlgpu.sim.ptx.syntax import Instruction, Operand, Vec

Array = np.ndarray[Any, Any]
Flat = Callable[[list[Array]], list[Array]]


@instruction("mma")
def mma(e: Emitter, ins: Instruction) -> None:
    """D = A B + C, its fragments laid out as the manual's figures have them."""
    _product(e, ins, mma_function)


@instruction("wmma")
def wmma(e: Emitter, ins: Instruction) -> None:
    """D = A B + C on fragments that `wmma.load` filled; load and store have entries of their own
    in the table, "wmma.load" and "wmma.store"."""
    if ins.has("mma"):
        _product(e, ins, wmma_function)
        return
    emit = INSTRUCTIONS.get(f"wmma.{ins.mods[0]}") if ins.mods else None
    if emit is None:
        e.fail("this instruction is not known to the simulated GPU")
    emit(e, ins)


@instruction("movmatrix")
def transpose(e: Emitter, ins: Instruction) -> None:
    """An 8 x 8 matrix of 16-bit elements, transposed."""
    if {*ins.mods} != {"sync", "aligned", "m8n8", "trans", "b16"} or len(ins.operands) != 2:
        e.fail("movmatrix is known as .sync.aligned.m8n8.trans.b16 of two registers")
    e.warp_call(_transposed, [(ins.operands[1], "b32")], [(ins.operands[0], "b32")])


def _transposed(registers: list[Array]) -> list[Array]:
    return [movmatrix(registers[0])]


@cache
def _known(factory: Callable[[tuple[str, ...]], Product],
           mods: tuple[str, ...]) -> tuple[Product, Flat]:
    product = factory(mods)
    return product, product.flat  # kept, so that all uses of the form share one name


def _product(e: Emitter, ins: Instruction,
             factory: Callable[[tuple[str, ...]], Product]) -> None:
    try:
        product, function = _known(factory, ins.mods)
    except ValueError as error:
        e.fail(str(error))
    matrices = (product.d, product.a, product.b, product.c)
    if len(ins.operands) != (8 if product.chunks else 4):
        e.fail(f"{len(ins.operands)} operands")
    registers: list[list[tuple[Operand, str]]] = []
    for operand, matrix, name in zip(ins.operands, matrices, "DABC", strict=False):
        if not isinstance(operand, Vec) or len(operand.items) != matrix.registers:
            e.fail(f"{name} takes {matrix.registers} registers in braces")
        registers.append([(item, matrix.register) for item in operand.items])
    d, a, b, c = registers
    e.warp_call(function, [*a, *b, *c, *_scales(e, ins.operands[4:])], d)


def _scales(e: Emitter, operands: tuple[Operand, ...]) -> list[tuple[Operand, str]]:
    """The scales' data and selectors: of A, then of B."""
    found: list[tuple[Operand, str]] = []
    for data, selectors in zip(operands[::2], operands[1::2], strict=True):
        if not isinstance(selectors, Vec) or len(selectors.items) != 2:
            e.fail("a scale is selected by {byte-id, thread-id}")
        byte, thread = selectors.items
        found += [(data, "b32"), (byte, "u16"), (thread, "u16")]
    return found
