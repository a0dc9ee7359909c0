"""Floating-point arithmetic, comparison and selection, of every width but the approximations.

float16 and bfloat16, packed or not, are computed in float32 and rounded back; see `numeric.half`.

Compared with an H200 on edge cases and random numbers, all results are the same but for two things.
NaN results of float32 keep the sign and payload that NumPy gives them, and so do abs and neg of any
type: making the H200's 0x7fffffff of them would cost more than the operation.  And where a product
or quotient just below 2^-126 is rounded to 2^-126, `.ftz` on hardware may still give zero, since it
judges what rounding to 24 bits makes of it; here 2^-126 stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import first_type, form, pair
from mlgpu.sim.isa.registry import Emit
from mlgpu.sim.numeric import approx, double, half, rounding
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Imm, Instruction, Operand, Reg

FLOAT: dict[str, Emit] = {}

_MODES = ("rn", "rz", "rm", "rp")
_PACKED = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}
_INFINITY = {"f16": 0x7c00, "bf16": 0x7f80}
_U2, _F4 = DTYPES["b16"], DTYPES["f32"]


# -- declaring -----------------------------------------------------------------------------------

def _floating(*opcodes: str, mods: Mapping[str, str], operands: int,
              most: int = 0) -> Callable[[Emit], Emit]:
    """Declare the function for opcodes whose integer forms are elsewhere: modifiers by type.

    A packed type has the modifiers of its part unless it is listed itself.
    """
    known = {type: frozenset(words.split()) for type, words in mods.items()}
    count = range(operands, (most or operands) + 1)

    def declare(emit: Emit) -> Emit:
        def checked(e: Emitter, ins: Instruction) -> None:
            if ins.type in known:
                allowed = known[ins.type]
            elif _PACKED.get(ins.type) in known:
                allowed = known[_PACKED[ins.type]] - {"f32"}
            else:
                e.fail(f"{ins.opcode} has no .{ins.type}")
            for mod in ins.mods:
                if mod not in allowed and mod != ins.type:
                    e.fail(f"{ins.opcode}.{ins.type} has no .{mod} here")
            if len(ins.operands) not in count:
                e.fail(f"{ins.opcode} with {len(ins.operands)} operands")
            emit(e, ins)
        for opcode in opcodes:
            FLOAT[opcode] = checked
        return emit
    return declare


def mode_of(ins: Instruction) -> str:
    """The rounding mode; nearest where none is given."""
    return next((mod for mod in _MODES if ins.has(mod)), "rn")


# -- reading and writing -------------------------------------------------------------------------

_MADE: WeakKeyDictionary[Emitter, dict[tuple[str, str], str]] = WeakKeyDictionary()


def derived(e: Emitter, name: str, how: str, expression: str) -> str:
    """The name of something made from the array `name`; made once."""
    made = _MADE.setdefault(e, {})
    if (name, how) not in made:
        made[name, how] = e.bind(expression)
    return made[name, how]


def bits16(e: Emitter, operand: Operand, type: str) -> str:
    """The bits of a 16-bit float, or of both along a last axis."""
    if type in _PACKED:
        words = e.use(operand, "b32")
        return derived(e, words, "u2", f"{e.fn(half.unpack)}({words}, {e.fn(_U2)})")
    if isinstance(operand, Imm) and operand.kind != "int" and type == "f16":
        return e.bind(f"{e.use(operand, 'f16')}.view({e.fn(_U2)})")
    return e.use(operand, "b16")


def read(e: Emitter, operand: Operand, type: str, ftz: bool = False) -> str:
    """The operand as an array to compute with: float32, or float64 for f64."""
    if type == "f64":
        return e.use(operand, type)
    if type in ("f32", "f32x2"):
        name = e.use(operand, "f32" if type == "f32" else "b64")
        if type == "f32x2":
            name = derived(e, name, "f4", f"{e.fn(half.unpack)}({name}, {e.fn(_F4)})")
        return derived(e, name, "flush", f"{e.fn(rounding.flush)}({name})") if ftz else name
    name = bits16(e, operand, type)
    if type.startswith("bf16"):
        return derived(e, name, "bf16", f"{e.fn(half.bfloat_to_float)}({name})")
    if ftz:
        name = derived(e, name, "flush", f"{e.fn(half.flush16)}({name})")
    return derived(e, name, "f16", f"{e.fn(half.half_to_float)}({name})")


def write(e: Emitter, operand: Operand, type: str, value: str, ins: Instruction) -> None:
    """Bind the result, given as `read` gives operands, after .sat, .relu and .ftz."""
    if ins.has("sat"):
        value = f"{e.fn(rounding.saturate)}({value})"
    if ins.has("relu"):
        value = f"{e.fn(rounding.relu)}({value})"
    if type in ("f32", "f32x2") and ins.has("ftz"):
        value = f"{e.fn(rounding.flush)}({value})"
    if type in ("f16", "f16x2"):
        if ins.has("ftz"):
            value = f"{e.fn(half.flush_to_half)}({value})"
        value = f"{e.fn(half.float_to_half)}({value})"
    elif type in ("bf16", "bf16x2"):
        value = f"{e.fn(half.float_to_bfloat)}({value})"
    if type in _PACKED:
        value = f"{e.fn(half.pack)}({value}, {e.fn(DTYPES[type])})"
    e.set(operand, type, value)
    if type == "f32" and ins.has("ftz"):
        note_flushed(e, operand, ins)


def note_flushed(e: Emitter, operand: Operand, ins: Instruction) -> None:
    """Remember that what the instruction left has no subnormals, so that no reader flushes it."""
    if ins.guard is None and isinstance(operand, Reg):
        name = e.values[operand.name][0]
        _MADE.setdefault(e, {})[name, "flush"] = name


def write16(e: Emitter, operand: Operand, type: str, bits: str) -> None:
    """Bind a result given as `bits16` gives operands."""
    if type in _PACKED:
        e.set(operand, "b32", f"{e.fn(half.pack)}({bits}, {e.fn(DTYPES['b32'])})")
    else:
        e.set(operand, "b16", bits)


# -- arithmetic ----------------------------------------------------------------------------------

_ALL = "rn rz rm rp"
_SUMS = {"f32": f"{_ALL} ftz sat", "f32x2": f"{_ALL} ftz", "f64": _ALL, "f16": "rn ftz sat",
         "bf16": "rn"}
# What a float32 operation on float16 or bfloat16 operands (sm_100) may have.
_MIXED = {"f16": "rn rz rm rp ftz sat f32", "bf16": "rn rz rm rp sat f32"}


def _types(ins: Instruction) -> tuple[str, str]:
    """The types of the result and of the factors: `fma.rn.f32.f16` multiplies float16."""
    return ("f32" if ins.has("f32") else ins.type), ins.type


@_floating("add", "sub", mods=_SUMS | _MIXED, operands=3)
def add(e: Emitter, ins: Instruction) -> None:
    """a + b, a - b."""
    result, type = _types(ins)
    a = read(e, ins.operands[1], type, ins.has("ftz"))
    b = read(e, ins.operands[2], result, ins.has("ftz"))
    mode = mode_of(ins)
    if mode == "rn":
        value = f"{a} + {b}" if ins.opcode == "add" else f"{a} - {b}"
    else:
        function = e.fn(double.add64_to if result == "f64" else rounding.add32_to)
        value = f"{function}({a}, {b if ins.opcode == 'add' else f'-{b}'}, {mode!r})"
    write(e, ins.operands[0], result, value, ins)


@_floating("mul", mods=_SUMS, operands=3)
def mul(e: Emitter, ins: Instruction) -> None:
    """a * b."""
    a, b = (read(e, x, ins.type, ins.has("ftz")) for x in ins.operands[1:])
    mode = mode_of(ins)
    if mode == "rn":
        value = f"{a} * {b}"
    else:
        function = e.fn(double.mul64_to if ins.type == "f64" else rounding.mul32_to)
        value = f"{function}({a}, {b}, {mode!r})"
    write(e, ins.operands[0], ins.type, value, ins)


_FUSED = {"f32": f"{_ALL} ftz sat", "f32x2": f"{_ALL} ftz", "f64": _ALL,
          "f16": "rn rz rm rp ftz sat relu f32", "bf16": "rn rz rm rp sat relu f32"}


@_floating("fma", "mad", mods=_FUSED, operands=4)
def fma(e: Emitter, ins: Instruction) -> None:
    """a * b + c, rounded once."""
    result, type = _types(ins)
    a, b = (read(e, x, type, ins.has("ftz")) for x in ins.operands[1:3])
    c = read(e, ins.operands[3], result, ins.has("ftz"))
    mode = mode_of(ins)
    if result in ("f64", "f32", "f32x2"):
        nearest, other = ((double.fma64, double.fma64_to) if result == "f64" else
                          (rounding.fma32, rounding.fma32_to))
        value = (f"{e.fn(nearest)}({a}, {b}, {c})" if mode == "rn" else
                 f"{e.fn(other)}({a}, {b}, {c}, {mode!r})")
    else:
        if mode != "rn":
            e.fail(f"fma.{result} rounds to nearest only")
        drop = 16 if result.startswith("bf16") else 13
        value = f"{e.fn(rounding.fma32_for)}({a}, {b}, {c}, {drop})"
    write(e, ins.operands[0], result, value, ins)


form("fma", types="f16 f16x2 bf16 bf16x2 f32 f32x2 f64", mods="rn rz rm rp ftz sat relu",
     operands=4)(FLOAT["fma"])


@_floating("div", mods={"f32": f"{_ALL} approx full ftz", "f64": _ALL}, operands=3)
def div(e: Emitter, ins: Instruction) -> None:
    """a / b."""
    a, b = (read(e, x, ins.type, ins.has("ftz")) for x in ins.operands[1:])
    mode = mode_of(ins)
    if ins.has("approx"):
        value = f"{e.fn(approx.div)}({a}, {b})"
    elif ins.has("full"):
        value = f"{e.fn(approx.div_full)}({a}, {b})"
    elif mode == "rn":
        value = f"{a} / {b}"
    else:
        function = e.fn(double.div64_to if ins.type == "f64" else rounding.div32_to)
        value = f"{function}({a}, {b}, {mode!r})"
    write(e, ins.operands[0], ins.type, value, ins)


# -- signs, extrema ------------------------------------------------------------------------------

@_floating("abs", "neg", mods={"f32": "ftz", "f64": "", "f16": "ftz", "bf16": ""}, operands=2)
def sign(e: Emitter, ins: Instruction) -> None:
    """|a|, -a: the sign bit, of NaN too."""
    d, a = ins.operands
    absolute = ins.opcode == "abs"
    if ins.type in ("f32", "f64"):
        value = read(e, a, ins.type, ins.has("ftz"))
        e.set(d, ins.type, f"np.abs({value})" if absolute else f"-{value}")
        return
    bits = bits16(e, a, ins.type)
    if ins.has("ftz"):
        bits = f"{e.fn(half.flush16)}({bits})"
    write16(e, d, ins.type, f"{bits} & 0x7fff" if absolute else f"{bits} ^ 0x8000")


_EXTREMA = "NaN xorsign abs"


@_floating("min", "max", mods={"f32": f"ftz {_EXTREMA}", "f64": "", "f16": f"ftz {_EXTREMA}",
                               "bf16": _EXTREMA}, operands=3, most=4)
def extremum(e: Emitter, ins: Instruction) -> None:
    """The smaller or larger: -0 is below +0, and a NaN gives way to a number unless .NaN."""
    wide = ins.type in ("f32", "f64")
    if len(ins.operands) == 4 and (ins.type != "f32" or ins.has("xorsign")):
        e.fail(f"{ins.opcode}.{ins.type} of three")
    if wide:
        values = [read(e, x, ins.type, ins.has("ftz")) for x in ins.operands[1:]]
    else:
        values = [bits16(e, x, ins.type) for x in ins.operands[1:]]
        if ins.has("ftz"):
            values = [e.bind(f"{e.fn(half.flush16)}({x})") for x in values]
    sizes = values
    if ins.has("abs"):
        sizes = [e.bind(f"np.abs({x})" if wide else f"{x} & 0x7fff") for x in values]
    names = {"min": (rounding.smaller, half.smaller), "max": (rounding.larger, half.larger)}
    function = e.fn(names[ins.opcode][0 if wide else 1])
    infinity = "" if wide else f", {_INFINITY[_PACKED.get(ins.type, ins.type)]}"
    result = sizes[0]
    for size in sizes[1:]:
        result = f"{function}({result}, {size}{infinity}, {ins.has('NaN')})"
    if ins.has("xorsign"):
        signed = e.fn(rounding.with_sign if wide else half.with_sign)
        result = f"{signed}({result}, {values[0]}, {values[1]}{infinity})"
    if wide:
        e.set(ins.operands[0], ins.type, result)
    else:
        write16(e, ins.operands[0], ins.type, result)


@form("copysign", types="f32 f64", operands=3)
def copysign(e: Emitter, ins: Instruction) -> None:
    """b with the sign of a."""
    a, b = (e.use(x, ins.type) for x in ins.operands[1:])
    e.set(ins.operands[0], ins.type, f"np.copysign({b}, {a})")


# -- comparisons ---------------------------------------------------------------------------------

_COMPARE = {
    "eq": "{a} == {b}", "ne": "({a} < {b}) | ({a} > {b})", "lt": "{a} < {b}", "le": "{a} <= {b}",
    "gt": "{a} > {b}", "ge": "{a} >= {b}",
    "equ": "~(({a} < {b}) | ({a} > {b}))", "neu": "{a} != {b}", "ltu": "~({a} >= {b})",
    "leu": "~({a} > {b})", "gtu": "~({a} <= {b})", "geu": "~({a} < {b})",
    "num": "({a} == {a}) & ({b} == {b})", "nan": "({a} != {a}) | ({b} != {b})",
}
_BOOLEAN = {"and": "&", "or": "|", "xor": "^"}
_TESTS = " ".join([*_COMPARE, *_BOOLEAN])


def _compared(e: Emitter, ins: Instruction) -> tuple[str, str]:
    """The name of the comparison's result, and what combines one with the third operand."""
    a, b = (read(e, x, ins.type, ins.has("ftz")) for x in ins.operands[1:3])
    tests = [mod for mod in ins.mods if mod in _COMPARE]
    booleans = [mod for mod in ins.mods if mod in _BOOLEAN]
    if len(tests) != 1 or len(booleans) != len(ins.operands) - 3:
        e.fail(f"{ins.opcode} with this comparison and {len(ins.operands)} operands")
    if a == b and tests[0] in ("num", "nan"):
        test = f"{a} == {a}" if tests[0] == "num" else f"{a} != {a}"
    else:
        test = _COMPARE[tests[0]].format(a=a, b=b)
    if not booleans:
        return e.bind(test), ""
    return e.bind(test), f" {_BOOLEAN[booleans[0]]} {e.use(ins.operands[3], 'pred')}"


@_floating("setp", mods={"f32": f"ftz {_TESTS}", "f64": _TESTS, "f16": f"ftz {_TESTS}",
                         "bf16": _TESTS}, operands=3, most=4)
def setp(e: Emitter, ins: Instruction) -> None:
    """Compare into one predicate and its complement, or into one for each half."""
    p, q = pair(e, ins.operands[0])
    test, combine = _compared(e, ins)
    if ins.type in _PACKED:
        e.set(p, "pred", f"{test}[..., 0]{combine}")
        e.set(q, "pred", f"{test}[..., 1]{combine}")
    else:
        e.set(p, "pred", f"{test}{combine}")
        e.set(q, "pred", f"~{test}{combine}")


_RESULTS = "u32 s32 f32 u16 s16 f16 bf16"
_TRUE = {"f32": 0x3f800000, "f16": 0x3c00, "bf16": 0x3f80}


@_floating("set", mods={"f32": f"ftz {_TESTS} {_RESULTS}", "f64": f"{_TESTS} {_RESULTS}",
                        "f16": f"ftz {_TESTS} {_RESULTS}", "bf16": f"{_TESTS} {_RESULTS}",
                        "f16x2": f"ftz {_TESTS} u32 s32", "bf16x2": f"{_TESTS} u32 s32"},
           operands=3, most=4)
def set_(e: Emitter, ins: Instruction) -> None:
    """Compare into 1.0 or all ones, or 0; packed operands into a half each."""
    result = first_type(ins)
    test, combine = _compared(e, ins)
    if ins.type in _PACKED:
        part = result if result in ("u32", "s32") else _PACKED[result]
        true = _TRUE.get(part, 0xffff)
        third = f"{combine}[..., None]" if combine else ""
        words = f"({test}{third}).astype({e.fn(_U2)}) * {true:#x}"
        e.set(ins.operands[0], "b32", f"{e.fn(half.pack)}({words}, {e.fn(DTYPES['b32'])})")
        return
    raw = DTYPES[f"b{8 * DTYPES[result].itemsize}"]
    true = _TRUE.get(result, (1 << 8 * raw.itemsize) - 1)
    value = f"({test}{combine}).astype({e.fn(raw)}) * {true:#x}"
    e.set(ins.operands[0], result, f"({value}).view({e.fn(DTYPES[result])})")


@form("testp", types="f32 f64", mods="finite infinite number notanumber normal subnormal",
      operands=2)
def testp(e: Emitter, ins: Instruction) -> None:
    """What kind of number it is; zeros count as normal."""
    a = e.use(ins.operands[1], ins.type)
    small = f"(np.abs({a}) < {2.0 ** -126 if ins.type == 'f32' else 2.0 ** -1022!r}) & ({a} != 0)"
    tests = {"finite": f"np.isfinite({a})", "infinite": f"np.isinf({a})", "number": f"{a} == {a}",
             "notanumber": f"{a} != {a}", "normal": f"np.isfinite({a}) & ~({small})",
             "subnormal": small}
    if len(ins.mods) != 2:
        e.fail("testp tests one property")
    e.set(ins.operands[0], "pred", tests[ins.mods[0]])


# -- selection -----------------------------------------------------------------------------------

@_floating("selp", mods=dict.fromkeys(("f32", "f64", "f16", "bf16"), ""), operands=4)
def selp(e: Emitter, ins: Instruction) -> None:
    """a where the predicate holds, otherwise b."""
    a, b = (e.use(x, ins.type) for x in ins.operands[1:3])
    e.set(ins.operands[0], ins.type, f"where({e.use(ins.operands[3], 'pred')}, {a}, {b})")


@_floating("slct", mods={"f32": "ftz b16 b32 b64 u16 u32 u64 s16 s32 s64 f64"}, operands=4)
def slct(e: Emitter, ins: Instruction) -> None:
    """a where c is at least zero, otherwise b."""
    type = first_type(ins)
    a, b = (e.use(x, type) for x in ins.operands[1:3])
    e.set(ins.operands[0], type,
          f"where({read(e, ins.operands[3], 'f32', ins.has('ftz'))} >= 0, {a}, {b})")
