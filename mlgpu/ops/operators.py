"""Python's operators on tensors.

A NumPy array is taken for the CPU tensor on its memory; an operand of another foreign type gets its
chance (NotImplemented).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.expr.graph import Expr
from mlgpu.ops import arithmetic, bits, choice, compare, exponential
from mlgpu.ops import matmul as products
from mlgpu.ops.elementwise import inplace
from mlgpu.ops.interop import from_numpy
from mlgpu.ops.operand import Operand
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


add, radd, iadd = (_forward(arithmetic.add), _reflected(arithmetic.add),
                   _forward(inplace(arithmetic.add)))
sub, rsub, isub = (_forward(arithmetic.sub), _reflected(arithmetic.sub),
                   _forward(inplace(arithmetic.sub)))
mul, rmul, imul = (_forward(arithmetic.mul), _reflected(arithmetic.mul),
                   _forward(inplace(arithmetic.mul)))
truediv, rtruediv, itruediv = (_forward(arithmetic.div), _reflected(arithmetic.div),
                               _forward(inplace(arithmetic.div)))
floordiv, rfloordiv, ifloordiv = (
    _forward(arithmetic.floor_divide), _reflected(arithmetic.floor_divide),
    _forward(inplace(arithmetic.floor_divide)))
mod, rmod, imod = (_forward(arithmetic.remainder), _reflected(arithmetic.remainder),
                   _forward(inplace(arithmetic.remainder)))
pow, rpow, ipow = (_forward(exponential.pow), _reflected(exponential.pow),
                   _forward(inplace(exponential.pow)))
and_, rand_, iand = (_forward(bits.bitwise_and), _reflected(bits.bitwise_and),
                     _forward(inplace(bits.bitwise_and)))
or_, ror_, ior = (_forward(bits.bitwise_or), _reflected(bits.bitwise_or),
                  _forward(inplace(bits.bitwise_or)))
xor, rxor, ixor = (_forward(bits.bitwise_xor), _reflected(bits.bitwise_xor),
                   _forward(inplace(bits.bitwise_xor)))
lshift, rlshift, ilshift = (
    _forward(bits.bitwise_left_shift), _reflected(bits.bitwise_left_shift),
    _forward(inplace(bits.bitwise_left_shift)))
rshift, rrshift, irshift = (
    _forward(bits.bitwise_right_shift), _reflected(bits.bitwise_right_shift),
    _forward(inplace(bits.bitwise_right_shift)))
eq, ne = _forward(compare.eq), _forward(compare.ne)
lt, le, gt, ge = (_forward(compare.lt), _forward(compare.le), _forward(compare.gt),
                  _forward(compare.ge))
matmul, rmatmul = _forward(products.matmul), _reflected(products.matmul)
neg, pos, abs, invert = (arithmetic.neg, arithmetic.positive, arithmetic.abs, bits.bitwise_not)


def contains(self: Tensor, element: Any) -> bool:
    """Whether an element equals a number or tensor.  TypeError for anything else."""
    if not isinstance(element, _OPERANDS):
        raise TypeError(f"in: expected a Tensor or a number, got {type(element).__name__}")
    return bool(eq(self, element).any())


def where(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """The tensor where `condition` holds, else `other`."""
    return choice.where(condition, self, other)
