"""Copies and fills of device arrays: casts, strides, broadcasting."""

from __future__ import annotations

from functools import cache
from typing import Any

from mlgpu import dtypes
from mlgpu.cuda.evaluate import evaluate
from mlgpu.cuda.transpose import copy_transposed
from mlgpu.expr.graph import Expr, arg
from mlgpu.expr.lower import NUMBER, TENSOR, Operand, Program, lower

_EXACT = {"float": dtypes.float64, "complex": dtypes.complex128}


@cache
def _cast(source: Any, target: Any, weight: int = TENSOR) -> Program:
    operand = Operand(dtypes.from_numpy(source) if weight == TENSOR else source, weight)
    into = dtypes.from_numpy(target)
    if operand.dtype is into:
        return lower("copy", (arg(0),), [operand], [into])
    return lower("copy" if weight == TENSOR else "fill", (Expr("cast", (arg(0),), into),),
                 [operand], [into])


def copy_into(out: Any, array: Any) -> None:
    """Write the values of `array`, broadcast and cast, into `out`.

    They may share memory only where they are the same view.
    """
    if not out.size:
        return
    if (out.dtype == array.dtype and out.shape == array.shape and out.flags.c_contiguous
            and array.flags.c_contiguous):
        if out.data.ptr != array.data.ptr:
            out.data.copy_from_device_async(array.data, out.nbytes)
        return
    if out.dtype == array.dtype and out.shape == array.shape and copy_transposed(out, array):
        return
    evaluate(_cast(array.dtype, out.dtype), (array,), (out,))


def fill(out: Any, value: Any) -> None:
    """Write one number into all elements of `out`."""
    if out.size:
        kind = dtypes.scalar_dtype(value)
        exact = _EXACT.get(kind.kind, kind)  # not rounded before it is cast
        evaluate(_cast(exact, out.dtype, NUMBER), (value,), (out,))
