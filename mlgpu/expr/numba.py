"""A lowered program as the source of a loop in Python, which Numba compiles: the same steps.

`flat` is for operands that lie alike in memory, `strided` for all others, over dimensions collapsed
by the caller.  Python numbers are arguments of the loop, so another number needs no other loop.

`problem` says why a program has no such form; it then runs on NumPy as a whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.dtypes import dtype as DType
from mlgpu.expr.lower import Program, Step
from mlgpu.expr.primitives import TABLE

# Forms by primitive: of bool, integers, floats ("" stands for none).  {t} is the type that the
# primitive computes in, {attr} its parameter.  Names are those of mlgpu/cpu/fast/expr.py.
_SAME = "{0}"
_FORMS: dict[str, tuple[str, str, str]] = {
    "add": ("{0} | {1}", "{0} + {1}", "{0} + {1}"),
    "sub": ("", "{0} - {1}", "{0} - {1}"),
    "mul": ("{0} & {1}", "{0} * {1}", "{0} * {1}"),
    "div": ("", "", "{0} / {1}"),
    "neg": ("", "-{0}", "-{0}"),
    "reciprocal": ("", "", "{t}(1) / {0}"),
    "square": ("", "{0} * {0}", "{0} * {0}"),
    "sqrt": ("", "", "math.sqrt({0})"),
    "rsqrt": ("", "", "{t}(1) / math.sqrt({0})"),
    "logsigmoid": ("", "",
                   "minimum({0}, {t}(0)) - maths.log1p(maths.exp(-abs({0})))"),
    "abs": ("", "abs({0})", "abs({0})"),
    "ceil": (_SAME, _SAME, "np.ceil({0})"),
    "floor": (_SAME, _SAME, "np.floor({0})"),
    "trunc": (_SAME, _SAME, "np.trunc({0})"),
    "round": (_SAME, _SAME, "maths.rint({0})"),
    "sign": (_SAME, "{t}({0} > 0) - {t}({0} < 0)", "{t}({0} > 0) - {t}({0} < 0)"),
    "sgn": (_SAME, "{t}({0} > 0) - {t}({0} < 0)", "{t}({0} > 0) - {t}({0} < 0)"),
    "signbit": ("False", "{0} < 0", "maths.bits({0}) < 0"),
    "copysign": ("", "", "maths.copysign({0}, {1})"),
    "maximum": ("{0} | {1}", "maximum({0}, {1})", "maximum({0}, {1})"),
    "minimum": ("{0} & {1}", "minimum({0}, {1})", "minimum({0}, {1})"),
    "clamp_min": ("{0} | {1}", "maximum({0}, {1})", "maximum({0}, {1})"),
    "clamp_max": ("{0} & {1}", "minimum({0}, {1})", "minimum({0}, {1})"),
    "hardtanh": ("{0} & {2} | {1} & {2}", "minimum(maximum({0}, {1}), {2})",
                 "minimum(maximum({0}, {1}), {2})"),
    "fmax": ("{0} | {1}", "maximum({0}, {1})", "fmax({0}, {1})"),
    "fmin": ("{0} & {1}", "minimum({0}, {1})", "fmin({0}, {1})"),
    "relu": ("", "maximum({0}, {t}(0))", "maximum({0}, {t}(0))"),
    "where": ("{1} if {0} else {2}",) * 3,
    "straight": (_SAME,) * 3,
    "eq": ("{0} == {1}",) * 3,
    "ne": ("{0} != {1}",) * 3,
    "lt": ("{0} < {1}",) * 3,
    "le": ("{0} <= {1}",) * 3,
    "gt": ("{0} > {1}",) * 3,
    "ge": ("{0} >= {1}",) * 3,
    "isnan": ("False", "False", "{0} != {0}"),
    "isinf": ("False", "False", "abs({0}) == np.inf"),
    "logical_and": ("{0} & {1}", "", ""),
    "logical_or": ("{0} | {1}", "", ""),
    "logical_xor": ("{0} != {1}", "", ""),
    "logical_not": ("not {0}", "", ""),
    "bitwise_and": ("{0} & {1}", "{0} & {1}", ""),
    "bitwise_or": ("{0} | {1}", "{0} | {1}", ""),
    "bitwise_xor": ("{0} != {1}", "{0} ^ {1}", ""),
    "bitwise_not": ("not {0}", "~{0}", ""),
    "left_shift": ("", "left_shift({0}, {1}, {bits})", ""),
    "right_shift": ("", "right_shift({0}, {1}, {bits})", ""),
    **{name: ("", "", f"maths.{name}({{0}})") for name in (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "erf", "erfc",
        "gelu", "gelu_slope")},
}

# Where float32 has a form and float64 has not.
_SINGLE = {"sin": "maths.sin({0})", "cos": "maths.cos({0})", "pow": "maths.power({0}, {1})"}

_NUMPY_IS_AS_FAST = "NumPy's own loop is as fast as a call of the C library for each element"
_CHECKED = "NumPy's form looks at all of an operand first, to refuse what has no result"

# Why a primitive has no form at all.
WITHOUT: dict[str, str] = {
    **dict.fromkeys(
        ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "atan2", "hypot",
         "logaddexp", "sinc", "nextafter", "mantissa", "exponent"), _NUMPY_IS_AS_FAST),
    **dict.fromkeys(("floor_divide", "trunc_divide", "remainder", "fmod"), _CHECKED),
    **dict.fromkeys(("erfinv", "lgamma", "digamma", "polygamma", "gcd", "lcm", "hurwitz",
                     "recurrence"), "a long computation, bound by arithmetic in NumPy too"),
    **dict.fromkeys(("conj", "real", "imag", "angle"), "of use for complex numbers only"),
}

_HALVES = (dtypes.float16, dtypes.bfloat16)


def _type(dtype: DType) -> str:
    """The NumPy type of a value in the loop; half types are bits until they are widened."""
    return "np.uint16" if dtype in _HALVES else f"np.{dtype.numpy.name}".replace(
        "np.bool", "np.bool_")


@lru_cache(maxsize=4096)
def problem(program: Program) -> str | None:
    """Why the program has no loop; None where it has one."""
    for dtype in program.dtypes:
        if dtype.is_complex:
            return f"{dtype.name}: NumPy computes complex numbers"
    for step in program.steps:
        reason = _step_problem(program, step)
        if reason is not None:
            return f"{step.primitive} of {step.dtype.name}: {reason}"
    return None


def _step_problem(program: Program, step: Step) -> str | None:
    if step.primitive == "cast":
        source, target = step.dtype, program.dtypes[step.result]
        if source.kind == "float" and target.kind == "int":
            return "NumPy has the rules for what is out of an integer's range"
        return None
    if step.primitive in WITHOUT:
        return WITHOUT[step.primitive]
    if _form(step):
        return None
    return _NUMPY_IS_AS_FAST if step.primitive in _SINGLE and step.dtype.kind == "float" else (
        _CHECKED)


def _form(step: Step) -> str:
    if step.primitive in _SINGLE:
        return _SINGLE[step.primitive] if step.dtype is dtypes.float32 else ""
    return _FORMS[step.primitive][("bool", "int", "float").index(step.dtype.kind)]


# How an operand lies along the innermost dimension: next to each other, one for all, or apart.
NEXT, SAME, APART = "next", "same", "apart"


def flat(program: Program, single: frozenset[int], shared: tuple[tuple[int, int], ...]) -> str:
    """The loop over operands of the outputs' memory order.

    Arguments in `single` have one element; `shared` has the arguments that are an output's own
    memory, with its number.  Entry: loop(outputs..., other arguments..., numbers...).
    """
    own = dict(shared)
    before, read = [], {}
    for i in read_arguments(program):
        if i in single:
            before.append(f"    x{i} = a{i}[0]")
        else:
            read[i] = f"o{own[i]}[i]" if i in own else f"a{i}[i]"
    lines = [
        _header(program), f"def loop({', '.join(_parameters(program, own))}):", *before,
        "    for i in range(o0.size):",
        *(f"        x{i} = {text}" for i, text in read.items()),
        *_body(program, "        "),
        *(f"        o{k}[i] = {text}" for k, text in enumerate(_results(program))),
    ]
    return "\n".join(lines) + "\n"


def strided(program: Program, dims: int, modes: tuple[str, ...],
            shared: tuple[tuple[int, int], ...]) -> str:
    """The loop over rows along the innermost of `dims` dimensions, for operands of any strides.

    `modes` says, for the outputs and then the arguments read, how each lies along a row.
    Entry: loop(start, stop, layout, outputs..., other arguments..., numbers...), where rows
    `start` to `stop` are computed, and `layout` has the sizes of all dimensions, then for each
    operand its strides in elements.
    """
    own = dict(shared)
    arguments = read_arguments(program)
    names = [f"o{k}" for k in range(len(program.outputs))] + [
        f"o{own[i]}" if i in own else f"a{i}" for i in arguments]
    place = {}
    for k, (name, mode) in enumerate(zip(names, modes, strict=True)):
        at = f"b{k}"
        place[k] = f"{name}[{at}]" if mode == SAME else (
            f"{name}[{at} + i]" if mode == NEXT else f"{name}[{at} + i * e{k}]")
    outputs = len(program.outputs)
    rows = [f"        x{i} = {place[k]}" for k, i in enumerate(arguments, outputs)
            if modes[k] == SAME]
    each = [f"            x{i} = {place[k]}" for k, i in enumerate(arguments, outputs)
            if modes[k] != SAME]
    parameters = ["start", "stop", "layout", *_parameters(program, own)]
    lines = [
        _header(program), f"def loop({', '.join(parameters)}):",
        *(f"    n{d} = np.uint64(layout[{d}])" for d in range(dims)),
        *(f"    e{k} = np.uint64(layout[{dims * (k + 2) - 1}])" for k in range(len(names))),
        "    for row in range(start, stop):",
        "        rest = np.uint64(row)",
        *(f"        b{k} = np.uint64(0)" for k in range(len(names))),
    ]
    for d in reversed(range(dims - 1)):
        lines += [f"        c = rest % n{d}", f"        rest = rest // n{d}"]
        lines += [f"        b{k} += c * np.uint64(layout[{dims * (k + 1) + d}])"
                  for k in range(len(names))]
    lines += [
        *rows, f"        for i in range(n{dims - 1}):", *each, *_body(program, "            "),
        *(f"            {place[k]} = {text}" for k, text in enumerate(_results(program))),
    ]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=4096)
def read_arguments(program: Program) -> tuple[int, ...]:
    """The array arguments that the steps read; numbers and unused ones are left out."""
    used = {i for s in program.steps for i in s.operands} | set(program.outputs)
    return tuple([i for i in range(program.arguments) if i in used])


def _header(program: Program) -> str:
    lines = [f'"""{program.name}: generated."""']
    for offset, constant in enumerate(program.constants):
        value = program.arguments + offset
        lines.append(f"x{value} = {_literal(constant, program.dtypes[value])}")
    return "\n".join([*lines, "", ""])


def _parameters(program: Program, own: dict[int, int]) -> list[str]:
    return ([f"o{k}" for k in range(len(program.outputs))]
            + [f"a{i}" for i in read_arguments(program) if i not in own]
            + [f"x{value}" for value, _, _ in program.numbers])


def _body(program: Program, indent: str) -> list[str]:
    return [f"{indent}x{step.result} = {_expression(program, step)}" for step in program.steps]


def _results(program: Program) -> list[str]:
    """What is stored: an output may be an argument of another dtype only by a cast, a step."""
    return [f"x{value}" for value in program.outputs]


def _expression(program: Program, step: Step) -> str:
    operands = [f"x{i}" for i in step.operands]
    result = program.dtypes[step.result]
    if step.primitive == "cast":
        return _cast(operands[0], step.dtype, result)
    text = _form(step).format(*operands, t=_type(step.dtype), bits=8 * step.dtype.itemsize)
    return f"{_type(result)}({text})"  # Numba computes small integers as int64


def _cast(operand: str, source: DType, target: DType) -> str:
    if source in _HALVES:
        operand = f"widen_{source.name}({operand})"
    if target in _HALVES:
        wide = operand if source.kind == "float" else f"np.float32({operand})"
        return f"narrow_{target.name}({wide})"
    if target is dtypes.bool_:
        return f"{operand} != 0"
    return f"{_type(target)}({operand})"


def _literal(constant: Any, dtype: DType) -> str:
    """A constant in Python, of exactly its type and value."""
    if dtype in _HALVES:
        return f"np.uint16({int(constant.view(np.uint16))})"
    if dtype.kind == "float":
        return f"{_type(dtype)}(float.fromhex('{float(constant).hex()}'))"
    return f"{_type(dtype)}({constant.item()})"


def compiled_primitives() -> dict[str, str]:
    """For each primitive, the kinds of numbers it is compiled for, or why it is not."""
    found = {}
    for name in TABLE:
        if name in WITHOUT:
            found[name] = WITHOUT[name]
        elif name in _SINGLE:
            found[name] = "float32"
        elif name == "cast":
            found[name] = "bool, integers, floats; not from floats to integers"
        else:
            kinds = zip(("bool", "integers", "floats"), _FORMS[name], strict=True)
            found[name] = ", ".join(kind for kind, form in kinds if form)
    return found
