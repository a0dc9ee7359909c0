"""A kernel made ready to run: its memory laid out and every segment a Python function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.sim import arch as archs
from mlgpu.sim.errors import PtxError
from mlgpu.sim.flow import Segment, converges, segments
from mlgpu.sim.generate import Written, functions, mask_operand, storages
from mlgpu.sim.inline import Flat
from mlgpu.sim.ptx.syntax import Imm, Instruction, Location, Mem, Module, Reg, Sym, Target, Variable
from mlgpu.sim.site import Site

Array = np.ndarray[Any, Any]
# Room between two arrays in shared memory, so that running over the end of one is seen.  A multiple
# of 1,024: banks and swizzles stay as they would be.
GAP = 1024


class Step:
    """A segment as the scheduler sees it."""

    __slots__ = ("end_at", "full_mask", "instructions", "mask", "run", "where", "whole_warp",
                 "written")

    def __init__(self, segment: Segment, written: Written) -> None:
        self.written = written
        self.run: Callable[..., Any] | None = None  # its function, once it has been needed
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

    def compiled(self) -> Callable[..., Any]:
        """The function, kept from now on."""
        self.run = self.written.compiled()
        return self.run


class Code:
    """Everything about a kernel that launches share."""

    def __init__(self, module: Module, flat: Flat, addresses: dict[str, int]) -> None:
        self.name = flat.name
        self.location = flat.location
        self.module = module
        major, minor, _ = archs.parse(module.target)
        self.target = 10 * major + minor
        self.params = flat.params
        self.param_offsets, self.param_size = layout(flat.params)
        self.directives = module.functions[flat.name].directives
        self.symbols: dict[str, int] = dict(addresses)
        # where each variable lies, by its name
        self.spaces = {v.name: v.space for v in (*module.variables.values(), *flat.variables,
                                                 *flat.params)}
        self.shared_at: list[tuple[int, int, str]] = []  # start, size, name
        self.shared_gaps: list[tuple[int, int]] = []
        self.dynamic_at = 0
        self.static_shared = 0  # as a GPU would lay it out, for limits and occupancy
        self.local_size = 0
        self._lay_out(flat, module)
        self.sites: list[Site] = []
        self.sited: list[Instruction] = []  # the instruction of each site
        self._after: dict[int, frozenset[int]] = {}
        self.guarded: list[Instruction] = []  # instructions under a predicate, by their number
        self.registers = flat.registers
        # a load of what a compare-and-swap then compares is the first guess of its loop, and may
        # be stale: as good as a relaxed one
        self.guesses = {o for i in flat.body if isinstance(i, Instruction)
                        and i.opcode == "atom" and i.has("cas") for o in i.operands[1:2]}
        parts = segments(flat)
        self.parts = parts
        self.numbers: dict[str, int] = {}
        self.storages = storages(parts, flat.registers)
        self.segments = [Step(p, w) for p, w in zip(parts, functions(self, parts), strict=True)]
        for step, part in zip(self.segments, parts, strict=True):
            if part.instructions and converges(part.instructions[0]):
                self._mask(step, part.instructions[0])
        self.initial: list[Array] = [np.zeros((1, 1), self.storages[r]) for r in self.numbers]
        self.fences = any(i.opcode in ("membar", "fence") for s in parts for i in s.instructions)
        # whether atomics and the like of a block's scope work on global memory
        self.inner = any(s.strong and s.scope == "cta" and s.space != "shared"
                         for s in self.sites)
        self.cell = min((s.dtype.itemsize for s in self.sites if s.space in ("shared", "")),
                        default=4)

    # -- memory -----------------------------------------------------------------------------------

    def _lay_out(self, flat: Flat, module: Module) -> None:
        of_module = any(v.space == "shared" for v in module.variables.values())
        used = _names(flat) if of_module else ()
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

    def _mask(self, step: Step, ins: Instruction) -> None:
        """How the scheduler finds the lanes that a warp instruction needs."""
        operand = mask_operand(ins)
        if operand is None or isinstance(operand, Imm):
            bits = 0xFFFFFFFF if operand is None else operand.value & 0xFFFFFFFF
            constant = np.array([[bits]], np.uint32)
            step.full_mask = bits == 0xFFFFFFFF
            step.whole_warp = operand is None
            step.mask = lambda x, g: constant
        else:
            assert isinstance(operand, Reg)
            if operand.name not in self.registers:
                if not operand.name.startswith("%lanemask"):
                    raise PtxError(f"{ins.text} ({ins.location.file}:{ins.location.line}): "
                                   f"{operand.name} as a mask of lanes")
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


def layout(params: list[Variable]) -> tuple[dict[str, int], int]:
    """Where each parameter lies among a kernel's, and how many bytes they are."""
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
