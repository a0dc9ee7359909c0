"""Functions of one number for compiled loops, written so that loops over them become vector code.

Numba brings no vector forms of exp and its like.  These are polynomials, fitted to the smallest
largest error, after a reduction of the argument by views of its bits; there are no branches, only
selections.  NaN, infinities, signed zeros, overflow and subnormal results are as IEEE wants them,
errors within NumPy's (tests/test_fast_maths.py has the bounds).

`exp` and the others are for float32 and float64 alike, and only for use inside compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from mlgpu.cpu.fast.compiler import exact

__all__ = ["exp"]

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64

_typed: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic
_SAME_WIDTH = {types.float32: types.int32, types.float64: types.int64}


@_typed
def bits(context: Any, x: Any) -> Any:
    """The bits of a floating number, as an integer of its width."""
    result = _SAME_WIDTH[x]

    def bitcast(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        return builder.bitcast(operands[0], ir.IntType(result.bitwidth))

    return result(x), bitcast


@_typed
def floating(context: Any, n: Any) -> Any:
    """The floating number with these bits, an int32 or int64."""
    result = {whole: kind for kind, whole in _SAME_WIDTH.items()}[n]

    def bitcast(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        return builder.bitcast(operands[0], context.get_value_type(result))

    return result(n), bitcast


def _of_both(name: str, single: Callable[..., Any], double: Callable[..., Any]) -> Any:
    """A function that takes float32 or float64, made of one for each."""
    def function(x: Any) -> Any:
        raise TypeError(f"{name}: only for use inside compiled loops")

    def of_single(x: Any) -> Any:
        return single(x)

    def of_double(x: Any) -> Any:
        return double(x)

    def choose(x: Any) -> Any:
        return {types.float32: of_single, types.float64: of_double}.get(x)

    overload(function, jit_options={"forceinline": True})(choose)
    return function


# --- exponentials ---------------------------------------------------------------------------------

# Adding this rounds to a whole number, which the lowest bits of the sum then hold.
_ROUND32, _ROUND64 = f32(1.5 * 2.0 ** 23), 1.5 * 2.0 ** 52
_BITS32, _BITS64 = i32(f32(_ROUND32).view(i32)), int(f64(_ROUND64).view(i64))
_LOG2E32, _LOG2E64 = f32(1.4426950408889634), 1.4426950408889634
# log 2 in two parts, of which the first has trailing zeros: a whole number times it is exact.
_LN2_HIGH32, _LN2_LOW32 = f32(0.693145751953125), f32(1.4286068203094172e-06)
_LN2_HIGH64, _LN2_LOW64 = 0.6931471803691238, 1.9082149292705877e-10


@exact
def _power32(n: Any) -> Any:
    """2 to a whole number within -126 and 127."""
    return floating(i32(i32(n + i32(127)) << i32(23)))


@exact
def _power64(n: Any) -> Any:
    """2 to a whole number within -1022 and 1023."""
    return floating(i64((n + i64(1023)) << i64(52)))


@exact
def exp32(x: Any) -> Any:
    x = f32(-104) if x < f32(-104) else x
    x = f32(89) if x > f32(89) else x
    shifted = x * _LOG2E32 + _ROUND32
    n = i32(bits(shifted) - _BITS32)
    whole = shifted - _ROUND32
    r = x - whole * _LN2_HIGH32
    r = r - whole * _LN2_LOW32
    q = f32(0.00019907703972421587)
    q = q * r + f32(0.0013933735899627209)
    q = q * r + f32(0.00833328627049923)
    q = q * r + f32(0.041666463017463684)
    q = q * r + f32(0.1666666716337204)
    q = q * r + f32(0.5)
    p = f32(1) + (r + r * r * q)
    half = i32(n >> i32(1))  # in two steps: the power itself may be beyond the exponent's range
    return p * _power32(half) * _power32(i32(n - half))


@exact
def exp64(x: Any) -> Any:
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    shifted = x * _LOG2E64 + _ROUND64
    n = i64(bits(shifted) - _BITS64)
    whole = shifted - _ROUND64
    r = x - whole * _LN2_HIGH64
    r = r - whole * _LN2_LOW64
    q = 2.092167017912071e-09
    q = q * r + 2.5105314116534945e-08
    q = q * r + 2.7557252673292366e-07
    q = q * r + 2.7557255166245233e-06
    q = q * r + 2.4801587347587177e-05
    q = q * r + 0.0001984126987500567
    q = q * r + 0.0013888888888874294
    q = q * r + 0.008333333333326082
    q = q * r + 0.041666666666666685
    q = q * r + 0.1666666666666667
    q = q * r + 0.5
    p = 1.0 + (r + r * r * q)
    half = i64(n >> i64(1))
    return p * _power64(half) * _power64(i64(n - half))


exp = _of_both("exp", exp32, exp64)
