"""Runs a few PTX instructions through the emitter: what the tests of instructions share."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlgpu.sim import isa
from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import INSTRUCTIONS
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.ptx.syntax import SIZES, Instruction, Operand, Sym

# The families of instructions that need no machine around them.
_FAMILIES = """bits carry compare convert floating integer logic move multiply permute
    video""".split()
for _found in pkgutil.iter_modules(isa.__path__):
    if _found.name in _FAMILIES:
        importlib.import_module(f"{isa.__name__}.{_found.name}")


class Straight(Emitter):
    """An emitter whose registers come from a dict of arrays, with symbols at given addresses."""

    def __init__(self, registers: Mapping[str, str], symbols: Mapping[str, int]) -> None:
        super().__init__(dict(registers), {"np": np, "where": np.where})
        self.symbols = symbols

    def load_register(self, register: str) -> str:
        return f"given[{register!r}]"

    def special(self, name: str) -> tuple[str, np.dtype[Any]]:
        self.fail(f"no special register {name} in a test of straight lines")

    def symbol(self, operand: Operand) -> str:
        assert isinstance(operand, Sym)
        address = self.symbols[operand.name] + operand.offset
        return self.const(np.array([[address]], np.uint64))


def run_line(text: str | Sequence[Instruction], registers: Mapping[str, str],
             inputs: Mapping[str, Any], symbols: Mapping[str, int] | None = None,
             ) -> dict[str, np.ndarray[Any, Any]]:
    """The registers that the instructions write, as arrays of their declared types.

    An input is an array of the register's dtype, or of another dtype as wide (then its bits are
    taken), or Python numbers; one of one dimension stands for the threads of one block.
    """
    emitter = Straight(registers, symbols or {})
    for ins in instructions(text, registers, symbols or {}) if isinstance(text, str) else text:
        emitter.ins = ins
        INSTRUCTIONS[ins.opcode](emitter, ins)
    given = {name: _input(value, DTYPES[registers[name]]) for name, value in inputs.items()}
    before = {name: value.copy() for name, value in given.items()}
    scope = dict(emitter.namespace, given=given)
    with np.errstate(all="ignore"):
        exec("\n".join(emitter.lines), scope)
    for name, value in before.items():
        assert value.tobytes() == given[name].tobytes(), f"{name} was changed in place"
    shape = np.broadcast_shapes((1, 1), *(value.shape for value in given.values()))
    results = {}
    for register in emitter.written:
        name, dtype = emitter.values[register]
        value = scope[name]
        assert isinstance(value, np.ndarray), f"{register} is a {type(value).__name__}"
        assert value.dtype == dtype, f"{register} is {value.dtype}, declared {dtype}"
        assert value.ndim == 2, f"{register} has the shape {value.shape}"
        assert np.broadcast_shapes(value.shape, shape) == shape, f"{register}: {value.shape}"
        results[register] = value.view(DTYPES[emitter.registers[register]])
    return results


def instructions(text: str, registers: Mapping[str, str],
                 symbols: Mapping[str, int]) -> list[Instruction]:
    """The instructions of a text without labels, as of line 1 of test.cu."""
    variables = "".join(f".global .align 16 .b8 {name}[64];\n" for name in symbols)
    declared = "".join(f".reg .{'pred' if type == 'pred' else f'b{8 * SIZES[type]}'} {name};\n"
                       for name, type in registers.items())
    module = parse(f""".version 8.8
        .target sm_120a
        .address_size 64
        .file 1 "test.cu"
        {variables}
        .visible .entry kernel() {{
        {declared}
        .loc 1 1 0
        {text.rstrip(" ;")};
        }}""")
    body = module.functions["kernel"].body
    assert body is not None
    assert all(isinstance(statement, Instruction) for statement in body)
    return body  # type: ignore[return-value]


def _input(value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray):
        value = np.array(value, dtype)
    assert value.dtype.itemsize == dtype.itemsize, f"{value.dtype} for a register of {dtype}"
    return np.atleast_2d(np.ascontiguousarray(value).view(dtype))
