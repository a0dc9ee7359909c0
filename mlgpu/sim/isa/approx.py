"""Approximate functions, and the exact reciprocals and square roots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.floating import mode_of, note_flushed, read, write
from mlgpu.sim.isa.form import form
from mlgpu.sim.numeric import approx, double, half, rounding
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Instruction

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rcp": approx.rcp, "sqrt": approx.sqrt, "rsqrt": approx.rsqrt, "sin": approx.sin,
    "cos": approx.cos, "lg2": approx.lg2, "ex2": approx.ex2, "tanh": approx.tanh}


@form("rcp", "sqrt", types="f32 f64", mods="approx rn rz rm rp ftz", operands=2)
def root(e: Emitter, ins: Instruction) -> None:
    """1 / a and the square root, exactly rounded or approximate."""
    d, a = ins.operands
    value = read(e, a, ins.type, ins.has("ftz"))
    mode = mode_of(ins)
    reciprocal = ins.opcode == "rcp"
    if ins.has("approx"):
        if ins.type == "f64" and not (reciprocal and ins.has("ftz")):
            e.fail("of float64, only rcp.approx.ftz.f64 and rsqrt are approximate")
        function = approx.rcp64 if ins.type == "f64" else _FUNCTIONS[ins.opcode]
        result = f"{e.fn(function)}({value})"
    elif mode == "rn":
        result = f"1 / {value}" if reciprocal else f"np.sqrt({value})"
    elif reciprocal:
        function = double.div64_to if ins.type == "f64" else rounding.div32_to
        one = e.const(np.ones((1, 1), DTYPES[ins.type]))
        result = f"{e.fn(function)}({one}, {value}, {mode!r})"
    else:
        function = double.sqrt64_to if ins.type == "f64" else rounding.sqrt32_to
        result = f"{e.fn(function)}({value}, {mode!r})"
    write(e, d, ins.type, result, ins)


@form("rsqrt", types="f32 f64", mods="approx ftz", operands=2)
def rsqrt(e: Emitter, ins: Instruction) -> None:
    """1 / sqrt a."""
    value = read(e, ins.operands[1], ins.type, ins.has("ftz"))
    if ins.type == "f32":
        result = f"{e.fn(approx.rsqrt)}({value})"
    elif ins.has("ftz"):
        result = f"{e.fn(approx.rsqrt64)}({value})"
    else:
        result = f"1.0 / np.sqrt({value})"
    write(e, ins.operands[0], ins.type, result, ins)


@form("sin", "cos", "lg2", types="f32", mods="approx ftz", operands=2)
def function(e: Emitter, ins: Instruction) -> None:
    """The sine, the cosine, the logarithm to base two."""
    value = read(e, ins.operands[1], ins.type, ins.has("ftz"))
    write(e, ins.operands[0], ins.type, f"{e.fn(_FUNCTIONS[ins.opcode])}({value})", ins)


@form("ex2", "tanh", types="f32 f16 f16x2 bf16 bf16x2", mods="approx ftz", operands=2)
def short_function(e: Emitter, ins: Instruction) -> None:
    """Two to a power, and the hyperbolic tangent; also of 16-bit floats."""
    d, a = ins.operands
    ftz = ins.has("ftz")
    if ins.opcode == "ex2" and ins.type == "f32" and ftz:
        e.set(d, "f32", f"{e.fn(approx.ex2_flushed)}({e.use(a, 'f32')})")
        note_flushed(e, d, ins)
        return
    value = f"{e.fn(_FUNCTIONS[ins.opcode])}({read(e, a, ins.type)})"
    if ins.opcode == "tanh" or ins.type == "f32":
        if ftz:
            e.fail(f"{ins.opcode}.{ins.type} has no .ftz")
        write(e, d, ins.type, value, ins)
        return
    brain = ins.type.startswith("bf16")
    if not brain:
        value = f"{e.fn(approx.ex2_half)}({read(e, a, ins.type)})"
    cut = e.fn(half.float_to_bfloat_by if brain else half.float_to_half_by)
    if ftz != brain:
        e.fail("ex2 has .ftz with bfloat16, and not with float16")
    if brain:
        value = f"{e.fn(rounding.flush)}({value})"
    value = f"{cut}({value}, 'rz')"
    if ins.type.endswith("x2"):
        value = f"{e.fn(half.pack)}({value}, {e.fn(DTYPES['b32'])})"
    e.set(d, ins.type, value)
