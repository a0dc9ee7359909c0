"""Gradients that meet: one added into the other's memory."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu import dtypes
from mlgpu.cuda.evaluate import evaluate
from mlgpu.expr.graph import Expr, arg
from mlgpu.expr.lower import TENSOR, Operand, Program, lower


@cache
def _sum(into: Any, other: Any) -> Program:
    operands = [Operand(dtypes.from_numpy(d), TENSOR) for d in (into, other)]
    return lower("accumulate", (Expr("add", (arg(0), arg(1))),), operands, [operands[0].dtype])


def add_into(total: Any, new: Any) -> None:
    """total += new, of one shape; `new` is no other view of total's memory."""
    evaluate(_sum(total.dtype, new.dtype), (total, new), (total,))
