"""A kernel's segments written as Python functions.

`Code` (code.py) says where things lie; here every segment's instructions are emitted, and what the
segment reads and leaves in registers is put around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mlgpu.sim import access, atomics, copies, fragment_memory, intrinsics, mbarriers, warps
from mlgpu.sim.emit import Emitter
from mlgpu.sim.errors import SimError
from mlgpu.sim.flow import Segment, converges, predicate
from mlgpu.sim.isa import INSTRUCTIONS, classes, targets
from mlgpu.sim.isa.sync import check_barrier
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Args, Imm, Instruction, Mem, Operand, Reg, Sym, Target
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.code import Code

Array = np.ndarray[Any, Any]

SPECIALS = {"pred": ("is_explicit_cluster",),
            "u64": ("clock64", "globaltimer", "gridid", "current_graph_exec")}
VOLATILE = frozenset({"clock", "clock64", "clock_hi", "globaltimer", "globaltimer_lo",
                      "globaltimer_hi"})
# What reading operands that an instruction does not have raises.
_UNFIT = AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError
# What generated code calls by module.
MODULES = {m.__name__.rpartition(".")[2]: m for m in (
    access, atomics, copies, fragment_memory, intrinsics, mbarriers, warps)}


class Written:
    """A segment's function as text, which is called with the batch and the group that runs it.

    Python compiles it when the segment first runs: most never do.
    """

    __slots__ = ("name", "namespace", "text")

    def __init__(self, name: str, text: str, namespace: dict[str, Any]) -> None:
        self.name, self.text, self.namespace = name, text, namespace

    def compiled(self) -> Callable[..., Any]:
        """The function."""
        made: dict[str, Callable[..., Any]] = {}
        exec(compile(self.text, f"<{self.name}>", "exec"), self.namespace, made)
        return made["segment"]


def functions(code: Code, parts: list[Segment]) -> list[Written]:
    """The function of each segment."""
    namespace: dict[str, Any] = {"np": np, "where": np.where, **MODULES}
    written: list[KernelEmitter] = []
    for part in parts:
        e = KernelEmitter(code, part, namespace)
        for ins in part.instructions:
            e.emit(ins)
        e.finish()
        written.append(e)
    result: list[Written] = []
    for part, e, out in zip(parts, written, live_after(parts, written), strict=True):
        stores = [f"g.write(R, {code.number(r)}, {e.stored(r)})" for r in e.written if r in out]
        text = "\n    ".join(("def segment(x, g):", "R = x.R; rd = g.read", *e.lines[:e.end_at],
                              *e.late, *stores, *e.lines[e.end_at:]))
        result.append(Written(f"{code.name} {part.number}", text, namespace))
    return result


class KernelEmitter(Emitter):
    def __init__(self, code: Code, part: Segment, namespace: dict[str, Any]) -> None:
        super().__init__(code.registers, namespace)
        self.code = code
        self.part = part
        self.segment = part.number
        self.end_at = 0
        self.late: list[str] = []
        self._specials: dict[str, str] = {}

    def emit(self, ins: Instruction) -> None:
        """Write one instruction."""
        self.ins = ins
        emit = INSTRUCTIONS.get(ins.opcode)
        if emit is None:
            self.fail("this instruction is not known to the simulated GPU")
        if ins.guard is not None:
            number = len(self.code.guarded)
            self.code.guarded.append(ins)
            self.line(f"x.counters.guard(x, g, {number}, {self.guard()})")
        classes.check(self, ins)
        targets.check(self, ins, self.code.target)
        try:
            emit(self, ins)
        except SimError:
            raise
        except _UNFIT as error:
            self._unfit(error)

    def _unfit(self, error: Exception) -> NoReturn:
        """Operands that do not fit the opcode are the fault of the PTX, not of the machine."""
        why = f": {error}" if isinstance(error, ValueError) else ""
        self.malformed(f"operands or modifiers that do not fit {self.ins.opcode}{why}")

    def finish(self) -> None:
        """Write the segment's end."""
        self.ins = self.part.end or Instruction("", (), ())
        try:
            result = self._way_out(self.part, self.part.end)
        except SimError:
            raise
        except _UNFIT as error:
            self._unfit(error)
        self.end_at = len(self.lines)
        self.lines.append(f"return {result}")

    def _way_out(self, part: Segment, ins: Instruction | None) -> str:
        """What the segment's function returns: who goes on where."""
        if ins is None:
            return f"(({part.next}, g),)"
        if ins.opcode in ("bar", "barrier"):
            return self._barrier(part, ins)
        if ins.opcode in ("bra", "ret", "exit", "trap") and (
                set(ins.mods) - {"uni"} or len(ins.operands) != (ins.opcode == "bra")):
            self.malformed(f"operands or modifiers that {ins.opcode} does not have")
        if ins.opcode == "bra":
            return self._branch(part, ins)
        if ins.opcode == "brx":
            if set(ins.mods) - {"idx", "uni"} or not ins.has("idx"):
                self.malformed("the indexed branch is brx.idx")
            index = self.use(ins.operands[0], "u32")
            return f"x.table(g, {index}, {part.targets!r}, {part.number})"
        if ins.opcode in ("ret", "exit"):
            if ins.guard is None:
                return "x.exit(g)"
            return f"x.exit_some(g, {self.use(predicate(ins), 'pred')}, {part.next})"
        if ins.opcode == "trap":
            return f"intrinsics.trap(x, g, {part.number})"
        if ins.opcode == "bad_call":
            return f"intrinsics.bad_call(x, g, {self.use(ins.operands[0], 'u64')}, {part.number})"
        args = ins.operands[1]  # of __assertfail
        assert isinstance(args, Args)
        a = [self.use(o, t) for o, t in zip(args.items, ("u64", "u64", "u32", "u64", "u64"),
                                            strict=True)]
        return f"intrinsics.assert_fail(x, g, {', '.join(a[:4])}, {part.number})"

    def _branch(self, part: Segment, ins: Instruction) -> str:
        if ins.guard is None:
            target = part.targets[0]
            if part.polls and part.loop == target:
                return f"x.turn({part.number}, {target}, g)"
            return f"(({target}, g),)"
        ways = (f"g, {self.use(predicate(ins), 'pred')}, {part.targets[0]}, {part.next}, "
                f"{-1 if part.hidden else part.number}")
        return f"x.branch_polling({ways}, {part.loop})" if part.polls else f"x.branch({ways})"

    def _barrier(self, part: Segment, ins: Instruction) -> str:
        check_barrier(self, ins)
        operands = list(ins.operands)
        vote = ""
        if ins.has("red"):  # the next segment finds the result (isa/sync.py)
            vote = f", vote={self.use(operands.pop(), 'pred')}"
            operands.pop(0)
        number = self.use(operands[0], "u32")
        count = self.use(operands[1], "u32") if len(operands) > 1 else "None"
        aligned = ins.opcode == "bar" or ins.has("aligned")
        return (f"x.barriers.come(g, {number}, {count}, {part.number}, {part.next}, "
                f"{aligned}{vote})")

    # -- what instructions ask for ----------------------------------------------------------------

    def storage(self, register: str) -> np.dtype[Any]:
        """The dtype in which a register is kept between segments."""
        return self.code.storages[register]

    def load_register(self, register: str) -> str:
        """The expression that reads a register."""
        return f"rd(R[{self.code.number(register)}])"

    def stored(self, register: str) -> str:
        """The register's value at the end, in its storage dtype."""
        before = len(self.lines)
        name = self._convert(self.values[register], self.storage(register))
        self.late += self.lines[before:]
        del self.lines[before:]
        return name

    def special(self, name: str) -> tuple[str, np.dtype[Any]]:
        """A special register's value."""
        kind = next((t for t, names in SPECIALS.items() if name.split(".")[0] in names), "u32")
        if name.startswith("reserved_smem"):
            self.fail("shared memory that the system reserves is not simulated")
        if name in VOLATILE:
            return self.bind(f"x.time({name!r})"), DTYPES[kind]
        if name not in self._specials:
            self._specials[name] = self.bind(f"rd(x.special[{name!r}])")
        return self._specials[name], DTYPES[kind]

    def symbol(self, operand: Operand) -> str:
        """The address of a variable, a uint64 array."""
        if isinstance(operand, (Sym, Target)):
            offset = operand.offset if isinstance(operand, Sym) else 0
            if operand.name in self.code.param_offsets:
                return self.bind(f"x.param_address({self.code.param_offsets[operand.name]} + "
                                 f"{offset})")
            if operand.name in self.code.symbols:
                return self.use(Imm(self.code.symbols[operand.name] + offset), "u64")
            self.fail(f"unknown variable {operand.name}")
        self.fail(f"{operand} where a variable was expected")
        return None

    def address(self, operand: Operand, type: str = "u64") -> str:
        """An address, a uint64 array."""
        offset = 0
        if isinstance(operand, Mem):
            offset = operand.offset
            operand = operand.base
        declared = self.registers.get(operand.name, "u64") if isinstance(operand, Reg) else ""
        if declared.startswith("f"):
            self.malformed(f"a register of .{declared} as an address")
        if declared and DTYPES[declared].itemsize == 4:
            # 32-bit addresses wrap around at 32 bits, offset included
            base = self.use(operand, "u32")
            if offset:
                base = f"({base} + {self.use(Imm(offset), 'u32')})"
            return self.bind(f"{base}.astype({self.fn(np.dtype('u8'))})")
        if offset:
            return self.bind(f"{self.address(operand)} + {self.use(Imm(offset), 'u64')}")
        if isinstance(operand, Reg):
            return self.use(operand, "u64")
        if isinstance(operand, Imm):
            return self.use(operand, "u64")
        return self.symbol(operand)

    def site(self, access: str, space: str, dtype: np.dtype[Any], count: int = 1,
             **flags: Any) -> str:
        """The name of a new site for the instruction."""
        site = Site(len(self.code.sites), self.ins.text, self.ins.location, access, space, dtype,
                    count, **flags)
        self.code.sites.append(site)
        self.code.sited.append(self.ins)
        name = f"site{site.number}"
        self.namespace[name] = site
        return name

    def guarded(self, function: str, *arrays: str) -> str:
        """A call of function(x, g, *arrays) for the threads whose predicate is on."""
        guard = self.guard()
        if guard:
            return f"access.guarded({function}, x, g, {guard}, {', '.join(arrays)})"
        return f"{function}(x, g, {', '.join(arrays)})"

    def guarded_values(self, function: str, count: int, dtype: np.dtype[Any],
                       *arrays: str) -> str:
        """As `guarded`, for a function that gives `count` arrays: zeros where it is off."""
        guard = self.guard()
        if guard:
            zeros = ", ".join([self.const(np.zeros((1, 1), dtype))] * count)
            return (f"access.guarded_values({function}, x, g, {guard}, [{zeros}], "
                    f"{', '.join(arrays)})")
        return f"{function}(x, g, {', '.join(arrays)})"

    def warp_call(self, function: Callable[..., Any], sources: list[tuple[Operand, str]],
                  destinations: list[tuple[Operand, str]]) -> None:
        """Call a function of (warps, 32) arrays on the sources, all lanes taking part."""
        names = ", ".join(self.use(o, t) for o, t in sources)
        result = self.bind(f"warps.warp_call(x, g, {self.fn(function)}, ({names},))")
        for i, (operand, kind) in enumerate(destinations):
            self.set(operand, kind, f"{result}[{i}]")


def mask_operand(ins: Instruction) -> Operand | None:
    """The operand that names the lanes (None: all)."""
    if ins.opcode in ("mma", "wmma", "ldmatrix", "stmatrix", "movmatrix"):
        return None
    if ins.opcode in ("bar", "barrier"):
        return ins.operands[0]
    if not ins.has("sync") and ins.opcode != "elect":
        return None  # the forms without a mask, from before Volta
    return ins.operands[-1]


def storages(parts: list[Segment], registers: dict[str, str]) -> dict[str, np.dtype[Any]]:
    """The dtype in which each register is kept: that of its definitions, to spare views."""
    floats: dict[str, bool] = {}
    for part in parts:
        for ins in part.instructions:
            if ins.operands and isinstance(ins.operands[0], Reg) and ins.opcode != "st":
                name = ins.operands[0].name
                is_float = (ins.type in ("f32", "f64") and ins.opcode not in (
                    "setp", "mov", "set") and not (ins.opcode == "cvt" and ins.mods[-2:-1]
                                                   and ins.mods[-2] not in ("f32", "f64")))
                floats[name] = floats.get(name, True) and is_float
    result = {}
    for name, kind in registers.items():
        dtype = DTYPES[kind]
        if dtype.kind in "iu" and dtype.itemsize in (4, 8) and floats.get(name):
            dtype = np.dtype(f"f{dtype.itemsize}")
        elif dtype.kind == "f" and dtype.itemsize == 2:
            dtype = np.dtype("u2")
        elif dtype.kind == "i":
            dtype = np.dtype(f"u{dtype.itemsize}")
        result[name] = dtype
    result.setdefault("%cc", np.dtype(bool))
    return result


def live_after(parts: list[Segment], written: list[KernelEmitter]) -> list[set[str]]:
    """The registers that something after each segment may read."""
    after: list[set[str]] = [set() for _ in parts]
    before = [set(e.read) for e in written]
    sets = [set(e.written) for e in written]
    changed = True
    while changed:
        changed = False
        for i in range(len(parts) - 1, -1, -1):
            part = parts[i]
            out: set[str] = set()
            for target in (*part.targets, *([] if part.next is None else [part.next])):
                out |= before[target]
                first = parts[target].instructions[:1]
                if first and converges(first[0]):  # the scheduler reads its mask
                    mask = mask_operand(first[0])
                    if isinstance(mask, Reg):
                        out.add(mask.name)
            if out != after[i]:
                after[i] = out
                changed = True
            into = set(written[i].read) | (out - sets[i])
            if into != before[i]:
                before[i] = into
                changed = True
    return after
