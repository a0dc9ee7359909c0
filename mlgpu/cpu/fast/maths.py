"""Functions of numbers for compiled loops, written so that loops over them become vector code.

Numba brings no vector forms of exp and its like.  These are polynomials, fitted to the smallest
largest error, after a reduction of the argument by views of its bits; there are no branches, only
selections.  NaN, infinities, signed zeros, overflow and subnormal results are as IEEE wants them,
errors within NumPy's (tests/test_fast_maths.py has the bounds).

All are for use inside compiled code only, and but for `power`, `sin` and `cos` for float32 and
float64 alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from mlgpu.cpu.fast.compiler import exact
from mlgpu.cpu.special import ABOVE, SLOPE

__all__ = ["copysign", "cos", "erf", "erfc", "exp", "exp2", "exp_down", "expm1", "gelu",
           "gelu_slope", "log", "log1p", "log2", "log10", "lowest", "of_rank", "power", "rank",
           "rint", "sigmoid", "sin", "tanh"]

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


def _polynomial(*coefficients: float) -> Any:
    """The polynomial with these coefficients, lowest power first, in the precision of its number.

    Each step is one fused operation where the machine has it.
    """
    @_typed
    def polynomial(context: Any, x: Any) -> Any:
        def horner(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            kind = context.get_value_type(x)
            step = builder.module.declare_intrinsic("llvm.fmuladd", [kind],
                                                    ir.FunctionType(kind, [kind] * 3))
            total = ir.Constant(kind, coefficients[-1])
            for c in reversed(coefficients[:-1]):
                total = builder.call(step, [total, operands[0], ir.Constant(kind, c)])
            return total

        return x(x), horner

    return polynomial


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


# --- bits -----------------------------------------------------------------------------------------

# Adding this rounds to a whole number, which the lowest bits of the sum then hold.
_ROUND32, _ROUND64 = f32(1.5 * 2.0 ** 23), 1.5 * 2.0 ** 52
_BITS32, _BITS64 = i32(_ROUND32.view(i32)), int(f64(_ROUND64).view(i64))
_SIGN32, _SIGN64 = i32(-2 ** 31), i64(-2 ** 63)
_REST32, _REST64 = i32(2 ** 31 - 1), i64(2 ** 63 - 1)


@exact
def _copysign32(size: Any, sign: Any) -> Any:
    return floating(i32((bits(size) & _REST32) | (bits(sign) & _SIGN32)))


@exact
def _copysign64(size: Any, sign: Any) -> Any:
    return floating(i64((bits(size) & _REST64) | (bits(sign) & _SIGN64)))


def copysign(size: Any, sign: Any) -> Any:
    """`size` with the sign of `sign`, both float32 or both float64."""
    raise TypeError("copysign: only for use inside compiled loops")


@overload(copysign, jit_options={"forceinline": True})  # type: ignore[untyped-decorator]
def _copysign(size: Any, sign: Any) -> Any:
    def of_single(size: Any, sign: Any) -> Any:
        return _copysign32(size, sign)

    def of_double(size: Any, sign: Any) -> Any:
        return _copysign64(size, sign)

    return {types.float32: of_single, types.float64: of_double}.get(size)


@exact
def _power32(n: Any) -> Any:
    """2 to a whole number within -126 and 127."""
    return floating(i32(i32(n + i32(127)) << i32(23)))


@exact
def _power64(n: Any) -> Any:
    """2 to a whole number within -1022 and 1023."""
    return floating(i64((n + i64(1023)) << i64(52)))


# A number's bits as an integer that is the larger, the larger the number.


@exact
def _rank32(x: Any) -> Any:
    b = bits(x)
    return i32(b ^ ((b >> i32(31)) & _REST32))


@exact
def _rank64(x: Any) -> Any:
    b = bits(x)
    return i64(b ^ ((b >> i64(63)) & _REST64))


@exact
def _of_rank32(n: Any) -> Any:
    return floating(i32(n ^ ((n >> i32(31)) & _REST32)))


@exact
def _of_rank64(n: Any) -> Any:
    return floating(i64(n ^ ((n >> i64(63)) & _REST64)))


@exact
def _lowest32(x: Any) -> Any:
    return _SIGN32


@exact
def _lowest64(x: Any) -> Any:
    return _SIGN64


# --- exponentials ---------------------------------------------------------------------------------

_LOG2E32, _LOG2E64 = f32(1.4426950408889634), 1.4426950408889634
# log 2 in two parts, of which the first has trailing zeros: a whole number times it is exact.
_LN2_HIGH32, _LN2_LOW32 = f32(0.693145751953125), f32(1.4286068203094173e-06)
_LN2_HIGH64, _LN2_LOW64 = 0.6931471805592082, 7.371002565167799e-13

_ONE32 = i32(127 << 23)  # the bits of 1
_SCALE32 = i32((127 + 64) << 23)  # those of 2**64
_DEEPEST32 = f32(-87.3)  # exp is a normal number from here on

# (exp(r) - 1 - r) / r**2 for |r| <= log(2) / 2
_exp_tail32 = _polynomial(
    0.5, 0.1666666716337204, 0.041666463017463684, 0.00833328627049923, 0.0013933735899627209,
    0.00019907703972421587)
_exp_tail64 = _polynomial(
    0.5, 0.1666666666666667, 0.041666666666666685, 0.008333333333326082, 0.0013888888888874294,
    0.0001984126987500567, 2.4801587347587177e-05, 2.7557255166245233e-06, 2.7557252673292366e-07,
    2.5105314116534945e-08, 2.092167017912071e-09)
# (2**r - 1) / r for |r| <= 1/2
_exp2_tail32 = _polynomial(
    0.6931471824645996, 0.24022650718688965, 0.05550410971045494, 0.009618056006729603,
    0.0013333454262465239, 0.00015461565635632724, 1.531019552203361e-05)
_exp2_tail64 = _polynomial(
    0.6931471805599453, 0.24022650695910072, 0.055504108664821625, 0.009618129107628487,
    0.001333355814640629, 0.0001540353039335456, 1.5252733841785816e-05, 1.3215486823495732e-06,
    1.017805697025038e-07, 7.054891387020564e-09, 4.4558387461354103e-10, 2.5737932444201745e-11)


@exact
def _scaled32(p: Any, n: Any) -> Any:
    """p times 2 to the n, in two steps: the power itself may be beyond the exponent's range."""
    half = i32(n >> i32(1))
    return p * _power32(half) * _power32(i32(n - half))


@exact
def _scaled64(p: Any, n: Any) -> Any:
    half = i64(n >> i64(1))
    return p * _power64(half) * _power64(i64(n - half))


@exact
def _exp_sum32(x: Any, low: Any) -> Any:
    """exp(x + low) for a low that is within an ulp of x."""
    x = f32(-104) if x < f32(-104) else x
    x = f32(89) if x > f32(89) else x
    shifted = x * _LOG2E32 + _ROUND32
    n = i32(bits(shifted) - _BITS32)
    whole = shifted - _ROUND32
    r = x - whole * _LN2_HIGH32
    r = (r - whole * _LN2_LOW32) + low
    return _scaled32(f32(1) + (r + r * r * _exp_tail32(r)), n)


@exact
def _exp_sum64(x: Any, low: Any) -> Any:
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    shifted = x * _LOG2E64 + _ROUND64
    n = i64(bits(shifted) - _BITS64)
    whole = shifted - _ROUND64
    r = x - whole * _LN2_HIGH64
    r = (r - whole * _LN2_LOW64) + low
    return _scaled64(1.0 + (r + r * r * _exp_tail64(r)), n)


@exact
def exp32(x: Any) -> Any:
    return _exp_sum32(x, f32(-0.0))


@exact
def _exp_parts32(x: Any) -> tuple[Any, Any]:
    """p and n of exp(x) = p 2**n, n where the exponent has its bits."""
    shifted = x * _LOG2E32 + _ROUND32
    whole = shifted - _ROUND32
    r = x - whole * _LN2_HIGH32
    r = r - whole * _LN2_LOW32
    return f32(1) + (r + r * r * _exp_tail32(r)), i32(bits(shifted) << i32(23))


@exact
def _exp_down32(x: Any) -> Any:
    x = f32(89) if x > f32(89) else x
    p, n = _exp_parts32(x)
    return f32(0) if x < _DEEPEST32 else p * floating(i32(n + _ONE32))


@exact
def _exp_under32(x: Any) -> Any:
    """As `exp32`, of a number that is not above 0."""
    p, n = _exp_parts32(f32(-104) if x < f32(-104) else x)
    return p * floating(i32(n + _SCALE32)) * f32(2.0 ** -64)


@exact
def exp64(x: Any) -> Any:
    return _exp_sum64(x, -0.0)


@exact
def _exp2_32(x: Any) -> Any:
    x = f32(-151) if x < f32(-151) else x
    x = f32(129) if x > f32(129) else x
    shifted = x + _ROUND32
    r = x - (shifted - _ROUND32)
    return _scaled32(f32(1) + r * _exp2_tail32(r), i32(bits(shifted) - _BITS32))


@exact
def exp2_64(x: Any) -> Any:
    x = -1076.0 if x < -1076.0 else x
    x = 1025.0 if x > 1025.0 else x
    shifted = x + _ROUND64
    r = x - (shifted - _ROUND64)
    return _scaled64(1.0 + r * _exp2_tail64(r), i64(bits(shifted) - _BITS64))


@exact
def _expm1_32(x: Any) -> Any:
    held = f32(-20) if x < f32(-20) else x
    held = f32(89) if held > f32(89) else held
    shifted = held * _LOG2E32 + _ROUND32
    whole = shifted - _ROUND32
    r = held - whole * _LN2_HIGH32
    r = r - whole * _LN2_LOW32
    half = _power32(i32(i32(bits(shifted) - _BITS32) - i32(1)))  # the power itself may be too large
    y = half * (r + r * r * _exp_tail32(r)) + (half - f32(0.5))
    return x if x == f32(0) else y + y


@exact
def _expm1_64(x: Any) -> Any:
    held = -40.0 if x < -40.0 else x
    held = 710.0 if held > 710.0 else held
    shifted = held * _LOG2E64 + _ROUND64
    whole = shifted - _ROUND64
    r = held - whole * _LN2_HIGH64
    r = r - whole * _LN2_LOW64
    half = _power64(i64(i64(bits(shifted) - _BITS64) - i64(1)))
    y = half * (r + r * r * _exp_tail64(r)) + (half - 0.5)
    return x if x == 0.0 else y + y


@exact
def _sigmoid32(x: Any) -> Any:
    e = _exp_under32(-abs(x))
    return (e if x < f32(0) else f32(1)) / (f32(1) + e)


@exact
def _sigmoid64(x: Any) -> Any:
    e = exp64(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


# (tanh(x) / x - 1) / x**2 in x**2, for |x| <= 0.6
_tanh_near32 = _polynomial(
    -0.3333333432674408, 0.13333313167095184, -0.053961753845214844, 0.02178989350795746,
    -0.008415036834776402, 0.002376264426857233)
_tanh_near64 = _polynomial(
    -0.3333333333333333, 0.13333333333333214, -0.05396825396809302, 0.02186948852770115,
    -0.008863235300177418, 0.0035921243453000797, -0.0014557966535024337, 0.0005897720748726862,
    -0.00023796523694479603, 9.33516383374747e-05, -3.211850794739168e-05, 6.950129574709391e-06)


@exact
def _tanh32(x: Any) -> Any:
    a = abs(x)
    square = x * x
    near = x + x * (square * _tanh_near32(square))
    p, n = _exp_parts32(f32(40) if a > f32(20) else a + a)
    far = f32(1) - f32(2) / (p * floating(i32(n + _ONE32)) + f32(1))
    return _copysign32(near if a < f32(0.6) else far, x)


@exact
def _tanh64(x: Any) -> Any:
    a = abs(x)
    square = x * x
    near = x + x * (square * _tanh_near64(square))
    far = 1.0 - 2.0 / (exp64(a + a) + 1.0)
    return _copysign64(near if a < 0.6 else far, x)


# --- logarithms -----------------------------------------------------------------------------------

_ROOT_HALF32 = i32(f32(math.sqrt(0.5)).view(i32))
_ROOT_HALF64 = i64(f64(math.sqrt(0.5)).view(i64))
_TINY32, _TINY64 = f32(2.0 ** -126), 2.0 ** -1022
_LOG2E_HIGH32, _LOG2E_LOW32 = f32(1.4426950216293335), f32(1.925963033500011e-08)
_LOG2E_HIGH64, _LOG2E_LOW64 = 1.4426950408889634, 2.0355273740931033e-17
_LOG10E_HIGH32, _LOG10E_LOW32 = f32(0.4342944920063019), f32(-1.0103049952192578e-08)
_LOG10E_HIGH64, _LOG10E_LOW64 = 0.4342944819032518, 1.098319650216765e-17
_LOG10_2_HIGH32, _LOG10_2_LOW32 = f32(0.301025390625), f32(4.605038981195214e-06)
_LOG10_2_HIGH64, _LOG10_2_LOW64 = 0.30102999566361177, 3.694239077158931e-13

# (log(1 + f) - f + f**2 / 2) / f**3 for 1 + f between the roots of 1/2 and 2
_log_tail32 = _polynomial(
    0.3333333134651184, -0.24999980628490448, 0.200006902217865, -0.1666916012763977,
    0.14251108467578888, -0.12396466732025146, 0.11634940654039383, -0.11661741137504578,
    0.07333951443433762)
# (log((1 + s) / (1 - s)) / s - 2) / s**2 in s**2, for the same range
_log_tail64 = _polynomial(
    0.6666666666666666, 0.4000000000000089, 0.2857142857079696, 0.22222222393108196,
    0.18181795501098985, 0.1538624681383094, 0.13268592928292988, 0.13088419058335887)


@exact
def _split32(x: Any) -> Any:
    """The exponent e and f of x = 2**e * (1 + f), 1 + f between the roots of 1/2 and 2."""
    small = x < _TINY32
    b = bits(x * f32(2.0 ** 25) if small else x)
    e = i32(i32(b - _ROOT_HALF32) >> i32(23))
    f = floating(i32(b - i32(e << i32(23)))) - f32(1)
    return f32(e) - (f32(25) if small else f32(0)), f


@exact
def _split64(x: Any) -> Any:
    small = x < _TINY64
    b = bits(x * 2.0 ** 54 if small else x)
    e = i64(i64(b - _ROOT_HALF64) >> i64(52))
    f = floating(i64(b - i64(e << i64(52)))) - 1.0
    whole = floating(i64(e + _BITS64)) - _ROUND64
    return whole - (54.0 if small else 0.0), f


@exact
def _log_beyond32(x: Any, y: Any) -> Any:
    """y, the logarithm of x, but where x is 0, negative, infinite or NaN."""
    inside = x > f32(0) and x < f32(np.inf)
    edge = f32(-np.inf) if x == f32(0) else (f32(np.nan) if x < f32(0) else x)
    return y if inside else edge


@exact
def _log_beyond64(x: Any, y: Any) -> Any:
    inside = x > 0.0 and x < np.inf
    edge = -np.inf if x == 0.0 else (np.nan if x < 0.0 else x)
    return y if inside else edge


@exact
def _small_log32(f: Any) -> Any:
    """log(1 + f) - f."""
    return f * f * (f * _log_tail32(f) - f32(0.5))


@exact
def _small_log64(f: Any) -> Any:
    s = f / (2.0 + f)
    square = s * s
    half = 0.5 * f * f
    return s * (half + square * _log_tail64(square)) - half


@exact
def _log32(x: Any) -> Any:
    e, f = _split32(x)
    return _log_beyond32(x, e * _LN2_HIGH32 + (f + (_small_log32(f) + e * _LN2_LOW32)))


@exact
def _log64(x: Any) -> Any:
    e, f = _split64(x)
    return _log_beyond64(x, e * _LN2_HIGH64 + (f + (_small_log64(f) + e * _LN2_LOW64)))


@exact
def _log2_32(x: Any) -> Any:
    e, f = _split32(x)
    tail = _small_log32(f)
    y = f * _LOG2E_HIGH32 + (tail * _LOG2E_HIGH32 + (f + tail) * _LOG2E_LOW32)
    return _log_beyond32(x, e + y)


@exact
def _log2_64(x: Any) -> Any:
    e, f = _split64(x)
    tail = _small_log64(f)
    y = f * _LOG2E_HIGH64 + (tail * _LOG2E_HIGH64 + (f + tail) * _LOG2E_LOW64)
    return _log_beyond64(x, e + y)


@exact
def _log10_32(x: Any) -> Any:
    e, f = _split32(x)
    tail = _small_log32(f)
    low = tail * _LOG10E_HIGH32 + ((f + tail) * _LOG10E_LOW32 + e * _LOG10_2_LOW32)
    return _log_beyond32(x, e * _LOG10_2_HIGH32 + (f * _LOG10E_HIGH32 + low))


@exact
def _log10_64(x: Any) -> Any:
    e, f = _split64(x)
    tail = _small_log64(f)
    low = tail * _LOG10E_HIGH64 + ((f + tail) * _LOG10E_LOW64 + e * _LOG10_2_LOW64)
    return _log_beyond64(x, e * _LOG10_2_HIGH64 + (f * _LOG10E_HIGH64 + low))


@exact
def _log1p_32(x: Any) -> Any:
    u = x + f32(1)
    lost = (x - (u - f32(1))) if abs(x) < f32(1) else (f32(1) - (u - x))  # what rounding took
    y = _log32(u)
    near = x if x == f32(0) else y + lost / u
    return near if abs(u) < f32(np.inf) and u != f32(0) else y


@exact
def _log1p_64(x: Any) -> Any:
    u = x + 1.0
    lost = (x - (u - 1.0)) if abs(x) < 1.0 else (1.0 - (u - x))
    y = _log64(u)
    near = x if x == 0.0 else y + lost / u
    return near if abs(u) < np.inf and u != 0.0 else y


# --- error functions ------------------------------------------------------------------------------

_TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
_TWO_OVER_ROOT_PI32 = f32(_TWO_OVER_ROOT_PI)
# erf(x) / x less its value at 0 (the number above), in x**2, for |x| <= 1
_erf_near32 = _polynomial(
    _TWO_OVER_ROOT_PI - float(_TWO_OVER_ROOT_PI32), -0.37612637877464294, 0.11283790320158005,
    -0.026865951716899872, 0.005222635343670845, -0.0008509009494446218, 0.0001145585483754985,
    -1.0230448424408678e-05)
_erf_near64 = _polynomial(
    1.533545961316588e-17, -0.37612638903183754, 0.11283791670955125, -0.026866170645131086,
    0.005223977625438538, -0.0008548327023031369, 0.00012055332953079551, -1.4925649096020203e-05,
    1.6462077118594489e-06, -1.6365090714850705e-07, 1.4796672423457942e-08,
    -1.2190710916080113e-09, 8.802030334479166e-11, -4.376870486473614e-12)
# erfc(a) exp(a**2) (a + k) in (a - k) / (a + k), for a >= 1/2 up to where erfc is 0
_erfc_far32 = _polynomial(
    1.0740069150924683, -0.8833944797515869, 0.5902281999588013, -0.31046685576438904,
    0.1195315346121788, -0.026831861585378647, -0.0012403125874698162, 0.0030503335874527693,
    -0.00045988100464455783, -0.0002847461146302521)
_erfc_far64 = _polynomial(
    1.0919229095627891, -0.9587415766529096, 0.7363189252217519, -0.4904702912076779,
    0.2790620490337648, -0.13195540117854715, 0.04911877861581204, -0.012535880040976917,
    0.0009863380722589727, 0.0007948231002855174, -0.0003486467985483364, 1.0593975864600294e-05,
    3.747146271138136e-05, -8.903847016429391e-06, -3.288750682492152e-06, 1.6556772788895568e-06,
    2.78579044878123e-07, -2.6279911616646354e-07, -2.541375981376192e-08, 3.886718610686958e-08,
    2.1937381928516774e-09, -4.127714672438565e-09)
_K32, _K64 = f32(3), 3.75


@exact
def _erf_series32(x: Any) -> Any:
    square = x * x
    return x * _TWO_OVER_ROOT_PI32 + x * _erf_near32(square)


@exact
def _erf_series64(x: Any) -> Any:
    square = x * x
    return x * _TWO_OVER_ROOT_PI + x * _erf_near64(square)


@exact
def _erfc_positive32(a: Any) -> Any:
    """erfc for a >= 1/2."""
    a = f32(11) if a > f32(11) else a
    # exp magnifies the error of the square, so the square is taken exactly, in two parts.
    high = floating(i32(bits(a) & i32(-4096)))
    low = a - high
    square = a * a
    error = ((high * high - square) + (high + high) * low) + low * low
    t = (a - _K32) / (a + _K32)
    return _exp_sum32(-square, -error) * (_erfc_far32(t) / (a + _K32))


@exact
def _erfc_positive64(a: Any) -> Any:
    a = 28.0 if a > 28.0 else a
    high = floating(i64(bits(a) & i64(-2 ** 27)))
    low = a - high
    square = a * a
    error = ((high * high - square) + (high + high) * low) + low * low
    t = (a - _K64) / (a + _K64)
    return _exp_sum64(-square, -error) * (_erfc_far64(t) / (a + _K64))


@exact
def _erf32(x: Any) -> Any:
    a = abs(x)
    far = f32(1) - _erfc_positive32(a)
    return _copysign32(_erf_series32(a) if a < f32(1) else far, x)


@exact
def _erf64(x: Any) -> Any:
    a = abs(x)
    far = 1.0 - _erfc_positive64(a)
    return _copysign64(_erf_series64(a) if a < 1.0 else far, x)


@exact
def _erfc64(x: Any) -> Any:
    a = abs(x)
    tail = _erfc_positive64(a)
    far = 2.0 - tail if x < 0.0 else tail
    return 1.0 - _erf_series64(x) if a < 0.5 else far


@exact
def _erfc32(x: Any) -> Any:
    return f32(_erfc64(f64(x)))


# --- the normal distribution ----------------------------------------------------------------------

_ROOT_HALF_NUMBER, _INV_ROOT_TWO_PI = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
(_above_over32, _above_under32), (_slope_over32, _slope_under32) = [
    [_polynomial(*coefficients) for coefficients in quotient] for quotient in (ABOVE, SLOPE)]
# The squares after which these, times x, are one half.
_ABOVE_END32, _SLOPE_END32 = f32(5.5 ** 2), f32(6.0 ** 2)


@exact
def _gelu32(x: Any) -> Any:
    square = x * x
    above = x * (_above_over32(square) / _above_under32(square))
    above = _copysign32(f32(0.5), x) if square > _ABOVE_END32 else above
    return x * (f32(0.5) + above)


@exact
def _gelu_slope32(x: Any) -> Any:
    square = x * x
    above = x * (_slope_over32(square) / _slope_under32(square))
    above = _copysign32(f32(0.5), x) if square > _SLOPE_END32 else above
    return f32(0.5) + (x - x) + above  # infinity times a density of 0 has no value


@exact
def _gelu64(x: Any) -> Any:
    return x * (0.5 * _erfc64(x * -_ROOT_HALF_NUMBER))


@exact
def _gelu_slope64(x: Any) -> Any:
    density = exp64(x * x * -0.5) * _INV_ROOT_TWO_PI
    return 0.5 * _erfc64(x * -_ROOT_HALF_NUMBER) + x * density


# --- for both precisions --------------------------------------------------------------------------

exp = _of_both("exp", exp32, exp64)
# exp of what is hardly ever above 0, in two thirds of the steps: what would be below the smallest
# normal float32 is 0.
exp_down = _of_both("exp_down", _exp_down32, exp64)
exp2 = _of_both("exp2", _exp2_32, exp2_64)
expm1 = _of_both("expm1", _expm1_32, _expm1_64)
sigmoid = _of_both("sigmoid", _sigmoid32, _sigmoid64)
tanh = _of_both("tanh", _tanh32, _tanh64)
log = _of_both("log", _log32, _log64)
log2 = _of_both("log2", _log2_32, _log2_64)
log10 = _of_both("log10", _log10_32, _log10_64)
log1p = _of_both("log1p", _log1p_32, _log1p_64)
erf = _of_both("erf", _erf32, _erf64)
erfc = _of_both("erfc", _erfc32, _erfc64)
gelu = _of_both("gelu", _gelu32, _gelu64)
gelu_slope = _of_both("gelu_slope", _gelu_slope32, _gelu_slope64)


@exact
def _rint32(x: Any) -> Any:
    a = abs(x)
    near = _copysign32((a + f32(2.0 ** 23)) - f32(2.0 ** 23), x)
    return near if a < f32(2.0 ** 23) else x


@exact
def _rint64(x: Any) -> Any:
    a = abs(x)
    near = _copysign64((a + 2.0 ** 52) - 2.0 ** 52, x)
    return near if a < 2.0 ** 52 else x


rint = _of_both("rint", _rint32, _rint64)
rank = _of_both("rank", _rank32, _rank64)
lowest = _of_both("lowest", _lowest32, _lowest64)  # below the rank of any number of that kind


def of_rank(n: Any) -> Any:
    """The number of a rank, an int32 or int64."""
    raise TypeError("of_rank: only for use inside compiled loops")


@overload(of_rank, jit_options={"forceinline": True})  # type: ignore[untyped-decorator]
def _of_rank(n: Any) -> Any:
    def of_single(n: Any) -> Any:
        return _of_rank32(n)

    def of_double(n: Any) -> Any:
        return _of_rank64(n)

    return {types.int32: of_single, types.int64: of_double}.get(n)

# --- float32 only ---------------------------------------------------------------------------------


def _turns() -> tuple[Any, Any]:
    """For each exponent field of float32, the quarter turns in the lowest place of a number of
    that exponent, less whole turns: in two parts, of which the first has 28 bits."""
    # 2 / pi to 300 bits, by pi's series of Machin.
    one = 1 << 400

    def inverse_tangent(n: int) -> int:
        total, term, k = 0, one // n, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term //= n * n
            k += 2
        return total

    quarter = Fraction(2 * one, 4 * (4 * inverse_tangent(5) - inverse_tangent(239)))
    first, second = np.full(256, np.nan), np.full(256, np.nan)
    for field in range(255):
        turns = quarter * Fraction(2) ** (max(field, 1) - 150) % 4
        places = 28 - math.frexp(float(turns))[1]
        whole = round(turns * Fraction(2) ** places)
        first[field] = math.ldexp(whole, -places)
        second[field] = float(turns - whole / Fraction(2) ** places)
    return first, second


_TURNS, _TURNS_LOW = _turns()
# (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r**2 / 2) / r**4, in r**2 for |r| <= 1
_sin_near = _polynomial(
    -0.1666666716337204, 0.008333327248692513, -0.00019838177831843495, 2.706086661419249e-06)
_cos_near = _polynomial(
    0.0416666679084301, -0.0013888883404433727, 2.479900467733387e-05, -2.7143065040036163e-07)


@exact
def _wave(x: Any, ahead: Any) -> Any:
    """The sine of float32 x, `ahead` (int64) quarter turns on, the argument reduced exactly."""
    b = bits(x)
    field = (b >> i32(23)) & i32(255)
    mantissa = (b & i32(0x7fffff)) | (i32(0x800000) if field > 0 else i32(0))
    m = f64(i32(mantissa))
    m = -m if b < i32(0) else m
    turns = m * _TURNS[np.uint64(field)]  # exact: 24 bits times 28
    shifted = turns + _ROUND64
    r = f32(((turns - (shifted - _ROUND64)) + m * _TURNS_LOW[np.uint64(field)]) * (math.pi / 2))
    quadrant = i64(bits(shifted) + ahead)
    square = r * r
    sine = r + r * (square * _sin_near(square))
    cosine = f32(1) + square * (square * _cos_near(square) - f32(0.5))
    y = cosine if quadrant & i64(1) else sine
    return -y if quadrant & i64(2) else y


@exact
def sin(x: Any) -> Any:
    """The sine of a float32, of any size."""
    y = _wave(x, i64(0))
    return x if x == f32(0) else y


@exact
def cos(x: Any) -> Any:
    """The cosine of a float32, of any size."""
    return _wave(x, i64(1))


@exact
def power(x: Any, y: Any) -> Any:
    """x to the power of y, both float32: through float64, so that one rounding is left."""
    a, e = f64(abs(x)), f64(y)
    z = exp2_64(e * _log2_64(a))
    whole = np.floor(e) == e
    odd = whole and np.floor(e * 0.5) * 2.0 != e
    z = -z if odd and bits(x) < i32(0) else z
    z = np.nan if x < f32(0) and not whole and abs(x) < f32(np.inf) else z
    one = x == f32(1) or y == f32(0) or (x == f32(-1) and abs(y) == f32(np.inf))
    return f32(1) if one else f32(z)
