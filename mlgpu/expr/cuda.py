"""A lowered program as the source of CUDA kernels: the same steps, one thread per element.

`contiguous` is for operands that lie alike in memory: every thread loads, computes and stores a
vector of up to 16 bytes.  `tiled` is for those of which some lie transposed, `strided` for
everything else, over dimensions collapsed by the caller.  Python numbers are kernel arguments, so
another number needs no other kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=4096)
def vector_width(program: Program) -> int:
    """How many elements of the widest operand are 16 bytes."""
    return max(1, 16 // max(d.itemsize for d in _operand_dtypes(program)))


def contiguous(program: Program, single: frozenset[int] = frozenset(), width: int | None = None,
               unroll: int = 1) -> Source:
    """The kernel for operands of the outputs' shape and memory order.

    Arguments in `single` have one element.  Addresses are multiples of `width` elements (by
    default: as many as are 16 bytes).  A thread takes `unroll` vectors, all of which it loads
    before it computes, so that more bytes are under way.  Entry: (outputs..., arguments...,
    numbers..., count).
    """
    width = width or vector_width(program)
    name = f"{_identifier(program.name)}_contiguous"
    used = read_arguments(program)
    full = [i for i in used if i not in single]
    outputs = range(len(program.outputs))
    step = THREADS * width

    def call(read: str, write: str) -> str:
        values = [f"x{i}[0]" if i in single else read.format(i) for i in used]
        return _call(program, values, [write.format(k) for k in outputs])

    loads = [f"ml_vec<{TYPES[program.dtypes[i]]}, {width}> v{i}[{unroll}];" for i in full]
    results = [f"ml_vec<{TYPES[d]}, {width}> r{k};" for k, d in enumerate(program.output_dtypes)]
    lines = [
        _header(program), _body(program),
        f'extern "C" __global__ void __launch_bounds__({THREADS})',
        f"{name}({_parameters(program)}, ml_index n) {{",
        f"  ml_index i = ml_index(blockIdx.x) * {step * unroll} + threadIdx.x * {width};",
        f"  if (i + {step * (unroll - 1) + width} <= n) {{",
        *(f"    {line}" for line in loads),
        "#pragma unroll",
        f"    for (int u = 0; u < {unroll}; ++u) {{",
        *(f"      v{i}[u] = ml_load<{width}>(x{i} + i + u * {step});" for i in full),
        "    }",
        "#pragma unroll",
        f"    for (int u = 0; u < {unroll}; ++u) {{",
        *(f"      {line}" for line in results),
        "#pragma unroll",
        f"      for (int e = 0; e < {width}; ++e) {call('v{0}[u].at[e]', 'r{0}.at[e]')}",
        *(f"      ml_store<{width}>(o{k} + i + u * {step}, r{k});" for k in outputs),
        "    }",
        "  } else {",
        f"    for (int u = 0; u < {unroll}; ++u, i += {step})",
        f"      for (ml_index j = i; j < i + {width} && j < n; ++j) {call('x{0}[j]', 'o{0}[j]')}",
        "  }",
        "}",
    ]
    return Source("\n".join(lines) + "\n", name, width * unroll)


# How an operand lies along the innermost dimension: next to each other, one for all, or apart; in
# tiles CROSS: next to each other along the dimension before.
NEXT, SAME, APART, CROSS = "next", "same", "apart", "cross"


def strided(program: Program, dims: int, modes: tuple[str, ...], width: int, wide: bool) -> Source:
    """The kernel for operands of any strides over `dims` dimensions.

    A thread takes `width` elements along the innermost; `modes` says, for the outputs and then the
    arguments, how each lies there: NEXT and on multiples of `width`, SAME (broadcast), or APART.
    `wide` is for more than 2**31 of these pieces.  Entry: (outputs..., arguments..., numbers...,
    count of pieces, layout), where `layout` (kernels/strided.cuh) holds the sizes in pieces, and
    for each operand the strides in elements from piece to piece, and within one.
    """
    name = f"{_identifier(program.name)}_strided{dims}"
    outputs, used = len(program.outputs), read_arguments(program)
    before, values = [], []
    for k, i in enumerate(used, outputs):
        if modes[k] == NEXT:
            before.append(f"const auto v{i} = ml_load<{width}>(x{i} + at[{k}]);")
            values.append(f"v{i}.at[e]")
        elif modes[k] == SAME:
            before.append(f"const auto v{i} = x{i}[at[{k}]];")
            values.append(f"v{i}")
        else:
            values.append(f"x{i}[at[{k}] + e * layout.inner[{k}]]")
    written, after = [], []
    for k, dtype in enumerate(program.output_dtypes):
        if modes[k] == NEXT:
            before.append(f"ml_vec<{TYPES[dtype]}, {width}> r{k};")
            written.append(f"r{k}.at[e]")
            after.append(f"ml_store<{width}>(o{k} + at[{k}], r{k});")
        else:
            written.append(f"o{k}[at[{k}] + e * layout.inner[{k}]]")
    lines = [
        *_pieces_head(program, name, dims, wide),
        *(f"  {line}" for line in before),
        "#pragma unroll",
        f"  for (int e = 0; e < {width}; ++e) {_call(program, values, written)}",
        *(f"  {line}" for line in after),
        "}",
    ]
    return Source("\n".join(lines) + "\n", name, width)


def tiled(program: Program, dims: int, modes: tuple[str, ...], width: int, wide: bool) -> Source:
    """The kernel for operands that lie along one or another of two dimensions.

    A thread takes a square of `width` by `width` elements: of each operand as many vectors along
    the dimension in which it lies, so that squares are turned in registers.  `modes`: NEXT, CROSS,
    or SAME (one for the square).  Entry: as of `strided`, with squares as pieces, and for each
    operand, in place of the stride within one, that from vector to vector.
    """
    name = f"{_identifier(program.name)}_tiled{dims}"
    outputs, used = len(program.outputs), read_arguments(program)
    place = {NEXT: "[r].at[e]", CROSS: "[e].at[r]", SAME: ""}
    before, loads, stores = [], [], []
    for k, i in enumerate(used, outputs):
        kind = TYPES[program.dtypes[i]]
        if modes[k] == SAME:
            before.append(f"const {kind} v{i} = x{i}[at[{k}]];")
        else:
            before.append(f"ml_vec<{kind}, {width}> v{i}[{width}];")
            loads.append(f"v{i}[r] = ml_load<{width}>(x{i} + at[{k}] + r * layout.inner[{k}]);")
    for k, dtype in enumerate(program.output_dtypes):
        before.append(f"ml_vec<{TYPES[dtype]}, {width}> r{k}[{width}];")
        stores.append(f"ml_store_whole<{width}>(o{k} + at[{k}] + r * layout.inner[{k}], r{k}[r]);")
    values = [f"v{i}{place[modes[k]]}" for k, i in enumerate(used, outputs)]
    written = [f"r{k}{place[modes[k]]}" for k in range(outputs)]
    loop = f"for (int r = 0; r < {width}; ++r)"
    lines = [
        *_pieces_head(program, name, dims, wide),
        *(f"  {line}" for line in before),
        "#pragma unroll",
        f"  {loop} {{",
        *(f"    {line}" for line in loads),
        "  }",
        "#pragma unroll",
        f"  {loop} {{",
        "#pragma unroll",
        f"    for (int e = 0; e < {width}; ++e) {_call(program, values, written)}",
        "  }",
        "#pragma unroll",
        f"  {loop} {{",
        *(f"    {line}" for line in stores),
        "  }",
        "}",
    ]
    return Source("\n".join(lines) + "\n", name, width * width)


def _pieces_head(program: Program, name: str, dims: int, wide: bool) -> list[str]:
    """The beginning of a kernel over pieces, up to where its piece begins in each operand: `at`."""
    operands = len(program.outputs) + len(read_arguments(program))
    return [
        _header(program), '#include "strided.cuh"', _body(program),
        f'extern "C" __global__ void __launch_bounds__({THREADS})',
        f"{name}({_parameters(program)}, ml_index n, ml_pieces<{dims}, {operands}> layout) {{",
        f"  const ml_index i = ml_index(blockIdx.x) * {THREADS} + threadIdx.x;",
        "  if (i >= n) return;",
        f"  ml_index at[{operands}];",
        f"  ml_locate<{'true' if wide else 'false'}>(layout, i, at);",
    ]


def layout_dtype(dims: int, operands: int) -> np.dtype[Any]:
    """`ml_pieces<dims, operands>` in kernels/strided.cuh, as NumPy has it."""
    return np.dtype([("size", np.int64, dims), ("magic", np.uint32, dims),
                     ("shift", np.uint32, dims), ("stride", np.int64, (operands, dims)),
                     ("inner", np.int64, operands)], align=True)


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
