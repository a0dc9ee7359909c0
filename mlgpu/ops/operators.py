"""Python's operators on tensors.

A NumPy array is taken for the CPU tensor on its memory; an operand of another foreign type gets its
chance (NotImplemented).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.amp.policy import by_policy
from mlgpu.expr.graph import Expr
from mlgpu.ops import arithmetic, bits, choice, compare, exponential
from mlgpu.ops import matmul as products
from mlgpu.ops.elementwise import ElementwiseFunction, inplace, symbolic
from mlgpu.ops.interop import from_numpy
from mlgpu.ops.link import binary
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

_OPERANDS = (Tensor, float, int, Expr, bool, complex, np.number, np.bool_)

Operator = Callable[[Any, Any], Any]


def _forward(function: Callable[..., Any]) -> Operator:
    formula = function.formula if isinstance(function, ElementwiseFunction) else None

    @symbolic
    def operator(self: Any, other: Any) -> Any:
        if formula is not None and isinstance(other, Tensor):
            made = binary(formula, self, other)
            if made is not None:
                return made
        if isinstance(other, _OPERANDS):
            return function(self, other)
        if isinstance(other, np.ndarray):
            return function(self, from_numpy(other))
        return NotImplemented

    return operator


def _reflected(function: Callable[..., Any]) -> Operator:
    @symbolic
    def operator(self: Any, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            if not isinstance(self, (Tensor, Expr)):
                raise TypeError(f"an operator of Tensor was called of {type(self).__name__}")
            return function(other, self)
        if isinstance(other, np.ndarray):
            return function(from_numpy(other), self)
        return NotImplemented

    return operator


def _three(function: Callable[..., Any]) -> tuple[Operator, Operator, Operator]:
    """x + y, y + x for a foreign y, and x += y."""
    return _forward(function), _reflected(function), _forward(inplace(function))


add, radd, iadd = _three(arithmetic._add)
sub, rsub, isub = _three(arithmetic._sub)
mul, rmul, imul = _three(arithmetic.mul)
truediv, rtruediv, itruediv = _three(arithmetic._div)
floordiv, rfloordiv, ifloordiv = _three(arithmetic.floor_divide)
mod, rmod, imod = _three(arithmetic.remainder)
pow, rpow, ipow = _three(by_policy(exponential.pow))
and_, rand_, iand = _three(bits.bitwise_and)
or_, ror_, ior = _three(bits.bitwise_or)
xor, rxor, ixor = _three(bits.bitwise_xor)
lshift, rlshift, ilshift = _three(bits.bitwise_left_shift)
rshift, rrshift, irshift = _three(bits.bitwise_right_shift)
eq, ne = _forward(compare.eq), _forward(compare.ne)
lt, le, gt, ge = (_forward(compare.lt), _forward(compare.le), _forward(compare.gt),
                  _forward(compare.ge))
matmul, rmatmul = (operator(by_policy(products.matmul)) for operator in (_forward, _reflected))
neg, pos, abs, invert = (arithmetic.neg, arithmetic.positive, arithmetic.abs, bits.bitwise_not)


def contains(self: Tensor, element: Any) -> bool:
    """Whether an element equals a number or tensor.  TypeError for anything else."""
    if not isinstance(element, _OPERANDS):
        raise TypeError(f"in: expected a Tensor or a number, got {type(element).__name__}")
    return bool(eq(self, element).any())


def where(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """The tensor where `condition` holds, else `other`."""
    return choice.where(condition, self, other)
