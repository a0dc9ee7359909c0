"""Runs a few PTX instructions through the emitter: what the tests of instructions share."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlgpu.sim import isa
from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import INSTRUCTIONS
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import (
    Imm,
    Instruction,
    Location,
    Mem,
    Not,
    Operand,
    Pair,
    Reg,
    Sink,
    Sym,
    Vec,
)

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
    for ins in parse(text) if isinstance(text, str) else text:
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


def _input(value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray):
        value = np.array(value, dtype)
    assert value.dtype.itemsize == dtype.itemsize, f"{value.dtype} for a register of {dtype}"
    return np.atleast_2d(np.ascontiguousarray(value).view(dtype))


# -- PTX text -------------------------------------------------------------------------------------

def parse(text: str) -> list[Instruction]:
    """The instructions of a text without labels and directives."""
    return [_instruction(line) for line in text.split(";") if line.strip()]


def _instruction(text: str) -> Instruction:
    text = " ".join(text.split())
    guard, negated = None, False
    found = re.match(r"@(!?)(%\w+) (.*)", text)
    if found:
        negated, guard, text = bool(found[1]), Reg(found[2]), found[3]
    head, _, rest = text.partition(" ")
    opcode, *mods = head.split(".")
    operands = tuple(_operand(part) for part in _split(rest, ","))
    return Instruction(opcode, tuple(mods), operands, guard, negated, Location("test.cu", 1), text)


def _split(text: str, at: str) -> list[str]:
    """The parts between commas that no bracket encloses."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "{[(") - (char in "}])")
        if char == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _operand(text: str) -> Operand:
    if text == "_":
        return Sink()
    if text.startswith("{"):
        return Vec(tuple(_operand(part) for part in _split(text[1:-1], ",")))
    if "|" in text:
        first, second = text.split("|")
        return Pair(_operand(first.strip()), _operand(second.strip()))
    if text.startswith("!"):
        return Not(Reg(text[1:].strip()))
    if text.startswith("%"):
        return Reg(text)
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        return Mem(_operand(base.strip()), int(offset or 0))  # type: ignore[arg-type]
    if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
        return Imm(int(text[2:], 16), "f32")
    if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
        return Imm(int(text[2:], 16), "f64")
    if re.match(r"-?\d+\.\d*(e[+-]?\d+)?$", text):
        return Imm(int(np.float64(text).view(np.uint64)), "f64")
    if re.match(r"-?\d", text):
        digits = text.rstrip("Uu")
        octal = re.match(r"-?0[0-7]+$", digits)
        return Imm(int(digits, 8 if octal else 0))
    name, _, offset = text.partition("+")
    return Sym(name.strip(), int(offset or 0))
