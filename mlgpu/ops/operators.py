"""Python's operators on tensors.

A NumPy array is taken for the CPU tensor on its memory; an operand of another foreign type gets its
chance (NotImplemented).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.expr.graph import Expr
from mlgpu.ops import compare, pointwise
from mlgpu.ops import matmul as products
from mlgpu.ops.elementwise import inplace
from mlgpu.ops.interop import from_numpy
from mlgpu.ops.pointwise import Operand
from mlgpu.tensor import Tensor

_OPERANDS = (Tensor, Expr, bool, int, float, complex, np.number, np.bool_)

Operator = Callable[[Any, Any], Any]


def _forward(function: Callable[..., Any]) -> Operator:
    def operator(self: Any, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            other = from_numpy(other)
        return function(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    return operator


def _reflected(function: Callable[..., Any]) -> Operator:
    def operator(self: Any, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            other = from_numpy(other)
        return function(other, self) if isinstance(other, _OPERANDS) else NotImplemented

    return operator


add, radd, iadd = (_forward(pointwise.add), _reflected(pointwise.add),
                   _forward(inplace(pointwise.add)))
sub, rsub, isub = (_forward(pointwise.sub), _reflected(pointwise.sub),
                   _forward(inplace(pointwise.sub)))
mul, rmul, imul = (_forward(pointwise.mul), _reflected(pointwise.mul),
                   _forward(inplace(pointwise.mul)))
truediv, rtruediv, itruediv = (_forward(pointwise.div), _reflected(pointwise.div),
                               _forward(inplace(pointwise.div)))
floordiv, rfloordiv, ifloordiv = (
    _forward(pointwise.floor_divide), _reflected(pointwise.floor_divide),
    _forward(inplace(pointwise.floor_divide)))
mod, rmod, imod = (_forward(pointwise.remainder), _reflected(pointwise.remainder),
                   _forward(inplace(pointwise.remainder)))
pow, rpow, ipow = (_forward(pointwise.pow), _reflected(pointwise.pow),
                   _forward(inplace(pointwise.pow)))
and_, rand_, iand = (_forward(pointwise.bitwise_and), _reflected(pointwise.bitwise_and),
                     _forward(inplace(pointwise.bitwise_and)))
or_, ror_, ior = (_forward(pointwise.bitwise_or), _reflected(pointwise.bitwise_or),
                  _forward(inplace(pointwise.bitwise_or)))
xor, rxor, ixor = (_forward(pointwise.bitwise_xor), _reflected(pointwise.bitwise_xor),
                   _forward(inplace(pointwise.bitwise_xor)))
lshift, rlshift, ilshift = (
    _forward(pointwise.bitwise_left_shift), _reflected(pointwise.bitwise_left_shift),
    _forward(inplace(pointwise.bitwise_left_shift)))
rshift, rrshift, irshift = (
    _forward(pointwise.bitwise_right_shift), _reflected(pointwise.bitwise_right_shift),
    _forward(inplace(pointwise.bitwise_right_shift)))
eq, ne = _forward(compare.eq), _forward(compare.ne)
lt, le, gt, ge = (_forward(compare.lt), _forward(compare.le), _forward(compare.gt),
                  _forward(compare.ge))
matmul, rmatmul = _forward(products.matmul), _reflected(products.matmul)
neg, pos, abs, invert = (pointwise.neg, pointwise.positive, pointwise.abs, pointwise.bitwise_not)


def contains(self: Tensor, element: Any) -> bool:
    """Whether an element equals a number or tensor.  TypeError for anything else."""
    if not isinstance(element, _OPERANDS):
        raise TypeError(f"in: expected a Tensor or a number, got {type(element).__name__}")
    return bool(eq(self, element).any())


def where(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """The tensor where `condition` holds, else `other`."""
    return pointwise.where(condition, self, other)
