"""A lowered program as the source of CUDA kernels: the same steps, one thread per element.

`contiguous` is for operands that lie alike in memory: every thread loads, computes and stores a
vector of up to 16 bytes.  `strided` is for everything else, over dimensions collapsed by the
caller.  Python numbers are kernel arguments, so another number needs no other kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda.types import CTYPES as TYPES
from mlgpu.dtypes import dtype as DType
from mlgpu.expr.lower import Program, Step
from mlgpu.expr.primitives import TABLE

THREADS = 256


@dataclass(frozen=True)
class Source:
    """A kernel: its text, its entry's name, and how many elements one thread computes."""

    text: str
    name: str
    elements: int


def vector_width(program: Program) -> int:
    """How many elements of the widest operand are 16 bytes."""
    return max(1, 16 // max(d.itemsize for d in _operand_dtypes(program)))


def contiguous(program: Program, single: frozenset[int] = frozenset(), width: int | None = None
               ) -> Source:
    """The kernel for operands of the outputs' shape and memory order.

    Arguments in `single` have one element.  Addresses are multiples of `width` elements (by
    default: as many as are 16 bytes).  Entry: (outputs..., arguments..., numbers..., count).
    """
    width = width or vector_width(program)
    name = f"{_identifier(program.name)}_contiguous"
    used = read_arguments(program)
    full = [i for i in used if i not in single]
    loads = [f"const auto v{i} = ml_load<{width}>(x{i} + i);" for i in full]
    stores = [f"ml_store<{width}>(o{k} + i, r{k});" for k in range(len(program.outputs))]
    results = [f"ml_vec<{TYPES[d]}, {width}> r{k};" for k, d in enumerate(program.output_dtypes)]

    def call(read: str, write: str) -> str:
        values = [f"x{i}[0]" if i in single else read.format(i) for i in used]
        return _call(program, values, [write.format(k) for k in range(len(program.outputs))])

    lines = [
        _header(program), _body(program),
        f'extern "C" __global__ void __launch_bounds__({THREADS})',
        f"{name}({_parameters(program)}, ml_index n) {{",
        f"  ml_index i = (ml_index(blockIdx.x) * {THREADS} + threadIdx.x) * {width};",
        f"  if (i + {width} <= n) {{",
        *(f"    {line}" for line in (*loads, *results)),
        "#pragma unroll",
        f"    for (int e = 0; e < {width}; ++e) {call('v{0}.at[e]', 'r{0}.at[e]')}",
        *(f"    {line}" for line in stores),
        "  } else {",
        f"    for (; i < n; ++i) {call('x{0}[i]', 'o{0}[i]')}",
        "  }",
        "}",
    ]
    return Source("\n".join(lines) + "\n", name, width)


def strided(program: Program, dims: int) -> Source:
    """The kernel for operands of any strides over `dims` dimensions, a broadcast one's being 0.

    Entry: (outputs..., arguments..., numbers..., count, layout), where `layout` holds the sizes
    and, for the outputs and then the arguments, the strides in elements.
    """
    name = f"{_identifier(program.name)}_strided{dims}"
    outputs, used = len(program.outputs), read_arguments(program)
    operands = outputs + len(used)
    values = [f"x{i}[at[{outputs + k}]]" for k, i in enumerate(used)]
    lines = [
        _header(program), _body(program),
        f'extern "C" __global__ void __launch_bounds__({THREADS})',
        f"{name}({_parameters(program)}, ml_index n, ml_layout<{dims}, {operands}> layout) {{",
        f"  const ml_index i = ml_index(blockIdx.x) * {THREADS} + threadIdx.x;",
        "  if (i >= n) return;",
        f"  ml_index at[{operands}];",
        "  ml_offsets(layout, i, at);",
        f"  {_call(program, values, [f'o{k}[at[{k}]]' for k in range(outputs)])}",
        "}",
    ]
    return Source("\n".join(lines) + "\n", name, 1)


def _identifier(name: str) -> str:
    # Not ml_: those names are the header's, and a function may well be called abs or load.
    return "fused_" + re.sub(r"\W", "_", name)


def read_arguments(program: Program) -> list[int]:
    """The array arguments that the steps read; numbers and unused ones are left out."""
    used = {i for s in program.steps for i in s.operands} | set(program.outputs)
    return [i for i in range(program.arguments) if i in used]


def _operand_dtypes(program: Program) -> list[DType]:
    return [program.dtypes[i] for i in read_arguments(program)] + list(program.output_dtypes)


def _parameters(program: Program) -> str:
    outputs = [f"{TYPES[d]}* o{k}" for k, d in enumerate(program.output_dtypes)]
    arguments = [f"const {TYPES[program.dtypes[i]]}* x{i}" for i in read_arguments(program)]
    numbers = [f"{TYPES[d]} s{value}" for value, _, d in program.numbers]
    return ", ".join(outputs + arguments + numbers)


def _header(program: Program) -> str:
    return f'// {program.name}: generated\n#include "common.cuh"\n'


def _call(program: Program, values: list[str], outputs: list[str]) -> str:
    numbers = [f"s{value}" for value, _, _ in program.numbers]
    return f"{_identifier(program.name)}({', '.join(values + numbers + outputs)});"


def _body(program: Program) -> str:
    """The function of one element that both kernels call."""
    arguments = [f"const {TYPES[program.dtypes[i]]} x{i}" for i in read_arguments(program)]
    numbers = [f"const {TYPES[d]} x{value}" for value, _, d in program.numbers]
    outputs = [f"{TYPES[d]}& o{k}" for k, d in enumerate(program.output_dtypes)]
    lines = [(f"__device__ __forceinline__ void {_identifier(program.name)}("
              f"{', '.join(arguments + numbers + outputs)}) {{")]
    names = {i: f"x{i}" for i in read_arguments(program)}
    names.update({value: f"x{value}" for value, _, _ in program.numbers})
    for offset, constant in enumerate(program.constants):
        value = program.arguments + offset
        names[value] = literal(constant, program.dtypes[value])
    for step in program.steps:
        names[step.result] = f"t{step.result}"
        dtype = TYPES[program.dtypes[step.result]]
        lines.append(f"  const {dtype} t{step.result} = {_expression(program, step, names)};")
    for k, value in enumerate(program.outputs):
        lines.append(f"  o{k} = {names[value]};")
    return "\n".join([*lines, "}", ""])


def _expression(program: Program, step: Step, names: dict[int, str]) -> str:
    result = TYPES[program.dtypes[step.result]]
    operands = [names[i] for i in step.operands]
    if step.primitive == "cast":
        return f"ml_cast<{result}>({operands[0]})"
    template = re.sub(r"\bml_t\b", TYPES[step.dtype], TABLE[step.primitive].cuda)
    text = template.format(*operands, attr=step.attr)
    # C++ computes small integers as int: back to the type the value has.
    small = program.dtypes[step.result].kind == "int" and program.dtypes[step.result].itemsize < 4
    return f"static_cast<{result}>({text})" if small else text


def literal(constant: Any, dtype: DType) -> str:
    """A constant in C++, of exactly its type and value."""
    if dtype.is_complex:
        part = dtype.to_real()
        return (f"{TYPES[dtype]}({literal(constant.real, part)}, "
                f"{literal(constant.imag, part)})")
    if dtype is dtypes.bool_:
        return "true" if constant else "false"
    if dtype.kind == "int":
        number = int(constant)
        if dtype is not dtypes.int64:
            return f"static_cast<{TYPES[dtype]}>({number})"
        # The smallest number has no literal of its own.
        return f"({number + 1}LL - 1)" if number == np.iinfo(np.int64).min else f"{number}LL"
    number_ = float(constant)
    kind = TYPES[dtypes.compute_dtype(dtype)]
    if np.isnan(number_):
        return f"ml_nan({kind}(0))"
    if np.isinf(number_):
        return f"{'-' if number_ < 0 else ''}ml_inf({kind}(0))"
    if dtype is dtypes.float64:
        return float.hex(number_)
    text = f"{float.hex(number_)}f"
    return text if dtype is dtypes.float32 else f"ml_cast<{TYPES[dtype]}>({text})"
