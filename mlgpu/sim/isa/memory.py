"""Loads, stores, atomics and reductions."""

from __future__ import annotations

from mlgpu.sim import access, atomics
from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, one_of
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import SIZES, Instruction, Mem, Operand, Sink, Sym, Vec

STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio")
SPACES = {"global": "global", "const": "const", "shared": "shared", "shared::cta": "shared",
          "shared::cluster": "shared", "local": "local", "param": "param", "param::entry": "param",
          "param::func": "param"}
LOADS = {"global": access.load_global, "const": access.load_global, "shared": access.load_shared,
         "local": access.load_local, "": access.load_generic, "param": access.load_global}
STORES = {"global": access.store_global, "shared": access.store_shared,
          "local": access.store_local, "": access.store_generic}
RAW = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


_CACHE = """ca cg cs lu cv wb wt L1::evict_normal L1::evict_unchanged L1::evict_first
    L1::evict_last L1::no_allocate L2::evict_normal L2::evict_first L2::evict_last L2::cache_hint
    L2::64B L2::128B L2::256B"""
_COMMON = f"{' '.join(SPACES)} weak relaxed volatile mmio cta cluster gpu sys v2 v4 v8 {_CACHE}"
_TYPES = "b8 b16 b32 b64 b128 u8 u16 u32 u64 s8 s16 s32 s64 f32 f64"


def space_of(ins: Instruction) -> str:
    """The address space that the instruction names ("" for the generic one)."""
    return next((SPACES[m] for m in ins.mods if m in SPACES), "")


def space_at(e: Emitter, ins: Instruction, address: Operand) -> str:
    """The address space of an access: as the instruction says, which must suit its variable."""
    if not isinstance(address, Mem):
        e.malformed("an address in brackets was expected")
    named = [m for m in ins.mods if m in SPACES]
    if len(named) > 1:
        e.malformed(f"two address spaces, .{named[0]} and .{named[1]}")
    space = space_of(ins)
    if isinstance(address.base, Sym):
        its = e.code.spaces.get(address.base.name, "")
        if space and its and its != space:
            e.malformed(f"{address.base.name} is a variable in .{its}, the access is .{space}")
        return space or ("" if its in ("global", "const") else its)
    return space


def vector(e: Emitter, ins: Instruction, operand: Operand) -> tuple[Operand, ...]:
    """The registers of an access: as many as .v2, .v4 or .v8 says."""
    width = next((int(m[1]) for m in ("v2", "v4", "v8") if m in ins.mods), 1)
    items = operand.items if isinstance(operand, Vec) else (operand,)
    if len(items) != width:
        e.malformed(f"{len(items)} registers where {width} are needed")
    if SIZES[ins.type] * width > 32:
        e.fail("an access of more than 32 bytes")
    return items


def flags_of(ins: Instruction) -> dict[str, object]:
    """How the access orders others: strong, acquire, release, and its scope."""
    scope = next((m for m in ("cta", "cluster", "gpu", "sys") if m in ins.mods), "gpu")
    return {"strong": any(m in ins.mods for m in STRONG),
            "acquire": ins.has("acquire") or ins.has("acq_rel"),
            "release": ins.has("release") or ins.has("acq_rel"), "scope": scope}


@form("ld", types=_TYPES, mods=f"{_COMMON} acquire nc", operands=2, most=3)
@form("ldu", types=_TYPES, mods="global v2 v4", operands=2)
def load(e: Emitter, ins: Instruction) -> None:
    """A load into one register or a vector of them."""
    to, source = ins.operands[:2]
    _check_scope(e, ins)
    space, kind = space_at(e, ins, source), ins.type
    items = vector(e, ins, to)
    _check_policy(e, ins, 2)
    if kind == "b128":
        e.fail("elements of 128 bits are not simulated; use .v2 of .b64")
    if space == "param" and isinstance(source, Mem) and isinstance(source.base, Sym) \
            and source.base.name in e.code.param_offsets:
        at = e.code.param_offsets[source.base.name] + source.base.offset + source.offset
        if not 0 <= at <= e.code.param_size - len(items) * SIZES[kind]:
            e.malformed(f"an access outside the kernel's {e.code.param_size} bytes of parameters")
        for i, item in enumerate(items):
            e.set(item, kind, f"x.param({at + i * SIZES[kind]}, {e.fn(DTYPES[kind])})")
        return
    flags = flags_of(ins)
    if source in e.code.guesses:
        flags["strong"] = True
    dtype = DTYPES[kind]
    site = e.site("read", "const" if space == "param" else space, dtype, len(items), **flags)
    address = e.address(source)
    function = f"access.{LOADS[space].__name__}"
    result = e.bind(e.guarded_values(function, len(items), dtype, address, site))
    for i, item in enumerate(items):
        e.set(item, kind, f"{result}[{i}]")


@form("st", types=_TYPES, mods=f"{_COMMON} release", operands=2, most=3)
def store(e: Emitter, ins: Instruction) -> None:
    """A store from one register or a vector of them."""
    target, source = ins.operands[:2]
    _check_scope(e, ins)
    space, kind = space_at(e, ins, target), ins.type
    items = vector(e, ins, source)
    _check_policy(e, ins, 2)
    if kind == "b128":
        e.fail("elements of 128 bits are not simulated; use .v2 of .b64")
    if space not in STORES:
        e.malformed(f"a store to .{space}: a kernel cannot write there")
    site = e.site("write", space, DTYPES[kind], len(items), **flags_of(ins))
    values = ", ".join(e.use(i, kind) for i in items)
    address = e.address(target)
    e.line(e.guarded(f"access.{STORES[space].__name__}", address, site, f"[{values}]"))


def _check_scope(e: Emitter, ins: Instruction) -> None:
    """Refuse a scope where the access orders nothing."""
    scope = next((m for m in ("cta", "cluster", "gpu", "sys") if m in ins.mods), "")
    if scope and not any(m in ins.mods for m in STRONG):
        e.malformed(f".{scope} without .relaxed, .acquire or the like")


def _check_policy(e: Emitter, ins: Instruction, operands: int) -> None:
    """A cache policy is the last operand of what has .L2::cache_hint, and of nothing else."""
    if len(ins.operands) != operands + ins.has("L2::cache_hint"):
        e.malformed(f"{len(ins.operands)} operands; {ins.opcode} takes {operands}, and a cache "
                    "policy with .L2::cache_hint")


# The types that the operations of atom and red are defined for, and those of their vector forms.
_ADDED = "f16 f16x2 bf16 bf16x2".split()
_BITS = ("b32", "b64")
ATOMIC_TYPES = {
    "add": ("u32", "s32", "u64", "f32", "f64", *_ADDED), "and": _BITS, "or": _BITS, "xor": _BITS,
    "min": ("u32", "s32", "u64", "s64", *_ADDED), "max": ("u32", "s32", "u64", "s64", *_ADDED),
    "inc": ("u32",), "dec": ("u32",), "exch": (*_BITS, "b128"), "cas": ("b16", *_BITS, "b128")}
_ATOMIC = (f"{' '.join(atomics.OPERATIONS)} global shared shared::cta shared::cluster relaxed "
           "cta cluster gpu sys v2 v4 v8 noftz L2::cache_hint")
_ATOMIC_TYPES = "b16 b32 b64 b128 u32 u64 s32 s64 f32 f64 f16 f16x2 bf16 bf16x2"


@form("atom", types=_ATOMIC_TYPES, mods=f"{_ATOMIC} acquire release acq_rel", operands=3, most=5)
@form("red", types=_ATOMIC_TYPES, mods=f"{_ATOMIC} release", operands=2, most=3)
def atomic(e: Emitter, ins: Instruction) -> None:
    """A read-modify-write; `red` gives no old value back."""
    operation = one_of(e, ins, atomics.OPERATIONS, "operation")
    kind = ins.type
    if kind not in ATOMIC_TYPES[operation] or (ins.opcode == "red" and operation in (
            "cas", "exch")):
        e.malformed(f"{ins.opcode}.{operation} has no .{kind}")
    if kind == "b128":
        e.fail("atomics of 128 bits are not simulated")
    if operation == "add" and kind in _ADDED and not ins.has("noftz"):
        e.malformed(f"{ins.opcode}.add.{kind} without .noftz")
    wanted = 2 if operation == "cas" else 1
    _check_policy(e, ins, wanted + (2 if ins.opcode == "atom" else 1))
    operands = list(ins.operands)
    to = operands.pop(0) if ins.opcode == "atom" else Sink()
    place = operands.pop(0)
    space = space_at(e, ins, place)
    if space not in ("", "global", "shared"):
        e.malformed(f"an atomic operation on .{space}")
    result = not isinstance(to, Sink)
    items = vector(e, ins, to) if result else ()
    address = e.address(place)
    width = len(vector(e, ins, operands[0]))
    raw = RAW[SIZES[kind]] if DTYPES[kind].kind != "f" or SIZES[kind] == 2 else kind
    if operation in ("min", "max", "add") and DTYPES[kind].kind == "i":
        raw = kind
    flags = flags_of(ins) | {"strong": True}
    site = e.site("atomic", space, DTYPES[raw], width, **flags)
    values = ["[" + ", ".join(e.use(i, raw) for i in vector(e, ins, operand)) + "]"
              for operand in operands[:wanted]]
    given = (address, site, repr(operation), repr(kind), str(result), *values)
    if not result:
        e.line(e.guarded("atomics.atomic", *given))
        return
    found = e.bind(e.guarded_values("atomics.atomic", width, DTYPES[raw], *given))
    for i, item in enumerate(items):
        e.set(item, raw, f"{found}[{i}]")
