"""PTX as data: what the parser makes of the text and everything after it reads."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the CUDA source (or in the PTX text itself, where it has no `.loc`)."""

    file: str
    line: int
    calls: tuple[str, ...] = ()  # "file:line" of the callers it was inlined into, innermost first


@dataclass(frozen=True, slots=True)
class Reg:
    """A register, or a special one with its dimension: `%r1`, `%p2`, `%tid.x`, `%laneid`."""

    name: str


@dataclass(frozen=True, slots=True)
class Imm:
    """A constant: an integer as written (may be negative), or the bits of `0f…` / `0d…`.

    kind is "int", "f32" (value = 32 bits of an IEEE single) or "f64" (value = 64 bits).  A decimal
    floating-point constant is "f64", as the PTX manual has it.
    """

    value: int
    kind: str = "int"


@dataclass(frozen=True, slots=True)
class Sym:
    """The address of a variable or function, plus a byte offset; `generic(x)` sets generic."""

    name: str
    offset: int = 0
    generic: bool = False


@dataclass(frozen=True, slots=True)
class Mem:
    """An address operand: `[base+offset]`."""

    base: Reg | Sym | Imm
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vec:
    """A vector operand: `{%r1, %r2}`."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two destinations in one operand: `%r1|%p1`; either may be the sink `_`."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Not:
    """A negated predicate operand: `!%p1`."""

    reg: Reg


@dataclass(frozen=True, slots=True)
class Sink:
    """The operand `_`."""


@dataclass(frozen=True, slots=True)
class Target:
    """The operand of a branch or call: a label, function, prototype or table name."""

    name: str


@dataclass(frozen=True, slots=True)
class Args:
    """A parenthesised list of a call: `(param0, param1)`."""

    items: tuple[Operand, ...]


Operand = Reg | Imm | Sym | Mem | Vec | Pair | Not | Sink | Target | Args


@dataclass(slots=True)
class Instruction:
    """One instruction: `@!%p1 ld.global.v4.f32 {…}, [%rd1+16];`"""

    opcode: str  # "ld": up to the first dot
    mods: tuple[str, ...]  # ("global", "v4", "f32"): the rest, without dots; "::" parts whole
    operands: tuple[Operand, ...]
    guard: Reg | None = None
    guard_negated: bool = False
    location: Location = Location("", 0)
    text: str = ""  # as in the PTX, without guard and semicolon, spaces normalised

    @property
    def type(self) -> str:
        """The last type among the modifiers: the type of the operation ("" where it has none)."""
        for mod in reversed(self.mods):
            if mod in TYPES:
                return mod
        return ""

    def has(self, mod: str) -> bool:
        """Whether the modifier is there."""
        return mod in self.mods


@dataclass(slots=True)
class Label:
    """A place a branch can go to."""

    name: str


@dataclass(slots=True)
class BranchTargets:
    """`name: .branchtargets a, b, c;`, the table of a `brx.idx`."""

    name: str
    labels: tuple[str, ...]


@dataclass(slots=True)
class CallPrototype:
    """`name: .callprototype (…) _ (…);`, the signature of an indirect call."""

    name: str
    returns: tuple[Variable, ...]
    params: tuple[Variable, ...]


Statement = Instruction | Label | BranchTargets | CallPrototype


@dataclass(slots=True)
class Variable:
    """A declared variable or parameter; `count` elements (None: `[]`, sized by the launch)."""

    name: str
    space: str  # "global", "const", "shared", "local", "param", "reg" (a register parameter)
    type: str  # "b8", "f32", …
    align: int  # bytes
    count: int | None = 1
    scalar: bool = True  # declared without brackets
    init: bytes = b""  # what it starts as; shorter than its size means zeros follow
    # Addresses inside init: (byte offset, size in bytes, symbol, addend, generic)
    relocations: tuple[tuple[int, int, str, int, bool], ...] = ()
    linkage: str = ""  # "visible", "extern", "weak", "common" or ""

    @property
    def size(self) -> int:
        """Bytes (0 where the launch sizes it)."""
        return SIZES[self.type] * (self.count or 0)


@dataclass(slots=True)
class Function:
    """A kernel (`.entry`) or a device function (`.func`); no body is a declaration."""

    name: str
    entry: bool
    params: list[Variable] = field(default_factory=list)
    returns: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)  # name -> type, after `%r<5>` expansion
    variables: list[Variable] = field(default_factory=list)  # .local, .shared, .param of the body
    body: list[Statement] | None = None
    directives: dict[str, tuple[int, ...]] = field(default_factory=dict)  # "maxntid": (256, 1, 1)
    line: int = 0  # in the PTX text


@dataclass(slots=True)
class Module:
    """A whole PTX text."""

    version: tuple[int, int]
    target: str  # "sm_90a"
    address_size: int
    variables: dict[str, Variable] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)


SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2,
         "b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "tf32": 4, "u16x2": 4,
         "s16x2": 4, "e4m3": 1, "e5m2": 1, "e4m3x2": 2, "e5m2x2": 2, "e2m1": 1, "e2m1x2": 1,
         "e3m2": 1, "e2m3": 1, "e3m2x2": 2, "e2m3x2": 2, "ue8m0": 1, "ue8m0x2": 2,
         "b64": 8, "u64": 8, "s64": 8, "f64": 8, "f32x2": 8, "b128": 16, "b1": 1, "u4": 1, "s4": 1}
TYPES = frozenset(SIZES)
