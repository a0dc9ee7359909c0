"""Conversions: `cvt` between all types, and `cvt.pack`."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.floating import bits16, read
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.numeric import convert, fp8, half, rounding
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Instruction, Operand, Vec

_INTEGERS = frozenset("u8 u16 u32 u64 s8 s16 s32 s64".split())
_FLOATS = frozenset("f16 bf16 f32 f64".split())
_PAIRS = {"f16x2": "f16", "bf16x2": "bf16"}
_SMALL = {f"{name}x{n}": (name, n) for name in fp8.FORMATS if name not in _FLOATS for n in (2, 4)}
_FLAGS = frozenset("ftz sat relu satfinite".split())
_TO_WHOLE = frozenset("rni rzi rmi rpi".split())
_TO_FLOAT = frozenset("rn rz rm rp rna rs".split())
_LARGEST = {"f16": 65504.0, "bf16": float.fromhex("0x1.fep127"),
            "tf32": float.fromhex("0x1.ffcp127")}


@instruction("cvt")
def cvt(e: Emitter, ins: Instruction) -> None:
    """Convert a value, or pack several converted ones."""
    if ins.has("pack"):
        _pack(e, ins)
        return
    known = _FLAGS | _TO_WHOLE | _TO_FLOAT
    types = [mod for mod in ins.mods if mod not in known]
    modes = [mod for mod in ins.mods if mod in _TO_WHOLE | _TO_FLOAT]
    if len(types) != 2 or len(modes) > 1:
        e.fail("cvt takes one rounding mode, and the types of the result and of the source")
    to, source = types
    mode = modes[0] if modes else ""
    if to in _SMALL:
        _to_small(e, ins, to, source, mode)
    elif source in _SMALL and to in _PAIRS:
        _from_small(e, ins, to, source, mode)
    elif to in _PAIRS and source == "f32":
        _to_pair(e, ins, to, mode)
    elif len(ins.operands) != 2:
        e.fail(f"cvt.{to}.{source} with {len(ins.operands)} operands")
    elif to == "tf32" and source == "f32":
        _to_tf32(e, ins, mode)
    elif to in _INTEGERS and source in _INTEGERS:
        _between_integers(e, ins, to, source)
    elif to in _INTEGERS and source in _FLOATS:
        _to_integer(e, ins, to, source, mode or "rzi")
    elif to in _FLOATS and source in _INTEGERS:
        _from_integer(e, ins, to, source, mode or "rn")
    elif to in _FLOATS and source in _FLOATS:
        _between_floats(e, ins, to, source, mode or "rn")
    else:
        e.fail(f"no conversion from {source} to {to}")


# -- integers ------------------------------------------------------------------------------------

def _between_integers(e: Emitter, ins: Instruction, to: str, source: str) -> None:
    d, a = ins.operands
    value = e.use(a, source)
    if ins.has("sat"):
        e.set(d, to, f"{e.fn(convert.saturated)}({value}, {e.fn(DTYPES[to])})")
    elif DTYPES[to] == DTYPES[source]:
        e.set(d, to, value)
    else:
        e.set(d, to, f"{value}.astype({e.fn(DTYPES[to])})")


def _to_integer(e: Emitter, ins: Instruction, to: str, source: str, mode: str) -> None:
    if mode not in _TO_WHOLE:
        e.fail(f"a conversion to an integer does not round .{mode}")
    d, a = ins.operands
    value = read(e, a, source, ins.has("ftz") and source == "f32")
    e.set(d, to, f"{e.fn(convert.to_integer)}({value}, {e.fn(DTYPES[to])}, {mode!r}, "
                 f"{source == 'f64'})")


def _from_integer(e: Emitter, ins: Instruction, to: str, source: str, mode: str) -> None:
    if mode not in ("rn", "rz", "rm", "rp"):
        e.fail(f"a conversion from an integer does not round .{mode}")
    d, a = ins.operands
    value = e.use(a, source)
    if to in ("f32", "f64"):
        if mode == "rn":
            value = f"{value}.astype({e.fn(DTYPES[to])})"
        else:
            value = (f"{e.fn(convert.integer_to_float)}({value}, {e.fn(DTYPES[to])}, {mode!r})")
        if ins.has("sat"):
            value = f"{e.fn(rounding.saturate)}({value})"
        e.set(d, to, value)
    else:
        _encode(e, ins, d, to, f"{e.fn(convert.integer_to_odd)}({value})", mode)


def _pack(e: Emitter, ins: Instruction) -> None:
    """`cvt.pack.sat.u8.s32.b32 d, a, b, c`: two saturated integers below the low bits of c."""
    types = [mod for mod in ins.mods if mod not in ("pack", "sat")]
    wide = types in (["u16", "s32"], ["s16", "s32"])
    narrow = types in [[type, "s32", "b32"] for type in ("u8", "s8", "u4", "s4", "u2", "s2")]
    if not ins.has("sat") or not (wide or narrow) or len(ins.operands) != 3 + narrow:
        e.fail("this form of cvt.pack is unknown")
    d, a, b, *more = ins.operands
    above = e.use(more[0], "b32") if narrow else "None"
    e.set(d, "u32", f"{e.fn(convert.packed)}({e.use(a, 's32')}, {e.use(b, 's32')}, {above}, "
                    f"{int(types[0][1:])}, {types[0][0] == 's'})")


# -- floats --------------------------------------------------------------------------------------

def _between_floats(e: Emitter, ins: Instruction, to: str, source: str, mode: str) -> None:
    d, a = ins.operands
    flushed = ins.has("ftz") and source == "f32" and to != "f16"  # hardware rounds it as it is
    value = read(e, a, source, flushed)
    if mode in _TO_WHOLE:
        if to != source:
            e.fail("rounding to a whole number keeps the type")
        value = f"{e.fn(convert.whole)}({value}, {mode!r})"
        mode = "rn"
    _encode(e, ins, d, to, value, mode, "f8" if source == "f64" else "f4")


def _encode(e: Emitter, ins: Instruction, d: Operand, to: str, value: str, mode: str,
            have: str = "f8") -> None:
    """Set d to a float32 or float64 (`have`) value, rounded by the mode."""
    if mode not in ("rn", "rz", "rm", "rp"):
        e.fail(f"a conversion to {to} does not round .{mode}")
    if to == "f64":
        value = value if have == "f8" else f"{value}.astype({e.fn(DTYPES['f64'])})"
    elif to == "f32" and have == "f8":
        value = (f"{value}.astype({e.fn(DTYPES['f32'])})" if mode == "rn" else
                 f"{e.fn(rounding.narrow)}({value}, {e.fn(DTYPES['f32'])}, {mode!r})")
    if to in ("f32", "f64"):
        value = _clamped(e, ins, value, to)
        if ins.has("ftz") and to == "f32":
            value = f"{e.fn(rounding.flush)}({value})"
        e.set(d, to, value)
    else:
        e.set(d, to, _to_16(e, ins, to, value, mode, have))


def _to_16(e: Emitter, ins: Instruction, to: str, value: str, mode: str, have: str = "f4") -> str:
    """The expression for float16 or bfloat16 of a value."""
    value = _clamped(e, ins, value, to)
    nearest, other = ((half.float_to_half, half.float_to_half_by) if to == "f16" else
                      (half.float_to_bfloat, half.float_to_bfloat_by))
    if mode == "rn" and have == "f4":
        return f"{e.fn(nearest)}({value})"
    return f"{e.fn(other)}({value}, {mode!r})"


def _clamped(e: Emitter, ins: Instruction, value: str, to: str) -> str:
    """The expression after .sat, .relu and .satfinite, which may come before rounding."""
    if ins.has("sat"):
        value = f"{e.fn(rounding.saturate)}({value})"
    if ins.has("relu"):
        value = f"{e.fn(rounding.relu)}({value})"
    if ins.has("satfinite"):
        if to not in _LARGEST:
            e.fail(f"no .satfinite for {to}")
        value = f"np.clip({value}, {-_LARGEST[to]!r}, {_LARGEST[to]!r})"
    return value


def _to_tf32(e: Emitter, ins: Instruction, mode: str) -> None:
    if mode not in ("rn", "rz", "rna"):
        e.fail("a conversion to tf32 rounds .rn, .rz or .rna")
    value = _clamped(e, ins, read(e, ins.operands[1], "f32"), "tf32")
    e.set(ins.operands[0], "tf32", f"{e.fn(half.float_to_tf32)}({value}, {mode!r}, "
                                   f"{ins.has('satfinite')})")


def _to_pair(e: Emitter, ins: Instruction, to: str, mode: str) -> None:
    """Two float32 into one register, the first in the upper half."""
    part = _PAIRS[to]
    if len(ins.operands) != 3 + (mode == "rs") or mode not in ("rn", "rz", "rs"):
        e.fail(f"cvt.{to}.f32 rounds .rn, .rz or .rs, which has random bits")
    values = [read(e, x, "f32") for x in ins.operands[1:3]]
    if mode == "rs":
        random, bits = e.use(ins.operands[3], "b32"), 13 if part == "f16" else 16
        halves = [f"{e.fn(fp8.stochastic)}({value}, {part!r}, {random} >> {shift} & "
                  f"{(1 << bits) - 1:#x}, {bits}, {ins.has('satfinite')}, {ins.has('relu')})"
                  for value, shift in zip(values, (16, 0), strict=True)]
    else:
        halves = [_to_16(e, ins, part, value, mode) for value in values]
    e.set(ins.operands[0], to, f"{e.fn(half.join)}({halves[0]}, {halves[1]})")


# -- small formats -------------------------------------------------------------------------------

def _to_small(e: Emitter, ins: Instruction, to: str, source: str, mode: str) -> None:
    """Two or four values into one register, the first in the highest place."""
    name, count = _SMALL[to]
    bits = 4 if name == "e2m1" else 8
    finite, relu = ins.has("satfinite"), ins.has("relu")
    d, *rest = ins.operands
    if count == 4:
        if mode != "rs" or source != "f32" or len(rest) != 2 or not isinstance(rest[0], Vec) or (
                len(rest[0].items) != 4):
            e.fail(f"cvt.{to} takes four float32 in braces and random bits for .rs")
        codes = _stochastic_codes(e, name, rest[0].items, rest[1], finite, relu)
    elif mode not in ("rn", "rz", "rp"):
        e.fail(f"cvt.{to} does not round .{mode}")
    elif source == "f32" and len(rest) == 2:
        codes = [f"{e.fn(fp8.from_float)}({read(e, x, 'f32')}, {name!r}, {mode!r}, "
                 f"{finite}, {relu})" for x in rest]
    elif source in _PAIRS and len(rest) == 1:
        halves = bits16(e, rest[0], source)
        codes = [f"{e.fn(fp8.from_bits)}({halves}[..., {k}], {_PAIRS[source]!r}, {name!r}, "
                 f"{mode!r}, {finite}, {relu})" for k in (1, 0)]
    else:
        e.fail(f"no conversion from {source} to {to} with {len(ins.operands)} operands")
    raw = f"b{bits * count}"
    word = codes[0]
    for code in codes[1:]:
        word = f"({word}).astype({e.fn(DTYPES[raw])}) << {bits} | {code}"
    e.set(d, raw, word)


def _stochastic_codes(e: Emitter, name: str, values: tuple[Operand, ...], random: Operand,
                      finite: bool, relu: bool) -> list[str]:
    """The codes of a, b, e, f: the first two share 16 random bits, and so do the others."""
    word = e.use(random, "b32")
    if name == "e2m1":  # the upper bytes of both halves; the lower bytes of both halves
        shared = [f"({word} >> 16 & 0xff00 | {word} >> 8 & 0xff)",
                  f"({word} >> 8 & 0xff00 | {word} & 0xff)"]
    else:
        shared = [f"({word} >> 16)", f"({word} & 0xffff)"]
    return [f"{e.fn(fp8.stochastic)}({read(e, value, 'f32')}, {name!r}, {shared[k // 2]}, 16, "
            f"{finite}, {relu})" for k, value in enumerate(values)]


def _from_small(e: Emitter, ins: Instruction, to: str, source: str, mode: str) -> None:
    """Two codes of a register as two float16 or bfloat16."""
    name, count = _SMALL[source]
    if count != 2 or mode != "rn" or len(ins.operands) != 2:
        e.fail(f"no such conversion from {source} to {to}")
    if name == "e2m1":
        codes, shift, mask = e.use(ins.operands[1], "b8"), 4, 0xf
    else:
        codes, shift, mask = e.use(ins.operands[1], "b16"), 8, 0xff
    high, low = (f"{e.fn(fp8.to_bits)}({code}, {name!r}, {_PAIRS[to]!r}, {ins.has('relu')})"
                 for code in (f"{codes} >> {shift}", f"{codes} & {mask:#x}"))
    e.set(ins.operands[0], to, f"{e.fn(half.join)}({high}, {low})")
