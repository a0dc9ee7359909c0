"""Bitwise operations on integers and bool, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
           "bitwise_xor"]


@elementwise
def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """Bits set in both; logical and for bool."""
    return call("bitwise_and", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """Bits set in either; logical or for bool."""
    return call("bitwise_or", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """Bits set in one of the two; logical xor for bool."""
    return call("bitwise_xor", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_not(input: Tensor) -> Tensor:
    """All bits inverted; logical not for bool."""
    return call("bitwise_not", input)  # type: ignore[return-value]


@elementwise
def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input * 2^other; 0 where other is negative or not less than the width."""
    return call("left_shift", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input / 2^other rounded down; the sign alone where other is out of range."""
    return call("right_shift", input, other)  # type: ignore[return-value]
