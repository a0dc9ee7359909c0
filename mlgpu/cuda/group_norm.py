"""Group norm on the device: which kernels, by the length and the number of the groups.

x is (batch, channels, ...); a row is a group of channels of an example.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mlgpu.cuda import batch_norm, rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.rows import Plan
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

HELD = 32  # values of a row that a thread holds; half as many doubles
FEW, LONG = 128, 1 << 16  # fewer rows, each longer: many blocks share one
SLICE = 2048  # values of a channel that some lanes of a warp sum, at least


class Shape(NamedTuple):
    """The sizes of (batch, channels, positions), and channels of a group."""

    batch: int
    channels: int
    positions: int
    each: int

    @property
    def rows(self) -> int:
        return self.batch * self.groups

    @property
    def groups(self) -> int:
        return self.channels // self.each

    @property
    def n(self) -> int:
        return self.each * self.positions

    @property
    def shared(self) -> bool:
        """Whether many blocks share a row."""
        return self.rows < FEW and self.n > LONG


def shape_of(x: Any, groups: int) -> Shape:
    return Shape(x.shape[0], x.shape[1], math.prod(x.shape[2:]), x.shape[1] // groups)


def forward(x: Any, groups: int, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """x normalised; and the rows' means and 1 / deviations, in the dtype that is computed in."""
    x = contiguous(x)
    y = empty(x.shape, x.dtype)
    shape = shape_of(x, groups)
    compute = rows.wide(x.dtype)
    if not x.size:
        return y, empty((shape.rows,), compute), empty((shape.rows,), compute)
    weight, bias = (None if v is None else contiguous(v) for v in (weight, bias))
    width = rows.vector(shape.positions, y, x)
    parameter = _parameter(x, weight, bias)
    if shape.shared:
        mean, rstd = batch_norm.statistics(x, 1, shape.rows, shape.n, eps, rstd=True)
        launch("group_norm", f"group_apply<{_types(x, parameter)}, {_index(x)}, {width}>",
               -(-x.size // (512 * width)), 256,
               (y, x, weight, bias, mean, rstd, x.size // width, shape.channels, shape.each,
                shape.positions))
        return y, mean, rstd
    mean, rstd = empty((shape.rows,), compute), empty((shape.rows,), compute)
    limit = rows.shared_limit() if shape.n > rows.WARP * HELD else 0
    plan = forward_plan(x.dtype, parameter, width, shape, limit)
    launch("group_norm", plan.kernel, plan.grid, plan.block,
           (y, x, weight, bias, mean, rstd, *plan.numbers, eps), shared=plan.shared)
    return y, mean, rstd


def backward(dy: Any, x: Any, groups: int, weight: Any, mean: Any, rstd: Any, bias: bool
             ) -> tuple[Any, Any, Any]:
    """The gradients of x, weight and bias: None where there is no such parameter."""
    dy, x = contiguous(dy), contiguous(x)
    dx = empty(x.shape, x.dtype)
    shape = shape_of(x, groups)
    dweight = None if weight is None else empty(weight.shape, weight.dtype)
    dbias = empty(weight.shape, weight.dtype) if bias else None
    if not x.size:
        for gradient in (dweight, dbias):
            if gradient is not None:
                gradient.data.memset_async(0, gradient.nbytes)
        return dx, dweight, dbias
    weight = None if weight is None else contiguous(weight)
    width = rows.vector(shape.positions, dx, dy, x)
    plans, slices = backward_plans(x.dtype, _parameter(x, weight), width, shape)
    sums = empty((shape.batch * shape.channels, slices, 2), rows.wide(x.dtype))
    if len(plans) == 2:
        plan = plans[0]
        launch("group_norm", plan.kernel, plan.grid, plan.block,
               (sums, dy, x, mean, rstd, *plan.numbers))
    plan = plans[-1]
    launch("group_norm", plan.kernel, plan.grid, plan.block,
           (dx, dy, x, weight, mean, rstd, sums, *plan.numbers))
    if weight is not None:
        launch("group_norm", f"group_fold<{ctype(weight.dtype)}, {ctype(sums.dtype)}>",
               -(-shape.channels // rows.WARP), 256,
               (dweight, dbias, sums, shape.batch, shape.channels, slices))
    return dx, dweight, dbias


# --- plans ----------------------------------------------------------------------------------------


def _parameter(x: Any, *parameters: Any) -> str:
    return ctype(next((p.dtype for p in parameters if p is not None), x.dtype))


def _types(x: Any, parameter: str) -> str:
    return f"{ctype(x.dtype)}, {parameter}, {ctype(rows.wide(x.dtype))}"


def _index(x: Any) -> str:
    return "int" if x.size < 1 << 30 else "ml_index"


def forward_plan(dtype: Any, parameter: str, width: int, shape: Shape, shared_limit: int) -> Plan:
    """For rows that a block or a part of a warp takes; `width` values are loaded at once."""
    compute = rows.wide(dtype)
    types = f"{ctype(dtype)}, {parameter}, {ctype(compute)}, {width}"
    count, n = shape.rows, shape.n
    where = (shape.groups, shape.each, shape.positions)
    if n <= rows.WARP * HELD:
        lanes, vectors = rows.lanes(n, width)
        return Plan(f"group_rows<{types}, {vectors}, {lanes}>", -(-count * lanes // 256), 256,
                    (count, n, *where))
    held = HELD * 4 // compute.itemsize
    for each in (held // 2, held):
        if n <= 512 * each:
            return Plan(f"group_block<{types}, {each // width}>", count,
                        rows.threads(n, each, 512), (n, *where))
    kept = n * dtype.itemsize
    fits = kept + rows.STATIC <= shared_limit
    return Plan(f"group_long<{types}, {str(fits).lower()}>", count, 1024, (n, *where),
                kept if fits else 0)


def backward_plans(dtype: Any, parameter: str, width: int, shape: Shape
                   ) -> tuple[list[Plan], int]:
    """One kernel, or one for the sums and one for dx; and slices of a channel."""
    compute = ctype(rows.wide(dtype))
    types = f"{ctype(dtype)}, {parameter}, {compute}, {width}"
    slices = max(1, min(64, shape.positions // SLICE))
    lanes = min(rows.WARP, rows.power(-(-shape.positions // (slices * width))))
    where = (shape.groups, shape.each, shape.positions, slices)
    if not shape.shared:
        threads = rows.threads(shape.n, 16, 512)
        return [Plan(f"group_backward<{types}, {lanes}>", shape.rows, threads, where)], slices
    units = shape.batch * shape.channels * slices
    sums = Plan(f"group_sums<{ctype(dtype)}, {compute}, {width}, {lanes}>",
                -(-units * lanes // 256), 256, (units, *where[1:]))
    chunks = -(-shape.n // (512 * 32))
    return [sums, Plan(f"group_gradient<{types}>", shape.rows * chunks, 512, (*where, chunks))
            ], slices
