"""Mutants of a PTX module: one instruction changed into what a careless author might have written.

A rule looks at one instruction and yields what may stand in its place: other statements, or none.
Rules about synchronisation leave the arithmetic alone, so only a sanitizer can tell that something
is missing; rules about data change what is computed or touched.  Each mutant comes with a probe,
which traps where the change first makes a difference: launches that do not trap cannot tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mlgpu.sim.ptx.syntax import (
    SIZES,
    Function,
    Imm,
    Instruction,
    Mem,
    Module,
    Operand,
    Reg,
    Sink,
    Statement,
    Sym,
    Target,
    Vec,
)


@dataclass(frozen=True)
class Change:
    """What takes an instruction's place."""

    words: str
    statements: tuple[Statement, ...] = ()
    registers: dict[str, str] = field(default_factory=dict)  # that the statements need
    # Where the change makes a difference only now and then: what traps just there.
    probe: tuple[Statement, ...] = ()


Rule = Callable[[Instruction, Function], Iterator[Change]]
SYNCHRONISATION: dict[str, Rule] = {}
DATA: dict[str, Rule] = {}
TEMPORARY = "%mutant"
BARRIERS = frozenset({"bar", "barrier"})
SCOPES = ("cluster", "gpu", "gl", "sys")
ORDERS = frozenset({"acquire", "release", "acq_rel"})
STRONG = ORDERS | {"volatile", "relaxed"}


@dataclass(frozen=True)
class Mutant:
    """One change of a module."""

    kind: str  # the rule's name
    function: str
    place: int  # in the function's body
    number: int  # of the changes that the rule offers at this place
    instruction: Instruction  # as it was
    change: Change

    @property
    def synchronises(self) -> bool:
        """Whether the change is one of synchronisation."""
        return self.kind in SYNCHRONISATION

    def __str__(self) -> str:
        at = self.instruction.location
        return (f"{self.kind}: {self.instruction.text}: {self.change.words} "
                f"({self.function}, statement {self.place}, {at.file}:{at.line})")

    def applied(self, module: Module) -> Module:
        """The module with this change; the one given stays as it is."""
        return self._with(module, self.change.statements)

    def probed(self, module: Module) -> Module:
        """The module that traps where the change makes a difference."""
        trap = with_opcode(self.instruction, "trap")
        return self._with(module, self.change.probe or (trap,))

    def _with(self, module: Module, statements: tuple[Statement, ...]) -> Module:
        function = module.functions[self.function]
        assert function.body is not None
        body = [*function.body[:self.place], *statements, *function.body[self.place + 1:]]
        changed = dataclasses.replace(function, body=body,
                                      registers={**function.registers, **self.change.registers})
        return dataclasses.replace(module,
                                   functions={**module.functions, function.name: changed})


def mutants(module: Module, functions: Iterable[str]) -> Iterator[Mutant]:
    """All changes that the rules make in functions of the module."""
    for name in functions:
        function = module.functions[name]
        for place, ins in enumerate(function.body or ()):
            if not isinstance(ins, Instruction):
                continue
            for kind, rule in {**SYNCHRONISATION, **DATA}.items():
                for number, change in enumerate(rule(ins, function)):
                    yield Mutant(kind, name, place, number, ins, change)


def called(module: Module, kernels: Iterable[str]) -> list[str]:
    """The kernels and the functions they may call."""
    found: list[str] = []
    work = list(kernels)
    while work:
        name = work.pop()
        function = module.functions.get(name)
        if name in found or function is None or function.body is None:
            continue
        found.append(name)
        for statement in function.body:
            if isinstance(statement, Instruction):
                work += [o.name for o in statement.operands if isinstance(o, (Sym, Target))]
    return sorted(found)


# -- rules: what orders threads --------------------------------------------------------------------

def synchronisation(kind: str) -> Callable[[Rule], Rule]:
    """Declare a rule about synchronisation."""
    def declare(rule: Rule) -> Rule:
        SYNCHRONISATION[kind] = rule
        return rule
    return declare


def data(kind: str) -> Callable[[Rule], Rule]:
    """Declare a rule about data."""
    def declare(rule: Rule) -> Rule:
        DATA[kind] = rule
        return rule
    return declare


REMOVED = Change("removed")


def with_opcode(ins: Instruction, opcode: str, mods: tuple[str, ...] = (),
                *operands: Operand) -> Instruction:
    """Another instruction under the same predicate."""
    return dataclasses.replace(ins, opcode=opcode, mods=mods, operands=operands)


def with_mods(ins: Instruction, *mods: str) -> Instruction:
    """The instruction with other modifiers."""
    return dataclasses.replace(ins, mods=mods)


def with_operand(ins: Instruction, place: int, operand: Operand) -> Instruction:
    """The instruction with another operand."""
    return dataclasses.replace(ins, operands=tuple(
        operand if i == place else o for i, o in enumerate(ins.operands)))


def name_of(ins: Instruction) -> str:
    """The instruction without its operands."""
    return ".".join((ins.opcode, *ins.mods))


NUMBER, TOTAL, IF = Reg(f"{TEMPORARY}_number"), Reg(f"{TEMPORARY}_total"), Reg(f"{TEMPORARY}_if")


def trap_if(ins: Instruction, comparison: str, kind: str, a: Operand,
            b: Operand) -> tuple[Statement, ...]:
    """The instruction, after a trap where two values compare so."""
    plain = dataclasses.replace(ins, guard=None)
    return (with_opcode(plain, "setp", (comparison, kind), IF, a, b),
            dataclasses.replace(with_opcode(plain, "trap"), guard=IF, guard_negated=False), ins)


def trap_if_more(ins: Instruction, special: str, most: int) -> Change:
    """A probe for launches with more threads or blocks than that (`special` says which)."""
    count: list[Statement] = [with_opcode(ins, "mov", ("u32",), TOTAL, Imm(1))]
    for axis in "xyz":
        count += [with_opcode(ins, "mov", ("u32",), NUMBER, Reg(f"%{special}.{axis}")),
                  with_opcode(ins, "mul", ("lo", "u32"), TOTAL, TOTAL, NUMBER)]
    probe = tuple(dataclasses.replace(s, guard=None) for s in count if isinstance(s, Instruction))
    return Change("", (), {NUMBER.name: "b32", TOTAL.name: "b32", IF.name: "pred"},
                  (*probe, *trap_if(ins, "gt", "u32", TOTAL, Imm(most))))


def for_blocks(ins: Instruction, *mods: str) -> Change:
    """Other modifiers, which make a difference where there are several blocks."""
    changed = with_mods(ins, *mods)
    return dataclasses.replace(trap_if_more(ins, "nctaid", 1), words=name_of(changed),
                               statements=(changed,))


@synchronisation("barrier removed")
def barrier(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in BARRIERS and {"sync", "arrive"} & set(ins.mods) and "warp" not in ins.mods:
        yield REMOVED


@synchronisation("barrier of the warp only")
def narrow_barrier(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in BARRIERS and "sync" in ins.mods and "warp" not in ins.mods:
        changed = with_opcode(ins, "bar", ("warp", "sync"), Imm(0xFFFFFFFF))
        yield dataclasses.replace(trap_if_more(ins, "ntid", 32), words=name_of(changed),
                                  statements=(changed,))


@synchronisation("warp barrier removed")
def warp_barrier(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in BARRIERS and "warp" in ins.mods:
        yield REMOVED


def of_proxy(ins: Instruction) -> bool:
    """Whether the fence is for asynchronous copies."""
    return any(m.startswith(("proxy", "mbarrier_init")) for m in ins.mods)


@synchronisation("fence removed")
def fence(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in ("membar", "fence") and not of_proxy(ins):
        yield REMOVED


@synchronisation("fence weakened")
def weak_fence(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in ("membar", "fence") and not of_proxy(ins) and set(SCOPES) & set(ins.mods):
        yield for_blocks(ins, *("cta" if m in SCOPES else m for m in ins.mods))


@synchronisation("proxy fence removed")
def proxy_fence(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "fence" and of_proxy(ins):
        yield REMOVED


@synchronisation("copies not awaited")
def wait(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "cp" and {"wait_group", "wait_all"} & set(ins.mods):
        yield REMOVED


@synchronisation("one group more may be pending")
def weak_wait(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "cp" and "wait_group" in ins.mods:
        allowed = ins.operands[0]
        assert isinstance(allowed, Imm)
        yield Change(f"{allowed.value + 1}", (with_operand(ins, 0, Imm(allowed.value + 1)),))


@synchronisation("copies not committed")
def commit(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "cp" and "commit_group" in ins.mods:
        yield REMOVED


@synchronisation("mbarrier not initialised")
def mbarrier_init(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and "init" in ins.mods:
        yield REMOVED


@synchronisation("mbarrier with one arrival more")
def mbarrier_count(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and "init" in ins.mods:
        yield changed_number(ins, 1, "add", 1)


@synchronisation("no arrival at mbarrier")
def mbarrier_arrival(ins: Instruction, _: Function) -> Iterator[Change]:
    if (ins.opcode == "mbarrier" and {"arrive", "arrive_drop"} & set(ins.mods)) or (
            ins.opcode == "cp" and any("mbarrier" in m for m in ins.mods)
            and any("arrive" in m for m in ins.mods)):
        yield REMOVED


@synchronisation("mbarrier expects no bytes")
def mbarrier_expectation(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and "expect_tx" in ins.mods:
        arrival = with_mods(ins, *(m for m in ins.mods if m != "expect_tx"))
        yield REMOVED if "arrive" not in ins.mods else Change("arrives only", (
            dataclasses.replace(arrival, operands=ins.operands[:-1]),))


@synchronisation("mbarrier expects more bytes")
def mbarrier_bytes(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and "expect_tx" in ins.mods:
        yield changed_number(ins, len(ins.operands) - 1, "add", 16)


@synchronisation("mbarrier not awaited")
def mbarrier_wait(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and {"test_wait", "try_wait"} & set(ins.mods):
        done = ins.operands[0]
        assert isinstance(done, Reg)
        yield Change("succeeds at once",
                     (with_opcode(ins, "setp", ("eq", "u32"), done, Imm(0), Imm(0)),))


@synchronisation("wrong parity")
def parity(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "mbarrier" and "parity" in ins.mods:
        yield changed_number(ins, 2, "xor", 1)


def changed_number(ins: Instruction, place: int, opcode: str, amount: int) -> Change:
    """The instruction with an operand that is another number."""
    step = with_opcode(ins, opcode, ("b32",) if opcode == "xor" else ("u32",), NUMBER,
                       ins.operands[place], Imm(amount))
    return Change(f"operand {place}: {opcode} {amount}",
                  (step, with_operand(ins, place, NUMBER)), {NUMBER.name: "b32"})


@synchronisation("order relaxed")
def relaxed(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in ("ld", "st", "atom", "red", "mbarrier") and ORDERS & set(ins.mods):
        changed = with_mods(ins, *("relaxed" if m in ORDERS else m for m in ins.mods))
        yield Change(name_of(changed), (changed,))


@synchronisation("scope narrowed")
def narrowed(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in ("ld", "st", "atom", "red") and set(SCOPES) & set(ins.mods):
        yield for_blocks(ins, *("cta" if m in SCOPES else m for m in ins.mods))


@synchronisation("strong access made weak")
def weak(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode in ("ld", "st") and STRONG & set(ins.mods):
        changed = with_mods(ins, *(m for m in ins.mods if m not in (*STRONG, *SCOPES, "cta")))
        yield Change(name_of(changed), (changed,))


@synchronisation("atomic made plain")
def plain(ins: Instruction, _: Function) -> Iterator[Change]:
    operation = next((m for m in ins.mods if m in PLAIN), "")
    if ins.opcode not in ("atom", "red") or not operation or {"v2", "v4", "v8"} & set(ins.mods):
        return
    operands = list(ins.operands)
    to = operands.pop(0) if ins.opcode == "atom" else Sink()
    place, *values = operands
    space = tuple(m for m in ins.mods if m.split("::")[0] in ("global", "shared"))
    bits = f"b{SIZES[ins.type] * 8}"
    old, new, same = (Reg(f"{TEMPORARY}_{n}") for n in ("old", "new", "same"))
    steps = [with_opcode(ins, "ld", (*space, bits), old, place)]
    if operation == "cas":
        steps += [with_opcode(ins, "setp", ("eq", bits), same, old, values[0]),
                  with_opcode(ins, "selp", (bits,), new, values[1], old, same)]
    elif operation == "exch":
        steps.append(with_opcode(ins, "mov", (bits,), new, values[0]))
    else:
        kind = bits if operation in ("and", "or", "xor") else ins.type
        rounding = ("rn",) if "f" in kind and operation == "add" else ()
        steps.append(with_opcode(ins, operation, (*rounding, kind), new, old, values[0]))
    steps.append(with_opcode(ins, "st", (*space, bits), place, new))
    if not isinstance(to, Sink):
        steps.append(with_opcode(ins, "mov", (bits,), to, old))
    yield Change("a load, an operation and a store", tuple(steps),
                 {old.name: bits, new.name: bits, same.name: "pred"})


PLAIN = ("add", "and", "or", "xor", "min", "max", "exch", "cas")


# -- rules: what is computed -----------------------------------------------------------------------

@data("address shifted")
def shifted(ins: Instruction, _: Function) -> Iterator[Change]:
    spaces = {m.split("::")[0] for m in ins.mods}
    if ins.opcode not in ("ld", "st", "atom", "red", "ldmatrix", "stmatrix", "cp") \
            or spaces & {"local", "param", "const", "mbarrier", "prefetch"}:
        return
    for i in [i for i, o in enumerate(ins.operands) if isinstance(o, Mem)][:2]:
        mem, step = ins.operands[i], element(ins)
        assert isinstance(mem, Mem)
        moved = with_operand(ins, i, dataclasses.replace(mem, offset=mem.offset + step))
        yield Change(f"operand {i}: {step} bytes on", (moved,))


def element(ins: Instruction) -> int:
    """Bytes that the instruction accesses."""
    if ins.opcode == "cp":
        return ins.operands[2].value if isinstance(ins.operands[2], Imm) else 16
    if ins.opcode in ("ldmatrix", "stmatrix"):
        return 16
    values = next((o for o in ins.operands if isinstance(o, Vec)), None)
    return SIZES[ins.type] * (len(values.items) if values else 1)


NEAR = {"ge": "gt", "gt": "ge", "le": "lt", "lt": "le", "hs": "hi", "hi": "hs", "ls": "lo",
        "lo": "ls"}


@data("comparison of equals changed")
def comparison(ins: Instruction, _: Function) -> Iterator[Change]:
    if ins.opcode == "setp" and ins.type[:1] in ("s", "u") and set(NEAR) & set(ins.mods):
        changed = with_mods(ins, *(NEAR.get(m, m) for m in ins.mods))
        yield Change(name_of(changed), (changed,), {IF.name: "pred"},
                     trap_if(ins, "eq", ins.type, *ins.operands[1:3]))


def mask_place(ins: Instruction) -> int | None:
    """Which operand is a mask of lanes."""
    if (ins.opcode in ("shfl", "vote", "match", "redux") and "sync" in ins.mods) \
            or ins.opcode == "elect":
        return len(ins.operands) - 1
    return 0 if ins.opcode in BARRIERS and "warp" in ins.mods else None


@data("lane missing in mask")
def fewer_lanes(ins: Instruction, _: Function) -> Iterator[Change]:
    place = mask_place(ins)
    if place is not None:
        mask = ins.operands[place]
        steps = (with_opcode(ins, "add", ("s32",), NUMBER, mask, Imm(-1)),
                 with_opcode(ins, "and", ("b32",), NUMBER, NUMBER, mask))
        yield Change("without the lowest lane", (*steps, with_operand(ins, place, NUMBER)),
                     {NUMBER.name: "b32"})


@data("all lanes in mask")
def more_lanes(ins: Instruction, _: Function) -> Iterator[Change]:
    place = mask_place(ins)
    if place is not None and not isinstance(ins.operands[place], Imm):
        yield Change("with all lanes", (with_operand(ins, place, Imm(0xFFFFFFFF)),),
                     {IF.name: "pred"}, trap_if(ins, "ne", "b32", ins.operands[place], Imm(-1)))


@data("store removed")
def store(ins: Instruction, _: Function) -> Iterator[Change]:
    spaces = {m.split("::")[0] for m in ins.mods}
    if ins.opcode == "stmatrix" or (ins.opcode == "st" and not spaces & {"local", "param"}):
        yield REMOVED
