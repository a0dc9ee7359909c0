"""A kernel made ready to run: its memory laid out and every segment a Python function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.sim import access, atomics, copies, fragment_memory, mbarriers, warps
from mlgpu.sim.access import Site
from mlgpu.sim.emit import Emitter
from mlgpu.sim.errors import PtxError, UnsupportedError
from mlgpu.sim.flow import Segment, converges, predicate, segments
from mlgpu.sim.inline import Flat
from mlgpu.sim.isa import INSTRUCTIONS
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import (Args, Imm, Instruction, Location, Mem, Module, Operand, Reg, Sym,
                                  Target, Variable)

Array = np.ndarray[Any, Any]
# Room between two arrays in shared memory, so that running over the end of one is seen.  A multiple
# of 1,024: banks and swizzles stay as they would be.
GAP = 1024

SPECIALS = {"pred": ("is_explicit_cluster",),
            "u64": ("clock64", "globaltimer", "gridid", "current_graph_exec")}
VOLATILE = frozenset({"clock", "clock64", "clock_hi", "globaltimer", "globaltimer_lo",
                      "globaltimer_hi"})


class Step:
    """A segment as the scheduler sees it."""

    __slots__ = ("end_at", "full_mask", "instructions", "mask", "run", "where", "whole_warp")

    def __init__(self, segment: Segment, run: Callable[..., Any]) -> None:
        self.run = run
        self.mask: Callable[..., Any] | None = None  # the lanes that must be there
        self.full_mask = False
        self.whole_warp = False  # the instruction has no mask
        end = [segment.end] if segment.end is not None else []
        self.instructions = segment.instructions + end
        self.end_at = end[0].location if end else Location("", 0)
        self.where = (segment.instructions[0].location if segment.instructions
                      and converges(segment.instructions[0]) else
                      segment.end.location if segment.end is not None else
                      segment.instructions[-1].location if segment.instructions
                      else Location("", 0))


class Code:
    """Everything about a kernel that launches share."""

    def __init__(self, module: Module, flat: Flat, addresses: dict[str, int]) -> None:
        self.name = flat.name
        self.location = flat.location
        self.module = module
        self.params = flat.params
        self.param_offsets, self.param_size = _layout_params(flat.params)
        self.directives = module.functions[flat.name].directives
        self.symbols: dict[str, int] = dict(addresses)
        self.shared: list[Variable] = []
        self.shared_at: list[tuple[int, int, str]] = []  # start, size, name
        self.shared_gaps: list[tuple[int, int]] = []
        self.dynamic_at = 0
        self.static_shared = 0  # as a GPU would lay it out, for limits and occupancy
        self.local_size = 0
        self._lay_out(flat, module)
        self.sites: list[Site] = []
        self._after: dict[int, frozenset[int]] = {}
        self.guarded: list[Instruction] = []  # instructions under a predicate, by their number
        self.registers = flat.registers
        # a load of what a compare-and-swap then compares is the first guess of its loop, and may
        # be stale: as good as a relaxed one
        self.guesses = {i.operands[1] for i in flat.body if isinstance(i, Instruction)
                        and i.opcode == "atom" and i.has("cas")}
        parts = segments(flat)
        self.parts = parts
        self.numbers: dict[str, int] = {}
        self.storages = _storages(parts, flat.registers)
        self.segments = self._generate(parts)
        self.initial: list[Array] = [np.zeros((1, 1), self.storages[r]) for r in self.numbers]
        self.fences = any(i.opcode in ("membar", "fence") for s in parts for i in s.instructions)
        self.cell = min((s.dtype.itemsize for s in self.sites if s.space in ("shared", "")),
                        default=4)

    # -- memory -----------------------------------------------------------------------------------

    def _lay_out(self, flat: Flat, module: Module) -> None:
        used = _names(flat)
        statics = [v for v in (*flat.variables, *module.variables.values())
                   if v.space == "shared" and v.count is not None
                   and (v.name in used or v in flat.variables)]
        at = end = 0
        for v in statics:
            end = -(-end // v.align) * v.align
            at += (end - at) % GAP  # the same place modulo the gap as without gaps
            self.symbols[v.name] = at
            self.shared_at.append((at, v.size, v.name))
            at, end = at + v.size, end + v.size
            if v is not statics[-1]:
                low = at
                at = -(-at // GAP) * GAP + end % GAP
                at += GAP if at - low < 16 else 0
                self.shared_gaps.append((low, at))
        self.static_shared = end
        dynamics = [v for v in (*flat.variables, *module.variables.values())
                    if v.space == "shared" and v.count is None]
        align = max((v.align for v in dynamics), default=16)
        align = max(align, 16)
        self.dynamic_after = -(-end // align) * align
        if statics and dynamics:
            low = at
            at = -(-at // GAP) * GAP + self.dynamic_after % GAP
            at += GAP if at - low < 16 else 0
            self.shared_gaps.append((low, at))
        self.dynamic_at = at if statics and dynamics else -(-at // align) * align
        for v in dynamics:
            self.symbols[v.name] = self.dynamic_at
        offset = 0
        for v in flat.variables:
            if v.space == "local":
                offset = -(-offset // v.align) * v.align
                self.symbols[v.name] = offset
                offset += v.size
        self.local_size = offset

    # -- code -------------------------------------------------------------------------------------

    def _generate(self, parts: list[Segment]) -> list[Step]:
        namespace: dict[str, Any] = {"np": np, "where": np.where, "access": access,
                                     "atomics": atomics, "warps": warps,
                                     "fragment_memory": fragment_memory, "copies": copies,
                                     "mbarriers": mbarriers}
        written: list[_KernelEmitter] = []
        for part in parts:
            e = _KernelEmitter(self, part, namespace)
            for ins in part.instructions:
                e.emit(ins)
            e.finish()
            written.append(e)
        live = _live_after(parts, written)
        text: list[str] = []
        for part, e, out in zip(parts, written, live):
            stores = [f"g.write(R, {self.number(r)}, {e.stored(r)})"
                      for r in e.written if r in out]
            text += [f"def s{part.number}(x, g):", "    R = x.R; rd = g.read",
                     *(f"    {line}" for line in (*e.lines[:e.end_at], *e.late, *stores,
                                                  *e.lines[e.end_at:]))]
        source = "\n".join(text)
        self.python = source
        exec(compile(source, f"<{self.name}>", "exec"), namespace)  # noqa: S102  (our own text)
        steps = [Step(p, namespace[f"s{p.number}"]) for p in parts]
        for step, part in zip(steps, parts):
            if part.instructions and converges(part.instructions[0]):
                self._mask(step, part.instructions[0])
        return steps

    def _mask(self, step: Step, ins: Instruction) -> None:
        """How the scheduler finds the lanes that a warp instruction needs."""
        operand = _mask_operand(ins)
        if operand is None or isinstance(operand, Imm):
            bits = 0xFFFFFFFF if operand is None else operand.value & 0xFFFFFFFF
            constant = np.array([[bits]], np.uint32)
            step.full_mask = bits == 0xFFFFFFFF
            step.whole_warp = operand is None
            step.mask = lambda x, g: constant
        else:
            assert isinstance(operand, Reg)
            if operand.name not in self.registers:  # %lanemask_… as a mask
                step.mask = lambda x, g: g.read(x.special[operand.name[1:]])
                return
            number, dtype = self.number(operand.name), np.dtype(np.uint32)
            step.mask = lambda x, g: g.read(x.R[number]).view(dtype)

    def after(self, segment: int) -> frozenset[int]:
        """The segments that lie behind the end of a segment, going forwards only."""
        if segment not in self._after:
            found: set[int] = set()
            work = [segment]
            while work:
                part = self.parts[work.pop()]
                for target in (*part.targets, *([] if part.next is None else [part.next])):
                    if target > part.number and target not in found:
                        found.add(target)
                        work.append(target)
            self._after[segment] = frozenset(found)
        return self._after[segment]

    def number(self, register: str) -> int:
        """The place of a register in the register file."""
        return self.numbers.setdefault(register, len(self.numbers))


class _KernelEmitter(Emitter):
    def __init__(self, code: Code, part: Segment, namespace: dict[str, Any]) -> None:
        super().__init__(code.registers, namespace)
        self.code = code
        self.part_of = part
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
        try:
            emit(self, ins)
        except UnsupportedError:
            raise
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # operands that do not fit the opcode: the PTX is malformed, the machine is fine
            at = ins.location
            raise PtxError(f"{ins.text} ({at.file}:{at.line}): operands or modifiers that do not "
                           f"fit ({type(error).__name__}: {error})") from error

    def finish(self) -> None:
        """Write the segment's end."""
        part, ins = self.part_of, self.part_of.end
        self.ins = ins or Instruction("", (), ())
        if ins is None:
            result = f"(({part.next}, g),)"
        elif ins.opcode == "bra":
            if ins.guard is None:
                target = part.targets[0]
                result = f"(({target}, g),)"
                if part.polls and part.loop == target:
                    result = f"x.turn({part.number}, {target}, g)"
            else:
                p = self.use(predicate(ins), "pred")
                number = -1 if part.hidden else part.number
                result = f"x.branch(g, {p}, {part.targets[0]}, {part.next}, {number})"
                if part.polls:
                    result = f"x.branch_polling(g, {p}, {part.targets[0]}, {part.next}, " \
                             f"{number}, {part.loop})"
        elif ins.opcode == "brx":
            index = self.use(ins.operands[0], "u32")
            result = f"x.table(g, {index}, {part.targets!r}, {part.number})"
        elif ins.opcode in ("ret", "exit"):
            result = "x.exit(g)"
            if ins.guard is not None:
                p = self.use(predicate(ins), "pred")
                result = f"x.exit_some(g, {p}, {part.next})"
        elif ins.opcode == "trap":
            result = f"x.trap(g, {part.number})"
        elif ins.opcode == "bad_call":
            result = f"x.bad_call(g, {self.use(ins.operands[0], 'u64')}, {part.number})"
        elif ins.opcode == "__assertfail":
            args = ins.operands[1]
            assert isinstance(args, Args)
            a = [self.use(o, "u64") for o in args.items[:2]] + [self.use(args.items[2], "u32")]
            a.append(self.use(args.items[3], "u64"))
            result = f"x.assert_fail(g, {', '.join(a)}, {part.number})"
        else:
            result = self._barrier(ins)
        self.end_at = len(self.lines)
        self.lines.append(f"return {result}")

    def _barrier(self, ins: Instruction) -> str:
        operands = list(ins.operands)
        part = self.part_of
        if ins.has("red"):
            # the predicate is kept aside; the next segment finds the result (isa/sync.py)
            kept = Reg("%bar_red")
            self.registers.setdefault("%bar_red", "pred")
            predicate_operand = operands.pop()
            operands.pop(0)
            self.ins = Instruction("bar", (), ())
            self.set(kept, "pred", self.use(predicate_operand, "pred"))
            self.ins = ins
        number = self.use(operands[0], "u32")
        count = self.use(operands[1], "u32") if len(operands) > 1 else "None"
        aligned = ins.opcode == "bar" or ins.has("aligned")
        return f"x.barrier(g, {number}, {count}, {part.number}, {part.next}, {aligned})"

    # -- what instructions ask for ------------------------------------------------------------------

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

    def address(self, operand: Operand, type: str = "u64") -> str:
        """An address, a uint64 array."""
        if isinstance(operand, Mem):
            base = self.address(operand.base)
            return self.bind(f"{base} + {self.use(Imm(operand.offset), 'u64')}") \
                if operand.offset else base
        if isinstance(operand, Reg):
            declared = self.registers.get(operand.name, "u64")
            if DTYPES[declared].itemsize == 8:
                return self.use(operand, "u64")
            return self.bind(f"{self.use(operand, 'u32')}.astype({self.fn(np.dtype('u8'))})")
        if isinstance(operand, Imm):
            return self.use(operand, "u64")
        return self.symbol(operand)

    def site(self, access_: str, space: str, dtype: np.dtype[Any], count: int = 1,
             **flags: Any) -> str:
        """The name of a new site for the instruction."""
        site = Site(len(self.code.sites), self.ins.text, self.ins.location, access_, space, dtype,
                    count, **flags)
        self.code.sites.append(site)
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


def _mask_operand(ins: Instruction) -> Operand | None:
    """The operand that names the lanes (None: all)."""
    if ins.opcode in ("mma", "wmma", "ldmatrix", "stmatrix", "movmatrix"):
        return None
    if ins.opcode in ("bar", "barrier"):
        return ins.operands[0]
    if not ins.has("sync") and ins.opcode != "elect":
        return None  # the forms without a mask, from before Volta
    return ins.operands[-1]


def _storages(parts: list[Segment], registers: dict[str, str]) -> dict[str, np.dtype[Any]]:
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
    result.setdefault("%bar_red", np.dtype(bool))
    result.setdefault("%cc", np.dtype(bool))
    return result


def _live_after(parts: list[Segment], written: list[_KernelEmitter]) -> list[set[str]]:
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
                    mask = _mask_operand(first[0])
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


def _layout_params(params: list[Variable]) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    at = 0
    for p in params:
        at = -(-at // p.align) * p.align
        offsets[p.name] = at
        at += p.size
    return offsets, at


def _names(flat: Flat) -> set[str]:
    """The variables that the kernel's instructions name."""
    found: set[str] = set()

    def see(operand: Any) -> None:
        if isinstance(operand, (Sym, Target)):
            found.add(operand.name)
        elif isinstance(operand, Mem):
            see(operand.base)
        for item in getattr(operand, "items", ()):
            see(item)

    for statement in flat.body:
        if isinstance(statement, Instruction):
            for operand in statement.operands:
                see(operand)
    return found
