"""An optimizer's rule as the source of one CUDA kernel over all tensors of a launch.

A rule is two programs.  `follow` takes the single numbers of a tensor (such as its count of steps)
and the settings, all in float64, and gives the single numbers after the step and the coefficients
of the update; `change` takes an element of the parameter, of the gradient and of each array of the
state, and the coefficients, and gives the parameter and the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.cuda.types import CTYPES as TYPES
from mlgpu.dtypes import compute_dtype, float32
from mlgpu.dtypes import dtype as DType
from mlgpu.expr.cuda import Source, _body, _identifier, read_arguments
from mlgpu.expr.lower import Program

GROUPS = 16  # RULE_GROUPS of kernels/many.cuh


@dataclass(frozen=True)
class Shape:
    """How many there are of each: arrays (the parameter first), single numbers, settings; which
    setting is the momentum (-1: none), and the dtype of single numbers."""

    arrays: int
    singles: int
    settings: int
    momentum: int
    single: DType = float32


def settings_dtype(shape: Shape) -> Any:
    """`ml_rule_settings` as NumPy has it."""
    return np.dtype([("number", np.float64, (GROUPS, shape.settings))] + [
        (name, np.int64, GROUPS) for name in ("lr_cell", "momentum_cell", "lr_double", "maximize")])


def rule(follow: Program, change: Program, shape: Shape, dtype: DType) -> Source:
    """The kernel for parameters of `dtype`; `change` is lowered for what that is computed in.

    Entry: (table, grads, map, settings, factor, found_inf, tensors, ticket), as those of
    kernels/optimizer.cu.  A row of the table: the arrays, the addresses of the single
    numbers, size, start, settings.
    """
    name = f"{_identifier(change.name)}_step"
    singles, arrays = shape.singles, shape.arrays
    coefficients = len(follow.outputs) - singles
    columns = arrays + singles + 3
    given = [f"single[{i}]" if i < singles else f"setting[{i - singles}]"
             for i in read_arguments(follow)]
    results = ([f"next[{i}]" for i in range(singles)]
               + [f"number[{i}]" for i in range(coefficients)])
    element = {0: "x[0]", 1: f"x[{arrays}]", **{i: f"x[{i - 1}]" for i in range(2, arrays + 1)}}
    read = [element[i] for i in read_arguments(change)]
    read += [f"c[{argument - arrays - 1}]" for _, argument, _ in change.numbers]
    written = [f"y[{k}]" for k in range(arrays)]
    kind, wide, held = TYPES[dtype], TYPES[compute_dtype(dtype)], TYPES[shape.single]
    text = f"""// {change.name}: generated
#include "many.cuh"

{_body(follow)}
{_body(change)}
const int ARRAYS = {arrays}, SINGLES = {singles}, NUMBERS = {coefficients};

struct ml_rule {{
  {wide} c[NUMBERS + 1];  // the last: the factor of the gradients
  __device__ __forceinline__ bool reads(int) const {{ return true; }}
  __device__ __forceinline__ void operator()({wide} (&x)[ARRAYS + 1]) const {{
    {wide} y[ARRAYS];
    {_identifier(change.name)}({', '.join(read + written)});
#pragma unroll
    for (int a = 0; a < ARRAYS; ++a) x[a] = y[a];
  }}
}};

// The numbers of a tensor: of this step, and single ones after it.
__device__ __forceinline__ void ml_follow(const ml_index* row,
                                          const ml_rule_settings<{shape.settings}>& settings,
                                          double* next, double* number) {{
  double single[SINGLES + 1], setting[{shape.settings}];
#pragma unroll
  for (int i = 0; i < SINGLES; ++i) single[i] = *ml_address<const {held}>(row[ARRAYS + i]);
#pragma unroll
  for (int i = 0; i < {shape.settings}; ++i)
    setting[i] = ml_rule_number(settings, row[{columns - 1}], i, {shape.momentum});
  {_identifier(follow.name)}({', '.join(given + results)});
}}

extern "C" __global__ void __launch_bounds__(THREADS)
{name}(const ml_index* table, const ml_index* grads, const int* map,
       ml_rule_settings<{shape.settings}> settings, const float* factor, const float* found_inf,
       int tensors, unsigned* ticket) {{
  __shared__ ml_rule rule;
  if (ml_skipped(found_inf)) return;
  const ml_part<{columns}> part(table, map);
  double next[SINGLES + 1], number[NUMBERS + 1];
  if (threadIdx.x == 0 && part.count > 0) {{
    ml_follow(part.row, settings, next, number);
#pragma unroll
    for (int i = 0; i < NUMBERS; ++i) rule.c[i] = {wide}(number[i]);
    const {wide} scale = ml_factor<{wide}>(factor);
    rule.c[NUMBERS] = settings.maximize[part.row[{columns - 1}]] ? -scale : scale;
  }}
  __syncthreads();
  if (part.count > 0) {{
    {kind}* arrays[ARRAYS + 1];
#pragma unroll
    for (int a = 0; a < ARRAYS; ++a) arrays[a] = part.array<{kind}>(a);
    arrays[ARRAYS] = ml_address<{kind}>(grads[part.tensor]) + part.start;
    const ml_rule update = rule;
    ml_update<{kind}, ARRAYS + 1, ARRAYS>(arrays, part.count, update);
  }}
  if (SINGLES == 0 || !ml_last_block(ticket)) return;
  for (int t = threadIdx.x; t < tensors; t += THREADS) {{
    const ml_index* row = table + ml_index(t) * {columns};
    ml_follow(row, settings, next, number);
#pragma unroll
    for (int i = 0; i < SINGLES; ++i) *ml_address<{held}>(row[ARRAYS + i]) = {held}(next[i]);
  }}
}}
"""
    return Source(text, name, 1)
