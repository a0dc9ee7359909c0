"""Writing the Python of a straight line of instructions.

The instructions of a segment become one Python function over arrays: each register is a local name
bound to an array of shape (1 or blocks, 1 or threads), so that what all threads or all blocks have
in common is computed once and broadcasting does the rest.  Values are never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mlgpu.sim.errors import PtxError, UnsupportedError
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Imm, Instruction, Not, Operand, Reg, Sink

if TYPE_CHECKING:
    from mlgpu.sim.code import Code

SPECIAL = frozenset("""
    tid ntid ctaid nctaid laneid warpid nwarpid smid nsmid gridid clock clock_hi clock64
    globaltimer globaltimer_lo globaltimer_hi lanemask_eq lanemask_le lanemask_lt lanemask_ge
    lanemask_gt dynamic_smem_size total_smem_size clusterid nclusterid cluster_ctaid
    cluster_nctaid cluster_ctarank cluster_nctarank is_explicit_cluster current_graph_exec
    aggr_smem_size reserved_smem_offset_begin reserved_smem_offset_end reserved_smem_offset_cap
""".split())

# Registers may be wider than the type here: their low bits count, and results are extended.
WIDER = frozenset({"ld", "ldu", "st", "cvt", "param_move"})


def special(register: str) -> bool:
    """Whether it is the name of a special register, as `%tid.x` is."""
    name = register[1:].split(".")[0]
    return name in SPECIAL or name.startswith("envreg")


class Emitter:
    """What an instruction's function writes with.

    `use` gives the name of an operand's array, `set` binds a destination, `fn` and `const` make
    functions and arrays reachable from the generated code; `fail` refuses what the simulated GPU
    does not have, `malformed` what PTX does not allow.
    """

    code: Code
    segment: int  # the number of the one being written

    def __init__(self, registers: dict[str, str], namespace: dict[str, Any]) -> None:
        self.registers = registers
        self.namespace = namespace
        self.lines: list[str] = []
        self.values: dict[str, tuple[str, np.dtype[Any]]] = {}  # register -> its name and dtype now
        self.read: list[str] = []  # registers that the segment takes from outside, in order
        self.written: list[str] = []  # registers that it sets, in order
        self.ins: Instruction = Instruction("", (), ())
        self._views: dict[tuple[str, np.dtype[Any]], str] = {}
        self._count = 0
        self._functions: dict[Any, str] = {}

    # -- reading ----------------------------------------------------------------------------------

    def use(self, operand: Operand, type: str) -> str:
        """The name of the operand's array, of DTYPES[type]."""
        want = DTYPES[type]
        if isinstance(operand, Imm):
            return self._immediate(operand, type)
        if isinstance(operand, Not):
            if type != "pred":
                self.malformed(f"!{operand.reg.name} where {type} was expected")
            return f"~{self.use(operand.reg, 'pred')}"
        if not isinstance(operand, Reg):
            self.malformed(f"operand {operand} where a register or constant was expected")
        if operand.name not in self.registers and special(operand.name):
            name, have = self.special(operand.name[1:])
            if want.kind == "f" or (have.itemsize != want.itemsize and have.itemsize != 4):
                self.malformed(f"the special register {operand.name} as .{type}")
            return self._convert((name, have), want)
        name, have = self._current(operand)
        if have.kind != "b" and want.kind != "b":
            self._check_width(operand, type)
        return self._convert((name, have), want)

    def _check_width(self, reg: Reg, type: str) -> None:
        """Refuse a register narrower than the type, or wider where that is not allowed."""
        declared = self.registers[reg.name]
        width, wanted = DTYPES[declared].itemsize, DTYPES[type].itemsize
        if width < wanted or (width > wanted and (
                self.ins.opcode not in WIDER or (declared[0] == "f" and type[0] == "f"))):
            self.malformed(f"{reg.name} is a register of .{declared}; {8 * wanted} bits are needed")

    def _current(self, reg: Reg) -> tuple[str, np.dtype[Any]]:
        if reg.name not in self.values:
            if reg.name not in self.registers:
                self.fail(f"the register {reg.name} is not simulated")
            dtype = self.storage(reg.name)
            name = self.fresh()
            self.lines.append(f"{name} = {self.load_register(reg.name)}")
            self.values[reg.name] = name, dtype
            self.read.append(reg.name)
        return self.values[reg.name]

    def _convert(self, value: tuple[str, np.dtype[Any]], want: np.dtype[Any]) -> str:
        name, have = value
        if have == want:
            return name
        if (have.kind == "b") != (want.kind == "b"):
            self.malformed("a predicate where a number was expected" if have.kind == "b" else
                           "a number where a predicate was expected")
        if (name, want) not in self._views:
            view = self.fresh()
            if have.itemsize == want.itemsize:
                self.lines.append(f"{view} = {name}.view({self.fn(want)})")
            elif have.itemsize > want.itemsize:
                # the low bits of a wider register, as in `st.u8 [a], %rs1`
                wide = self._convert(value, np.dtype(f"u{have.itemsize}"))
                narrow = self.fn(np.dtype(f"u{want.itemsize}"))
                self.lines.append(f"{view} = {wide}.astype({narrow}).view({self.fn(want)})")
            else:
                self.malformed(f"a value of {have.itemsize} bytes where {want.itemsize} were "
                               "expected")
            self._views[name, want] = view
        return self._views[name, want]

    def _immediate(self, operand: Imm, type: str) -> str:
        dtype = DTYPES[type]
        if dtype.kind == "b":
            array = np.array([[bool(operand.value)]])
        elif operand.kind == "int" and dtype.kind == "f":
            self.malformed(f"the integer {operand.value} where a floating-point constant was "
                           "expected")
        elif operand.kind == "int":
            wrapped = operand.value & ((1 << 8 * dtype.itemsize) - 1)
            array = np.array([[wrapped]], f"u{dtype.itemsize}").view(dtype)
        else:
            bits = np.array([[operand.value]], "u4" if operand.kind == "f32" else "u8")
            if bits.itemsize == dtype.itemsize:
                array = bits.view(dtype)
            elif dtype.kind == "f":
                array = bits.view(f"f{bits.itemsize}").astype(dtype)
            else:
                self.malformed(f"a floating-point constant where {type} was expected")
        return self.const(array)

    # -- writing ----------------------------------------------------------------------------------

    def set(self, operand: Operand, type: str, expression: str) -> None:
        """Bind a destination to an expression of DTYPES[type].

        A guarded instruction keeps the old value where its predicate is off; a register wider than
        the type, where that is allowed, receives the value sign- or zero-extended.
        """
        if isinstance(operand, Sink):
            return
        if not isinstance(operand, Reg) or operand.name not in self.registers:
            self.malformed(f"{operand} cannot be a destination")
        dtype = DTYPES[type]
        declared = self.registers[operand.name]
        width = DTYPES[declared].itemsize
        if (type == "pred") != (declared == "pred"):
            self.malformed(f"a result of .{type} for {operand.name}, a register of .{declared}")
        self._check_width(operand, type)
        if width > dtype.itemsize:
            wide = np.dtype(f"{dtype.kind if dtype.kind in 'iu' else 'u'}{width}")
            if dtype.kind == "f":
                expression = f"({expression}).view({self.fn(np.dtype(f'u{dtype.itemsize}'))})"
            expression = f"({expression}).astype({self.fn(wide)})"
            dtype = wide
        guard = self.guard()
        if guard:
            old = self._convert(self._current(operand), dtype)
            expression = f"where({guard}, {expression}, {old})"
        name = self.fresh()
        self.lines.append(f"{name} = {expression}")
        self.values[operand.name] = name, dtype
        if operand.name not in self.written:
            self.written.append(operand.name)

    def guard(self) -> str:
        """The expression of the instruction's predicate, or "" where it has none."""
        if self.ins.guard is None:
            return ""
        predicate = self.use(self.ins.guard, "pred")
        return f"~{predicate}" if self.ins.guard_negated else predicate

    def line(self, text: str) -> None:
        """A statement of its own."""
        self.lines.append(text)

    def bind(self, expression: str) -> str:
        """A fresh name bound to an expression."""
        name = self.fresh()
        self.lines.append(f"{name} = {expression}")
        return name

    # -- names ------------------------------------------------------------------------------------

    def fresh(self) -> str:
        """A name not used before."""
        self._count += 1
        return f"v{self._count}"

    def fn(self, thing: Callable[..., Any] | np.dtype[Any]) -> str:
        """The name under which the generated code reaches a function or a dtype."""
        if thing not in self._functions:
            base = getattr(thing, "__name__", None) or np.dtype(thing).name  # type: ignore[arg-type]
            name, n = base, 1
            while name in self.namespace and self.namespace[name] is not thing:
                n += 1
                name = f"{base}_{n}"
            self.namespace[name] = thing
            self._functions[thing] = name
        return self._functions[thing]

    def const(self, array: np.ndarray[Any, Any]) -> str:
        """The name of a constant array."""
        name = f"c_{array.dtype.char}_{array.tobytes().hex()}".replace("?", "p")
        self.namespace[name] = array
        return name

    def fail(self, why: str) -> NoReturn:
        """Refuse the instruction: UnsupportedError naming it and its source line."""
        raise UnsupportedError(f"{self.where()}: {why}")

    def malformed(self, why: str) -> NoReturn:
        """Refuse the instruction as no PTX: PtxError naming it and its source line."""
        raise PtxError(f"{self.where()}: {why}")

    def where(self) -> str:
        """The instruction and its source line."""
        at = self.ins.location
        return f"{self.ins.text or self.ins.opcode} ({at.file}:{at.line})"

    # -- what the code generator provides ---------------------------------------------------------

    def storage(self, register: str) -> np.dtype[Any]:
        """The dtype in which a register is kept between segments."""
        return DTYPES[self.registers[register]]

    def load_register(self, register: str) -> str:
        """The expression that reads a register from outside the segment."""
        raise NotImplementedError

    def special(self, name: str) -> tuple[str, np.dtype[Any]]:
        """The name and dtype of a special register's array."""
        raise NotImplementedError

    def symbol(self, operand: Operand) -> str:
        """The address of a variable or function, a uint64 array."""
        raise NotImplementedError

    def address(self, operand: Operand, type: str = "u64") -> str:
        """An address operand with its offset, a uint64 array."""
        raise NotImplementedError

    def site(self, access: str, space: str, dtype: np.dtype[Any], count: int = 1,
             **flags: Any) -> str:
        """The name of a new site (site.py) for the instruction's access to memory."""
        raise NotImplementedError

    def guarded(self, function: str, *arrays: str) -> str:
        """A call of function(x, g, *arrays) for the threads whose predicate is on."""
        raise NotImplementedError

    def guarded_values(self, function: str, count: int, dtype: np.dtype[Any],
                       *arrays: str) -> str:
        """As `guarded`, for a function that gives `count` arrays: zeros where it is off."""
        raise NotImplementedError

    def warp_call(self, function: Callable[..., Any], sources: list[tuple[Operand, str]],
                  destinations: list[tuple[Operand, str]]) -> None:
        """Call a function of (warps, 32) arrays on the sources, all lanes taking part."""
        raise NotImplementedError
