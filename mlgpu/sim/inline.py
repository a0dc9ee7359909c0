"""Device functions put in the place of their calls, so that a kernel is one list of statements.

NVRTC leaves functions as `.func` where they are marked `__noinline__`, are large, or have their
address taken.  Every call becomes a copy of the body with names of its own; parameters, which PTX
passes through `.param` variables, become registers, or local memory where a variable is read in
other pieces than it was written.  An indirect call compares the address with every function whose
address the module takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from mlgpu.sim.errors import PtxError, UnsupportedError
from mlgpu.sim.ptx.syntax import (
    SIZES,
    Args,
    BranchTargets,
    CallPrototype,
    Function,
    Imm,
    Instruction,
    Label,
    Location,
    Mem,
    Module,
    Not,
    Operand,
    Pair,
    Reg,
    Sink,
    Statement,
    Sym,
    Target,
    Variable,
    Vec,
)

INTRINSICS = frozenset({"vprintf", "__assertfail", "malloc", "free"})
# Opcodes that stand for what this file and flow.py make; PTX has none of these names.
MADE = INTRINSICS | {"param_move", "bad_call", "bar_red"}
DEEPEST = 100  # calls in calls
LONGEST = 100_000  # statements, after all calls
_WORDS = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}  # the register for a piece of so many bytes


@dataclasses.dataclass(slots=True)
class Flat:
    """A kernel without calls."""

    name: str
    params: list[Variable]
    registers: dict[str, str]
    variables: list[Variable]  # shared and local ones, of the kernel and of what it calls
    body: list[Statement]
    location: Location


def flatten(module: Module, name: str) -> Flat:
    """The kernel with all it calls.  UnsupportedError for recursion and unknown functions."""
    return _Inliner(module).kernel(module.functions[name])


class _Inliner:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.copies = 0
        self.registers: dict[str, str] = {}
        self.variables: dict[str, Variable] = {}
        self.params: dict[str, Variable] = {}  # .param variables of calls, by their unique name
        self.tables: dict[str, tuple[str, ...]] = {}
        self.body: list[Statement] = []
        self.addresses = function_addresses(module)

    def kernel(self, function: Function) -> Flat:
        self._copy(function, {}, (), None, ())
        entry = next((s.location for s in self.body if isinstance(s, Instruction)),
                     Location("<ptx>", function.line))
        body = list(self._without_params()) if self.params else self.body
        return Flat(function.name, function.params, self.registers, list(self.variables.values()),
                    body, entry)

    def _copy(self, function: Function, bound: dict[str, str], stack: tuple[str, ...],
              returns_to: str | None, calls: tuple[str, ...]) -> None:
        """Append a function's body; `bound` names the variables its parameters stand for."""
        if function.body is None:
            raise UnsupportedError(f"call of {function.name}: it has no body, and it is not one of "
                                   f"{', '.join(sorted(INTRINSICS))}")
        if function.name in stack:
            raise UnsupportedError(
                f"{function.name} calls itself ({' > '.join((*stack, function.name))}): recursion "
                "is not supported; write it as a loop with a stack of its own")
        if len(stack) > DEEPEST:
            raise UnsupportedError(f"{stack[0]}: calls are nested more than {DEEPEST} deep, to "
                                   f"{function.name}; the simulated GPU puts every function in "
                                   "the place of its call")
        if len(self.body) + len(function.body) > LONGEST:
            raise UnsupportedError(f"{(*stack, function.name)[0]}: more than {LONGEST:,} "
                                   "statements with every function in the place of its calls; "
                                   "call less, or in a loop")
        self.copies += 1
        suffix = f"'{self.copies}" if stack else ""
        names = dict(bound)
        for register, kind in function.registers.items():
            names[register] = register + suffix
            self.registers[register + suffix] = kind
        for variable in function.variables:
            # a shared variable of a function is one, however often the function is called
            unique = variable.name if variable.space == "shared" else variable.name + suffix
            names[variable.name] = unique
            renamed = dataclasses.replace(variable, name=unique)
            (self.params if variable.space == "param" else self.variables)[unique] = renamed

        prototypes = {s.name: s for s in function.body if isinstance(s, CallPrototype)}
        tables = {s.name: s for s in function.body if isinstance(s, BranchTargets)}

        stack = (*stack, function.name)
        for statement in function.body:
            if isinstance(statement, Label):
                self.body.append(Label(statement.name + suffix))
            elif isinstance(statement, Instruction):
                at = statement.location
                if statement.opcode in MADE:
                    raise UnsupportedError(f"{statement.text} ({at.file}:{at.line}): this "
                                           "instruction is not known to the simulated GPU")
                if not stack[1:] and statement.opcode not in ("brx", "call"):
                    self.body.append(statement)  # the kernel's own names stay as they are
                    continue
                if calls:
                    at = Location(at.file, at.line, at.calls + calls)
                label = "" if statement.opcode == "call" else suffix  # a call's names are functions
                ins = dataclasses.replace(
                    statement, location=at,
                    operands=tuple(_map(o, names, label) for o in statement.operands),
                    guard=statement.guard and Reg(names.get(statement.guard.name,
                                                            statement.guard.name)))
                if ins.opcode == "call":
                    self._call(ins, stack, prototypes)
                elif ins.opcode == "ret" and returns_to is not None:
                    self.body.append(dataclasses.replace(ins, opcode="bra", mods=("uni",),
                                                         operands=(Target(returns_to),)))
                elif ins.opcode == "brx":
                    target = statement.operands[-1]
                    assert isinstance(target, Target)
                    labels = tuple(Target(n + suffix) for n in tables[target.name].labels)
                    self.body.append(dataclasses.replace(
                        ins, operands=(ins.operands[0], Args(labels))))
                else:
                    self.body.append(ins)

    def _call(self, ins: Instruction, stack: tuple[str, ...],
              prototypes: dict[str, CallPrototype]) -> None:
        operands = list(ins.operands)
        returns = operands.pop(0).items if isinstance(operands[0], Args) else ()  # type: ignore[union-attr]
        callee = operands.pop(0)
        args = operands[0].items if operands and isinstance(operands[0], Args) else ()
        self.copies += 1
        after = f"$after_call'{self.copies}"
        if ins.guard is not None:
            self.body.append(dataclasses.replace(
                ins, opcode="bra", mods=(), operands=(Target(after),),
                guard_negated=not ins.guard_negated))
        ins = dataclasses.replace(ins, guard=None)
        if isinstance(callee, Reg):
            self._indirect(ins, callee, returns, args, stack, after, prototypes)
        else:
            name = callee.name if isinstance(callee, (Target, Sym)) else ""
            if name in INTRINSICS:
                self.body.append(dataclasses.replace(
                    ins, opcode=name, mods=(), operands=(Args(returns), Args(args))))
            elif name in self.module.functions:
                self._enter(ins, self.module.functions[name], returns, args, stack, after)
            else:
                raise UnsupportedError(f"{ins.text} ({ins.location.file}:{ins.location.line}): "
                                       f"no function {name!r} in this module")
        self.body.append(Label(after))

    def _enter(self, ins: Instruction, function: Function, returns: tuple[Operand, ...],
               args: tuple[Operand, ...], stack: tuple[str, ...], after: str) -> None:
        where = f"{ins.text} ({ins.location.file}:{ins.location.line})"
        if len(args) != len(function.params) or len(returns) != len(function.returns):
            raise PtxError(f"{where}: {function.name} takes {len(function.params)} arguments and "
                           f"returns {len(function.returns)}; the call has {len(args)} and "
                           f"{len(returns)}")
        bound: dict[str, str] = {}
        for formal, actual in zip((*function.params, *function.returns), (*args, *returns),
                                  strict=True):
            given = self._size(actual)
            if given is not None and given != formal.size:
                raise PtxError(f"{where}: {given} bytes for {formal.name}, which has "
                               f"{formal.size}")
            if isinstance(actual, (Target, Sym)):
                bound[formal.name] = actual.name
            elif isinstance(actual, Reg):
                bound[formal.name] = actual.name
                if formal.space != "reg":  # the body reads it with ld.param
                    self.params.setdefault(actual.name, dataclasses.replace(
                        formal, name=actual.name))
            else:
                raise UnsupportedError(f"{where}: argument {actual}")
        at = ins.location
        self._copy(function, bound, stack, after, (f"{at.file}:{at.line}", *at.calls))

    def _size(self, actual: Operand) -> int | None:
        """The bytes of what a call passes, where they are known."""
        if isinstance(actual, (Target, Sym)) and actual.name in self.params:
            return self.params[actual.name].size
        if isinstance(actual, Reg) and actual.name in self.registers:
            return SIZES[self.registers[actual.name]]
        return None

    def _indirect(self, ins: Instruction, callee: Reg, returns: tuple[Operand, ...],
                  args: tuple[Operand, ...], stack: tuple[str, ...], after: str,
                  prototypes: dict[str, CallPrototype]) -> None:
        fits = [f for f in self.module.functions.values()
                if f.name in self.addresses and f.body is not None and f.name not in stack
                and [(p.size, p.align) for p in f.params]
                == [(p.size, p.align) for p in self._prototype(ins, prototypes).params]
                and len(f.returns) == len(returns)]
        for function in fits:
            self.copies += 1
            other, test = f"$not_this'{self.copies}", f"%fp'{self.copies}"
            self.registers[test] = "pred"
            self.body.append(dataclasses.replace(
                ins, opcode="setp", mods=("ne", "u64"),
                operands=(Reg(test), callee, Imm(self.addresses[function.name]))))
            self.body.append(dataclasses.replace(ins, opcode="bra", mods=(), guard=Reg(test),
                                                 guard_negated=False, operands=(Target(other),)))
            self._enter(ins, function, returns, args, stack, after)
            self.body.append(dataclasses.replace(ins, opcode="bra", mods=("uni",),
                                                 operands=(Target(after),)))
            self.body.append(Label(other))
        self.body.append(dataclasses.replace(ins, opcode="bad_call", mods=(), operands=(callee,)))

    @staticmethod
    def _prototype(ins: Instruction, prototypes: dict[str, CallPrototype]) -> CallPrototype:
        last = ins.operands[-1]
        if isinstance(last, Target) and last.name in prototypes:
            return prototypes[last.name]
        raise PtxError(f"{ins.text} ({ins.location.file}:{ins.location.line}): an indirect call "
                       "without a prototype")

    def _without_params(self) -> Iterator[Statement]:
        """The body with the `.param` variables of calls as registers."""
        pieces: dict[str, set[tuple[int, int]]] = {}
        for ins in self.body:
            if isinstance(ins, Instruction) and (found := self._param_access(ins)):
                name, offset, count = found
                size = SIZES[ins.type]
                pieces.setdefault(name, set()).update(
                    (offset + i * size, size) for i in range(count))
        in_memory = {n for n, parts in pieces.items() if _overlap(parts)}
        for name in in_memory:
            variable = self.params[name]
            self.variables[name] = dataclasses.replace(variable, space="local")
        for statement in self.body:
            if not isinstance(statement, Instruction):
                yield statement
                continue
            if statement.opcode in INTRINSICS:
                yield dataclasses.replace(statement, operands=tuple(
                    Args(tuple(self._whole(o) for o in a.items)) if isinstance(a, Args) else a
                    for a in statement.operands))
                continue
            found = self._param_access(statement)
            if not found:
                yield statement
                continue
            name, offset, count = found
            if name in in_memory:
                mods = tuple("local" if m == "param" else m for m in statement.mods
                             if not m.startswith("param::"))
                if "local" not in mods:
                    mods = ("local", *mods)
                yield dataclasses.replace(statement, mods=mods)
                continue
            load = statement.opcode == "ld"
            values = statement.operands[0 if load else 1]
            items = values.items if isinstance(values, Vec) else (values,)
            size = SIZES[statement.type]
            for i, item in enumerate(items):
                register = Reg(self._param_register(name, offset + i * size, size))
                if not isinstance(item, Sink):
                    yield dataclasses.replace(
                        statement, opcode="param_move", mods=(statement.type,),
                        operands=(item, register) if load else (register, item))

    def _param_access(self, ins: Instruction) -> tuple[str, int, int] | None:
        """The variable, offset and number of elements of an access to a call's parameter."""
        if ins.opcode not in ("ld", "st") or len(ins.operands) < 2 or SIZES.get(
                ins.type) not in _WORDS or not any(m.split("::")[0] == "param" for m in ins.mods):
            return None
        address = ins.operands[1 if ins.opcode == "ld" else 0]
        if not isinstance(address, Mem) or not isinstance(address.base, (Sym, Reg)) \
                or address.base.name not in self.params:
            return None
        values = ins.operands[0 if ins.opcode == "ld" else 1]
        count = len(values.items) if isinstance(values, Vec) else 1
        mods = [m for m in ins.mods if m not in ("param", "param::func")]
        if len(ins.operands) != 2 or sorted(mods) != sorted(
                [ins.type] + [f"v{count}"] * (count > 1)):
            raise PtxError(f"{ins.text} ({ins.location.file}:{ins.location.line}): operands or "
                           "modifiers that do not fit an access to a call's parameter")
        at = address.offset + (address.base.offset if isinstance(address.base, Sym) else 0)
        whole = self.params[address.base.name].size
        if not 0 <= at <= whole - count * SIZES[ins.type]:
            raise PtxError(f"{ins.text} ({ins.location.file}:{ins.location.line}): outside the "
                           f"{whole} bytes of {address.base.name}")
        return address.base.name, at, count

    def _param_register(self, name: str, offset: int, size: int) -> str:
        register = f"%{name}+{offset}"
        self.registers.setdefault(register, _WORDS[size])
        return register

    def _whole(self, operand: Operand) -> Operand:
        """The register of a parameter variable that an intrinsic takes or returns whole."""
        if isinstance(operand, (Sym, Target)) and operand.name in self.params \
                and self.params[operand.name].size in _WORDS:
            return Reg(self._param_register(operand.name, 0, self.params[operand.name].size))
        return operand


def function_addresses(module: Module) -> dict[str, int]:
    """A number for every function whose address the module takes, as the value of its symbol."""
    taken: set[str] = set()
    for function in module.functions.values():
        for statement in function.body or ():
            if isinstance(statement, Instruction) and statement.opcode not in ("call", "bra"):
                taken.update([operand.name for operand in statement.operands
                              if isinstance(operand, (Sym, Target))
                              and operand.name in module.functions])
    for variable in module.variables.values():
        taken.update(r[2] for r in variable.relocations if r[2] in module.functions)
    return {name: 0x10 * (i + 1) for i, name in enumerate(sorted(taken))}


def _overlap(pieces: set[tuple[int, int]]) -> bool:
    """Whether two different pieces share a byte."""
    end = 0
    for offset, size in sorted(pieces):
        if offset < end:
            return True
        end = offset + size
    return False


def _map(operand: Operand, names: dict[str, str], suffix: str) -> Operand:
    """The operand with its names replaced; labels get the suffix."""
    if isinstance(operand, Reg):
        return Reg(names.get(operand.name, operand.name))
    if isinstance(operand, Not):
        return Not(Reg(names.get(operand.reg.name, operand.reg.name)))
    if isinstance(operand, Sym):
        return Sym(names.get(operand.name, operand.name), operand.offset, operand.generic)
    if isinstance(operand, Mem):
        base = _map(operand.base, names, suffix)
        assert isinstance(base, (Reg, Sym, Imm))
        return Mem(base, operand.offset)
    if isinstance(operand, Vec):
        return Vec(tuple(_map(o, names, suffix) for o in operand.items))
    if isinstance(operand, Args):
        return Args(tuple(_map(o, names, suffix) for o in operand.items))
    if isinstance(operand, Pair):
        return Pair(_map(operand.first, names, suffix), _map(operand.second, names, suffix))
    if isinstance(operand, Target):
        return Target(names.get(operand.name) or operand.name + suffix)
    return operand
