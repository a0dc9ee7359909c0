"""The CUDA source of expressions compiles, in every dtype, for the forward and the gradients.

By default each primitive comes in every second dtype, the next one in the others.  MLGPU_TABLE=all
compiles all in all.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from nvrtc import compile_ptx

import mlgpu
from mlgpu import dtypes
from mlgpu.cpu.recurrence import FAMILIES, Derivative
from mlgpu.errors import DTypeError
from mlgpu.expr import cuda
from mlgpu.expr.derivative import gradient
from mlgpu.expr.graph import arg, call
from mlgpu.expr.lower import NUMBER, TENSOR, ZERO_DIM, Operand, lower
from mlgpu.expr.primitives import TABLE
from mlgpu.ops import activation

ALL = tuple(cuda.TYPES)
EVERY = 1 if os.environ.get("MLGPU_TABLE") == "all" else 2
LEGENDRE = Derivative(FAMILIES["legendre_polynomial_p"], 1)
ARITY = {"where": 3, "hardtanh": 3, **dict.fromkeys(
    """add sub mul div floor_divide trunc_divide remainder fmod pow atan2 hypot logaddexp copysign
    nextafter gcd lcm hurwitz recurrence straight maximum minimum fmax fmin clamp_min clamp_max eq
    ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift
    right_shift""".split(), 2)}


def expressions(name):
    """A primitive's expression and those of its gradients."""
    arity = ARITY.get(name, 1)
    attr = {"polygamma": 1, "cast": dtypes.float32, "recurrence": LEGENDRE}.get(name)
    node = call(name, *[arg(i) for i in range(arity)], attr=attr)
    return arity, (node,), tuple(g for g in gradient((node,), arity) if g is not None)


def programs(name, dtypes):
    """Programs of the primitive for the dtypes that take it, and of its gradients."""
    arity, outputs, gradients = expressions(name)
    for dtype in dtypes:
        try:
            program = lower(name, outputs, [Operand(dtype, TENSOR)] * arity)
        except DTypeError:
            continue
        yield program
        result = program.output_dtypes[0]
        if gradients and (result.is_floating_point or result.is_complex) and (
                dtype.is_floating_point or dtype.is_complex):
            operands = [Operand(dtype, TENSOR)] * arity + [Operand(result, TENSOR)] * 2
            yield lower(f"{name} gradient", gradients, operands)


def together(sources):
    """Many kernels as one source, so that the headers are read once, and their entries' names."""
    names = [f"{source.name}_{number}" for number, source in enumerate(sources)]
    bodies = [f"namespace k{number} {{\n"
              + re.sub(r"#include .*", "", re.sub(rf"\b{source.name}\b", name, source.text)) + "}\n"
              for number, (source, name) in enumerate(zip(sources, names, strict=True))]
    return '#include "strided.cuh"\n' + "".join(bodies), names


GROUPS = [sorted(TABLE)[i::6] for i in range(6)]


@pytest.mark.parametrize("group", range(6))
def test_every_primitive_compiles_in_every_dtype(group):
    found = [p for turn, name in enumerate(GROUPS[group])
             for p in programs(name, ALL[turn % EVERY::EVERY])]
    sources = [cuda.contiguous(p) for p in found] + [
        cuda.strided(p, 2, (cuda.APART,) * (len(p.outputs) + len(cuda.read_arguments(p))), 1, False)
        for p in found[::7]]
    compile_ptx(together(sources)[0])


def lowered(function, arity, dtype, weights=None):
    outputs = function(*[arg(i) for i in range(arity)])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = weights or (TENSOR,) * arity
    return lower("f", outputs, [Operand(dtype, w) for w in weights])


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "softplus", "hardswish", "selu"])
@pytest.mark.parametrize("arch", ["compute_75", "compute_80", "compute_90"])
def test_activations_compile_for_each_architecture(name, arch):
    for dtype in (dtypes.float32, dtypes.float16, dtypes.bfloat16):
        source = cuda.contiguous(lowered(getattr(activation, name), 1, dtype))
        ptx = compile_ptx(source.text, arch)
        assert f".entry {source.name}(" in ptx


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float16, dtypes.bfloat16])
def test_float32_maths_stays_in_float32(dtype):
    """A double anywhere would run at a fraction of the speed on most GPUs."""
    def function(x, y):
        inner = (x * 1.5 + y).tanh() ** 2 / (1 + x.exp()) - y.erf()
        return mlgpu.where(inner > 0.1, inner.sigmoid(), x.log1p() % 3)

    ptx = compile_ptx(cuda.contiguous(lowered(function, 2, dtype)).text)
    assert not re.search(r"\bcvt\.f64|\.f64\s+%fd\d+, %fd\d+, %fd", ptx)


def test_contiguous_kernels_move_16_bytes_at_once():
    for dtype, width in ((dtypes.float32, "v4.f32"), (dtypes.float64, "v2.f64")):
        ptx = compile_ptx(cuda.contiguous(lowered(lambda x, y: x * y + 1, 2, dtype)).text)
        assert ptx.count(f"ld.global.{width}") >= 2
        assert f"st.global.{width}" in ptx
    source = cuda.contiguous(lowered(lambda x: x * 2, 1, dtypes.bfloat16))
    assert source.elements == 8
    assert re.search(r"ld\.global\.v4\.u32|ld\.global\.v8\.u16|ld\.global\.v2\.u64",
                     compile_ptx(source.text))


def test_numbers_are_arguments_and_single_elements_are_read_once():
    program = lowered(lambda x, s, z: x * s + z, 3, dtypes.float32, (TENSOR, NUMBER, ZERO_DIM))
    source = cuda.contiguous(program, single=frozenset({2}))
    assert "float s" in source.text
    assert "x2[0]" in source.text
    compile_ptx(source.text)


def test_strided_kernels_take_any_number_of_dimensions():
    program = lowered(lambda x, y: (x + y, x * y), 2, dtypes.float16)
    for dims in (1, 3, 6):
        for modes, width in ((cuda.NEXT,) * 4, 8), ((cuda.APART,) * 4, 1), (
                (cuda.NEXT, cuda.NEXT, cuda.SAME, cuda.APART), 4):
            source = cuda.strided(program, dims, modes, width, dims == 6)
            assert f"ml_pieces<{dims}, 4>" in source.text
            compile_ptx(source.text)


def test_tiles_are_moved_in_vectors():
    program = lowered(lambda x, y: (x + y, x * y), 2, dtypes.float32)
    source = cuda.tiled(program, 4, (cuda.NEXT, cuda.CROSS, cuda.CROSS, cuda.SAME), 4, False)
    assert source.elements == 16
    ptx = compile_ptx(source.text)
    assert ptx.count("ld.global.v4") == 4
    assert len(re.findall(r"\bst\.(?:global\.)?v4", ptx)) == 8
    assert ".local" not in ptx


@pytest.mark.parametrize(("value", "dtype", "text"), [
    (np.inf, dtypes.float32, "ml_inf(float(0))"), (-np.inf, dtypes.float64, "-ml_inf(double(0))"),
    (np.nan, dtypes.float32, "ml_nan(float(0))"), (0.1, dtypes.float64, (0.1).hex()),
    (-2**63, dtypes.int64, "(-9223372036854775807LL - 1)"), (True, dtypes.bool_, "true"),
    (1.5, dtypes.bfloat16, "ml_cast<__nv_bfloat16>(0x1.8000000000000p+0f)"),
    (-7, dtypes.int8, "static_cast<signed char>(-7)")])
def test_literals_are_exact(value, dtype, text):
    assert cuda.literal(np.asarray(value).astype(dtype.numpy), dtype) == text


def test_an_expression_of_three_outputs_is_one_kernel():
    @mlgpu.fuse
    def f(x, y):
        z = (x - y).exp()
        return z, z * x, z * y

    program = lower("f", f.formula.outputs, [Operand(dtypes.float32, TENSOR)] * 2)
    assert sum(s.primitive == "exp" for s in program.steps) == 1
    compile_ptx(cuda.contiguous(program).text)
