"""`mov`: copies, addresses, and words taken apart and put together."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.compare import bits_type
from mlgpu.sim.isa.form import form, raw
from mlgpu.sim.ptx.syntax import SIZES, Instruction, Sym, Target, Vec


@form("mov", types="pred b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64", operands=2)
def mov(e: Emitter, ins: Instruction) -> None:
    """d = a."""
    d, a = ins.operands
    type = ins.type
    if isinstance(d, Vec):
        _unpack(e, ins, d)
    elif isinstance(a, Vec):
        _pack(e, ins, a)
    elif isinstance(a, (Sym, Target)):
        if raw(type) not in ("u32", "u64"):
            e.fail("an address has 32 or 64 bits")
        address = e.symbol(a)
        e.set(d, raw(type), address if SIZES[type] == 8 else f"{address}.astype(np.uint32)")
    elif type == "pred":
        e.set(d, type, e.use(a, type))
    else:
        type = bits_type(type, [a])
        e.set(d, type, e.use(a, type))


def _part(e: Emitter, ins: Instruction, vector: Vec) -> int:
    """The bits of each part of a word."""
    if ins.type[0] != "b":
        e.malformed(f"a vector for .{ins.type}; only untyped words have parts")
    width = 8 * SIZES[ins.type]
    if len(vector.items) not in (2, 4, 8) or width // len(vector.items) < 8:
        e.fail(f"{width} bits in {len(vector.items)} parts")
    return width // len(vector.items)


def _pack(e: Emitter, ins: Instruction, vector: Vec) -> None:
    part, whole = _part(e, ins, vector), raw(ins.type)
    terms = []
    for k, item in enumerate(vector.items):
        value = f"{e.use(item, f'u{part}')}.astype(np.uint{whole[1:]})"
        terms.append(f"({value} << {k * part})" if k else value)
    e.set(ins.operands[0], whole, " | ".join(terms))


def _unpack(e: Emitter, ins: Instruction, vector: Vec) -> None:
    part = _part(e, ins, vector)
    value = e.use(ins.operands[1], raw(ins.type))
    for k, item in enumerate(vector.items):
        shifted = f"({value} >> {k * part})" if k else value
        e.set(item, f"u{part}", f"{shifted}.astype(np.uint{part})")
