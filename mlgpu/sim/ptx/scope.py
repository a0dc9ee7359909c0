"""The names of a function's body: braces open scopes that may declare the same names again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mlgpu.sim.ptx.declarations import Registers
from mlgpu.sim.ptx.syntax import (
    BranchTargets,
    CallPrototype,
    Function,
    Instruction,
    Label,
    Module,
    Operand,
    Reg,
    Sym,
    Target,
    Vec,
)

Named = Reg | Vec | Sym | Label | BranchTargets | CallPrototype
_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
_PARTS = {"x": 0, "y": 1, "z": 2, "w": 3, "r": 0, "g": 1, "b": 2, "a": 3}
_SELECTOR = re.compile(r"b[0-7]{1,4}|h[0-3]{1,2}", re.ASCII)
_XYZ = """tid ntid ctaid nctaid clusterid nclusterid cluster_ctaid cluster_nctaid""".split()
_PLAIN = """laneid warpid nwarpid smid nsmid gridid clock clock_hi clock64 globaltimer
    globaltimer_lo globaltimer_hi lanemask_eq lanemask_le lanemask_lt lanemask_ge lanemask_gt
    dynamic_smem_size total_smem_size aggr_smem_size cluster_ctarank cluster_nctarank
    is_explicit_cluster current_graph_exec reserved_smem_offset_begin reserved_smem_offset_end
    reserved_smem_offset_cap reserved_smem_offset_0 reserved_smem_offset_1""".split()
SPECIAL = frozenset(f"%{name}" for name in [
    *_PLAIN, *(f"{name}.{d}" for name in _XYZ for d in "xyzw"), *(f"envreg{n}" for n in range(32)),
    *(f"pm{n}" for n in range(8)), *(f"pm{n}_64" for n in range(8))])


@dataclass(slots=True)
class Scope:
    """The names that a pair of braces declares.

    `operands` remembers what a text stands for here; `waiting` are the uses of labels that are not
    seen yet: the statement, the label's name, and the place of the use.
    """

    parent: Scope | None
    names: dict[str, Named] = field(default_factory=dict)
    ranges: list[Registers] = field(default_factory=list)
    operands: dict[str, Operand] = field(default_factory=dict)
    waiting: list[tuple[Instruction | BranchTargets, str, int]] = field(default_factory=list)
    depth: int = 0


class Names:
    """The names of a function: those of inner scopes that are taken already are renamed apart."""

    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.function = function
        self.scope = Scope(None)
        self._taken: dict[str, int] = {}  # name -> how many things wanted it

    # -- scopes ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Enter a scope."""
        outer = self.scope
        self.scope = Scope(outer, operands=outer.operands, depth=outer.depth + 1)

    def close(self) -> list[tuple[Instruction | BranchTargets, str, int]]:
        """Leave a scope; after the last one the answer is the uses of labels that there are not."""
        inner = self.scope
        outside = []
        for use in inner.waiting:
            statement, name, _ = use
            label = inner.names.get(name)
            if not isinstance(label, Label):
                outside.append(use)
            elif label.name != name:
                _retarget(statement, name, label.name)
        if inner.parent is None:
            return outside
        self.scope = inner.parent
        self.scope.waiting += outside
        return []

    # -- declaring --------------------------------------------------------------------------------

    def declare(self, name: str, thing: Named) -> bool:
        """Give a name its meaning in this scope; False where it has one."""
        scope = self.scope
        if name in scope.names or self._in_ranges(scope, name):
            return False
        if not isinstance(thing, Label) or self.find(name) is not None:
            scope.operands = {}  # the name may have meant something else until here
        scope.names[name] = thing
        return True

    def declare_registers(self, new: Registers) -> bool:
        """Declare one register or a numbered row of them; False where the name is declared."""
        scope = self.scope
        if new.count is None:
            if new.name in scope.names or self._in_ranges(scope, new.name):
                return False
            scope.names[new.name] = self._register(new.name, new.type, new.width)
        else:
            if any(r.name == new.name for r in scope.ranges):
                return False
            scope.ranges.append(new)
            if any(self._in_ranges(scope, name) is new for name in scope.names):
                return False
        scope.operands = {}
        return True

    def unique(self, name: str) -> str:
        """A name for something of the function that nothing else has, in it or in the module."""
        count = self._taken.get(name, 0) + 1
        self._taken[name] = count
        if count == 1 and name not in self.module.variables and name not in self.module.functions:
            return name
        return f"{name}@{count}"  # no PTX name has an @

    # -- finding ----------------------------------------------------------------------------------

    def find(self, name: str) -> Named | None:
        """What a name stands for here; `q.x` is a part of the vector register `q`."""
        scope: Scope | None = self.scope
        while scope is not None:
            found = scope.names.get(name)
            if found is None:
                row = self._in_ranges(scope, name)
                if row is not None:
                    found = scope.names[name] = self._register(name, row.type, row.width)
            if found is not None:
                return found
            scope = scope.parent
        if name in SPECIAL:
            return Reg(name)
        if "." in name:
            return self._part(*name.split(".", 1))
        if name in self.module.variables or name in self.module.functions:
            return Sym(name)
        return None

    def _part(self, name: str, part: str) -> Reg | None:
        whole = self.find(name)
        if isinstance(whole, Vec) and part in _PARTS and _PARTS[part] < len(whole.items):
            register = whole.items[_PARTS[part]]
            assert isinstance(register, Reg)
            return register
        if isinstance(whole, Reg) and _SELECTOR.fullmatch(part):  # of the video instructions
            return Reg(f"{whole.name}.{part}")
        return None

    def _register(self, name: str, type: str, width: int) -> Reg | Vec:
        if width:
            return Vec(tuple([self._register(f"{name}.{d}", type, 0) for d in "xyzw"[:width]]))
        unique = self.unique(name)
        self.function.registers[unique] = type
        return Reg(unique)

    @staticmethod
    def _in_ranges(scope: Scope, name: str) -> Registers | None:
        for row in scope.ranges:
            if name.startswith(row.name):
                index = _INDEX.fullmatch(name, len(row.name))
                if index and int(index[0]) < (row.count or 0):
                    return row
        return None


def _retarget(statement: Instruction | BranchTargets, old: str, new: str) -> None:
    if isinstance(statement, BranchTargets):
        statement.labels = tuple(new if name == old else name for name in statement.labels)
    else:
        statement.operands = tuple(Target(new) if o == Target(old) else o
                                   for o in statement.operands)
