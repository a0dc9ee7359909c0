"""The primitives of elementwise maths: one row each.

A row says how the dtype of the result follows from the operands (`rule`), how NumPy and CUDA
compute it, and its derivative.  `partials(y, *xs)` gives the partial derivatives of y = f(*xs),
which the chain rule conjugates for complex numbers; `adjoint(dy, y, *xs)` gives the operands'
gradients directly, for what is not holomorphic or must select.  None means no gradient.
Kinks follow PyTorch: abs and relu have 0 at 0, maximum and minimum share a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.cpu import recurrence, special
from mlgpu.expr.graph import Expr, as_expr, call, const

Partials = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Primitive:
    """One row: see the module's docstring."""

    name: str
    # promote: operands promoted, result the same.  float: likewise, integers become floats.
    # bool: operands promoted, result bool.  logical: operands to bool.  real: the real dtype of
    # a complex operand.  select: the first operand bool, the others promoted.  integer: promoted,
    # floats refused.  whole: likewise, and bool.  number: promoted, bool refused.  floating:
    # promoted, only floats taken.  exponent: likewise, result int32.
    # cast: to the dtype in attr.
    rule: str
    numpy: Callable[..., Any]
    cuda: str
    partials: Partials | None = None
    adjoint: Partials | None = None


TABLE: dict[str, Primitive] = {}


def _row(name: str, rule: str, numpy: Callable[..., Any], cuda: str, *,
         d: Partials | None = None, adjoint: Partials | None = None) -> None:
    TABLE[name] = Primitive(name, rule, numpy, cuda, d, adjoint)


def where(condition: Any, x: Any, y: Any) -> Expr:
    return call("where", condition, x, y)


def mul(x: Any, y: Any) -> Expr:
    return call("mul", x, y)


def add(x: Any, y: Any) -> Expr:
    return call("add", x, y)


def sub(x: Any, y: Any) -> Expr:
    return call("sub", x, y)


def div(x: Any, y: Any) -> Expr:
    return call("div", x, y)


def neg(x: Any) -> Expr:
    return call("neg", x)


def _square(x: Any) -> Expr:
    return mul(x, x)


def _through(function: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy function without `out` as a step."""
    def step(*xs: Any, out: Any) -> None:
        out[...] = function(*xs)

    return step


# --- arithmetic -----------------------------------------------------------------------------------


def _checked_division(ufunc: Any) -> Callable[..., Any]:
    def step(x: Any, y: Any, out: Any) -> None:
        special.refuse_zero(y)
        ufunc(x, y, out=out)

    return step


_row("add", "promote", np.add, "{0} + {1}", d=lambda y, a, b: (1, 1))
_row("sub", "number", np.subtract, "{0} - {1}", d=lambda y, a, b: (1, -1))
_row("mul", "promote", np.multiply, "{0} * {1}", d=lambda y, a, b: (b, a))
_row("div", "float", np.divide, "{0} / {1}",
     d=lambda y, a, b: (div(1, b), neg(div(y, b))))
_row("neg", "number", np.negative, "-{0}", d=lambda y, x: (-1,))
_row("floor_divide", "number", _checked_division(np.floor_divide), "ml_floor_div({0}, {1})")
_row("trunc_divide", "number", special.trunc_divide, "ml_trunc_div({0}, {1})")
_row("remainder", "number", _checked_division(np.remainder), "ml_remainder({0}, {1})",
     d=lambda y, a, b: (1, neg(call("floor_divide", a, b))))
_row("fmod", "number", _checked_division(np.fmod), "ml_fmod({0}, {1})",
     d=lambda y, a, b: (1, neg(call("trunc_divide", a, b))))
_row("pow", "number", special.power, "ml_pow({0}, {1})",
     adjoint=lambda dy, y, x, e: (
         mul(dy, call("conj", where(call("eq", e, 0), 0, mul(e, call("pow", x, sub(e, 1)))))),
         mul(dy, call("conj", where(_zero_base(x, e), 0, mul(y, call("log", x)))))))
_row("reciprocal", "float", special.reciprocal, "ml_t(1) / {0}", d=lambda y, x: (neg(_square(y)),))
_row("square", "number", np.square, "{0} * {0}", d=lambda y, x: (mul(2, x),))


def _zero_base(x: Expr, e: Expr) -> Expr:
    """Where x is 0 and the exponent not negative: the power does not depend on the exponent."""
    return call("logical_and", call("eq", x, 0), call("ge", call("real", e), 0))


# --- exponentials, roots, trigonometry ------------------------------------------------------------

_LN2, _LN10, _PI = float(np.log(2.0)), float(np.log(10.0)), float(np.pi)

_row("exp", "float", np.exp, "exp({0})", d=lambda y, x: (y,))
_row("exp2", "float", np.exp2, "exp2({0})", d=lambda y, x: (mul(y, _LN2),))
_row("expm1", "float", np.expm1, "expm1({0})", d=lambda y, x: (add(y, 1),))
_row("log", "float", np.log, "log({0})", d=lambda y, x: (div(1, x),))
_row("log2", "float", np.log2, "log2({0})", d=lambda y, x: (div(1, mul(x, _LN2)),))
_row("log10", "float", np.log10, "log10({0})", d=lambda y, x: (div(1, mul(x, _LN10)),))
_row("log1p", "float", np.log1p, "log1p({0})", d=lambda y, x: (div(1, add(x, 1)),))
_row("sqrt", "float", np.sqrt, "sqrt({0})", d=lambda y, x: (div(1, mul(2, y)),))
_row("rsqrt", "float", special.rsqrt, "ml_t(1) / sqrt({0})",
     d=lambda y, x: (mul(-0.5, mul(y, mul(y, y))),))
_row("sin", "float", np.sin, "sin({0})", d=lambda y, x: (call("cos", x),))
_row("cos", "float", np.cos, "cos({0})", d=lambda y, x: (neg(call("sin", x)),))
_row("tan", "float", np.tan, "tan({0})", d=lambda y, x: (add(1, _square(y)),))
_row("asin", "float", np.arcsin, "asin({0})",
     d=lambda y, x: (call("rsqrt", sub(1, _square(x))),))
_row("acos", "float", np.arccos, "acos({0})",
     d=lambda y, x: (neg(call("rsqrt", sub(1, _square(x)))),))
_row("atan", "float", np.arctan, "atan({0})", d=lambda y, x: (div(1, add(1, _square(x))),))
_row("sinh", "float", np.sinh, "sinh({0})", d=lambda y, x: (call("cosh", x),))
_row("cosh", "float", np.cosh, "cosh({0})", d=lambda y, x: (call("sinh", x),))
_row("tanh", "float", np.tanh, "tanh({0})", d=lambda y, x: (sub(1, _square(y)),))
_row("asinh", "float", np.arcsinh, "asinh({0})",
     d=lambda y, x: (call("rsqrt", add(_square(x), 1)),))
_row("acosh", "float", np.arccosh, "acosh({0})",
     d=lambda y, x: (mul(call("rsqrt", sub(x, 1)), call("rsqrt", add(x, 1))),))
_row("atanh", "float", np.arctanh, "atanh({0})", d=lambda y, x: (div(1, sub(1, _square(x))),))
_row("atan2", "float", np.arctan2, "atan2({0}, {1})",
     d=lambda y, a, b: (div(b, add(_square(a), _square(b))),
                        neg(div(a, add(_square(a), _square(b))))))
_row("hypot", "floating", np.hypot, "hypot({0}, {1})", d=lambda y, a, b: (div(a, y), div(b, y)))
_row("logaddexp", "floating", np.logaddexp, "ml_logaddexp({0}, {1})",
     d=lambda y, a, b: (call("sigmoid", sub(a, b)), call("sigmoid", sub(b, a))))
_row("sinc", "float", special.sinc, "ml_sinc({0})",
     d=lambda y, x: (where(call("eq", x, 0), 0, div(sub(
         call("cos", mul(x, _PI)), y), x)),))
_row("logsigmoid", "float", special.logsigmoid, "ml_logsigmoid({0})",
     d=lambda y, x: (call("sigmoid", neg(x)),))
_row("sigmoid", "float", special.sigmoid, "ml_sigmoid({0})",
     d=lambda y, x: (mul(y, sub(1, y)),))

# --- special functions ----------------------------------------------------------------------------

_TWO_OVER_ROOT_PI = 2.0 / float(np.sqrt(np.pi))

_row("erf", "float", special.erf, "erf({0})",
     d=lambda y, x: (mul(_TWO_OVER_ROOT_PI, call("exp", neg(_square(x)))),))
_row("erfc", "float", special.erfc, "erfc({0})",
     d=lambda y, x: (mul(-_TWO_OVER_ROOT_PI, call("exp", neg(_square(x)))),))
_row("erfinv", "float", special.erfinv, "erfinv({0})",
     d=lambda y, x: (mul(1.0 / _TWO_OVER_ROOT_PI, call("exp", _square(y))),))
_ROOT_HALF, _INV_ROOT_TWO_PI = float(np.sqrt(0.5)), 1.0 / float(np.sqrt(2 * np.pi))
_BELOW = f"ml_t(0.5) * (ml_t(1) + erf({{0}} * ml_t({_ROOT_HALF!r})))"


def _gelu_second(y: Expr, x: Expr) -> tuple[Expr]:
    density = mul(_INV_ROOT_TWO_PI, call("exp", mul(-0.5, _square(x))))
    return (mul(density, sub(2, _square(x))),)


_row("gelu", "float", special.gelu, f"{{0}} * ({_BELOW})", d=lambda y, x: (call("gelu_slope", x),))
_row("gelu_slope", "float", special.gelu_slope,
     f"{_BELOW} + {{0}} * ml_t({_INV_ROOT_TWO_PI!r}) * exp(ml_t(-0.5) * {{0}} * {{0}})",
     d=_gelu_second)
_row("lgamma", "float", special.lgamma, "lgamma({0})", d=lambda y, x: (call("digamma", x),))
_row("digamma", "float", special.digamma, "ml_digamma({0})",
     d=lambda y, x: (call("polygamma", x, attr=1),))
_row("polygamma", "float", special.polygamma, "ml_polygamma<{attr}>({0})",
     d=lambda y, x: (call("polygamma", x, attr=y.attr + 1),))
_row("hurwitz", "float", _through(special.hurwitz), "ml_hurwitz({0}, {1})")

# --- rounding and sign: no gradient but for abs ---------------------------------------------------


def _zero(*_: Any) -> tuple[None, ...]:
    return (None,) * (len(_) - 2)


def _sgn_gradient(dy: Expr, y: Expr, z: Expr) -> Expr:
    """The part of dy across z's direction, over |z|: 0 for real numbers."""
    along = mul(y, call("real", mul(dy, call("conj", y))))
    return where(call("eq", z, 0), 0, div(sub(dy, along), call("abs", z)))


for _name, _numpy in (("ceil", np.ceil), ("floor", np.floor), ("round", np.rint),
                      ("trunc", np.trunc)):
    _row(_name, "promote", special.rounding(_numpy), f"ml_{_name}({{0}})", adjoint=_zero)
_row("sign", "promote", special.sign, "ml_sign({0})", adjoint=_zero)
_row("sgn", "promote", special.sign, "ml_sign({0})",
     adjoint=lambda dy, y, z: (_sgn_gradient(dy, y, z),))
# A real result may stand inside a complex expression: only the real part of dy reaches it.
_row("abs", "real", np.absolute, "ml_abs({0})",
     adjoint=lambda dy, y, x: (mul(call("real", dy), call("sgn", x)),))
_row("signbit", "bool", np.signbit, "ml_signbit({0})")
_row("copysign", "float", np.copysign, "copysign({0}, {1})",
     adjoint=lambda dy, y, a, b: (
         where(call("eq", a, 0), 0, mul(dy, div(y, a))), None))
_row("nextafter", "floating", np.nextafter, "nextafter({0}, {1})",
     adjoint=lambda dy, y, a, b: (where(call("eq", a, b), 0, dy), None))


# The fraction in [0.5, 1) and the power of two of frexp.
_row("mantissa", "floating", special.mantissa, "[&] {{ int e; return frexp({0}, &e); }}()",
     adjoint=lambda dy, y, x: (div(dy, call("exp2", call("exponent", x))),))
_row("exponent", "exponent", special.exponent,
     "[&] {{ int e; frexp({0}, &e); return {0} - {0} == 0 ? e : 0; }}()", adjoint=_zero)

# --- choice ---------------------------------------------------------------------------------------


def _tie(dy: Expr, a: Expr, b: Expr, worse: str) -> Expr:
    return where(call(worse, a, b), 0, where(call("eq", a, b), mul(dy, 0.5), dy))


_row("maximum", "promote", np.maximum, "ml_max({0}, {1})",
     adjoint=lambda dy, y, a, b: (_tie(dy, a, b, "lt"), _tie(dy, b, a, "lt")))
_row("minimum", "promote", np.minimum, "ml_min({0}, {1})",
     adjoint=lambda dy, y, a, b: (_tie(dy, a, b, "gt"), _tie(dy, b, a, "gt")))
_row("fmax", "promote", np.fmax, "ml_fmax({0}, {1})",
     adjoint=lambda dy, y, a, b: (
         where(call("logical_or", call("ge", a, b), call("isnan", b)), dy, 0),
         where(call("logical_or", call("ge", a, b), call("isnan", b)), 0, dy)))
_row("fmin", "promote", np.fmin, "ml_fmin({0}, {1})",
     adjoint=lambda dy, y, a, b: (
         where(call("logical_or", call("le", a, b), call("isnan", b)), dy, 0),
         where(call("logical_or", call("le", a, b), call("isnan", b)), 0, dy)))
# The clamps pass the gradient at their bound, which maximum and minimum would share.
_row("clamp_min", "promote", np.maximum, "ml_max({0}, {1})",
     adjoint=lambda dy, y, x, low: (where(call("ge", x, low), dy, 0),
                                    where(call("lt", x, low), dy, 0)))
_row("clamp_max", "promote", np.minimum, "ml_min({0}, {1})",
     adjoint=lambda dy, y, x, high: (where(call("le", x, high), dy, 0),
                                     where(call("gt", x, high), dy, 0)))
# As the clamps, but the gradient stops at the bounds, which are numbers.
_row("hardtanh", "promote", special.hardtanh, "ml_min(ml_max({0}, {1}), {2})",
     adjoint=lambda dy, y, x, low, high: (
         where(call("logical_and", call("gt", x, low), call("lt", x, high)), dy, 0), None, None))
_row("relu", "number", special.relu, "ml_relu({0})",
     adjoint=lambda dy, y, x: (where(call("gt", y, 0), dy, 0),))
_row("where", "select", special.where, "{0} ? {1} : {2}",
     adjoint=lambda dy, y, c, a, b: (None, where(c, dy, 0), where(c, 0, dy)))
# The first operand, with the gradient of the second: what rounds passes its gradient straight.
_row("straight", "promote", _through(lambda value, source: value), "{0}",
     adjoint=lambda dy, y, value, source: (None, dy))

# --- comparison and logic: no gradient ------------------------------------------------------------

for _name, _compare, _sign in (("eq", np.equal, "=="), ("ne", np.not_equal, "!="),
                               ("lt", np.less, "<"), ("le", np.less_equal, "<="),
                               ("gt", np.greater, ">"), ("ge", np.greater_equal, ">=")):
    _row(_name, "bool", _compare, f"{{0}} {_sign} {{1}}")
_row("isnan", "bool", special.isnan, "ml_isnan({0})")
_row("isinf", "bool", special.isinf, "ml_isinf({0})")
_row("logical_and", "logical", np.logical_and, "{0} && {1}")
_row("logical_or", "logical", np.logical_or, "{0} || {1}")
_row("logical_xor", "logical", np.logical_xor, "{0} != {1}")
_row("logical_not", "logical", np.logical_not, "!{0}")
_row("bitwise_and", "integer", np.bitwise_and, "{0} & {1}")
_row("bitwise_or", "integer", np.bitwise_or, "{0} | {1}")
_row("bitwise_xor", "integer", np.bitwise_xor, "{0} ^ {1}")
_row("bitwise_not", "integer", np.bitwise_not, "ml_not({0})")
_row("left_shift", "integer", special.left_shift, "ml_shl({0}, {1})")
_row("right_shift", "integer", special.right_shift, "ml_shr({0}, {1})")

# Euclid's algorithm; both are never negative, but for what does not fit.
_EUCLID = """[&] {{ auto a = ml_abs({0}), b = ml_abs({1});
    while (b != 0) {{ const auto rest = a % b; a = b; b = rest; }} """
_row("gcd", "whole", np.gcd, _EUCLID + "return a; }}()")
_row("lcm", "whole", np.lcm, _EUCLID + "return a == 0 ? a : ml_abs({0} / a * {1}); }}()")

# --- recurrences ----------------------------------------------------------------------------------

# p[d] and q[d] are the d-th derivatives of the polynomials of degrees k and k - 1.  What has
# overflowed keeps its sign: no infinity is taken from another.
_row("recurrence", "float", recurrence.step, """[&] {{
    constexpr int size = {attr.order} + 1;
    const ml_t x = {0}, n = trunc({1});
    ml_t p[size] = {{ml_t(1)}}, q[size] = {{}};
    if (!(n >= ml_t(0))) return ml_t(0);
    if (!(n < ml_inf(n))) return ml_nan(n);
    for (ml_t k = 0; k < n; k += ml_t(1)) {{
      const ml_t a = k > 0 ? ml_t({attr.family.a}) : ml_t({attr.family.first[0]});
      const ml_t b = k > 0 ? ml_t({attr.family.b}) : ml_t({attr.family.first[1]});
      const ml_t c = k > 0 ? ml_t({attr.family.c}) : ml_t(0);
      for (int d = size - 1; d >= 0; --d) {{
        ml_t next = (a * x + b) * p[d];
        if (d > 0) next += ml_t(d) * a * p[d > 0 ? d - 1 : 0];
        if (!ml_isinf(p[d])) next -= c * q[d];
        q[d] = p[d];
        p[d] = next;
      }}
    }}
    return p[size - 1];
  }}()""")

# --- complex and casts ----------------------------------------------------------------------------

_row("conj", "promote", np.conjugate, "ml_conj({0})", adjoint=lambda dy, y, z: (call("conj", dy),))
_row("real", "real", special.real, "ml_real({0})", adjoint=lambda dy, y, z: (call("real", dy),))
_row("imag", "real", special.imag, "ml_imag({0})",
     adjoint=lambda dy, y, z: (mul(call("real", dy), const(1j)),))
_row("angle", "real", special.angle, "ml_angle({0})",
     adjoint=lambda dy, y, z: (where(call("eq", z, 0), 0, mul(call("real", dy), div(
         mul(const(1j), z), _square(call("abs", z))))),))
_row("cast", "cast", np.positive, "{0}", adjoint=lambda dy, y, x: (dy,))

# --- composed of other primitives -----------------------------------------------------------------


@dataclass(frozen=True)
class Composed:
    """A function in other primitives, with a derivative of fewer steps than the chain rule's.

    `wide`: computed in float64 and rounded once; of real numbers only.
    """

    name: str
    body: Callable[..., Any]
    partials: Partials | None
    adjoint: Partials | None = None
    wide: bool = False

    def written(self, *args: Expr) -> Expr:
        """The body, with its arguments widened and its result narrowed where it is wide."""
        if not self.wide:
            return as_expr(self.body(*args))
        return call("narrow", self.body(*[call("widen", a) for a in args]), *args)


def _exp_of_less(x: Expr) -> tuple[Expr, Expr]:
    """exp(-2 sqrt(2 / pi) (x + 0.044715 x**3)), of GELU by tanh, and x**2."""
    square = _square(x)
    return call("exp", mul(sub(mul(square, -_CUBIC), _LINEAR), x)), square


_LINEAR = 2 * float(np.sqrt(2 / np.pi))
_CUBIC = 0.044715 * _LINEAR


def _gelu_tanh(x: Expr) -> Expr:
    # x (1 + tanh(u)) / 2 is x / (1 + exp(-2 u)).
    return div(x, add(_exp_of_less(x)[0], 1))


def _gelu_tanh_slope(y: Expr, x: Expr) -> tuple[Expr]:
    # Beyond 10 the slope is 0 or 1; within, exp is finite.
    held = call("hardtanh", x, -10, 10)
    e, square = _exp_of_less(held)
    divisor = add(e, 1)
    inner = mul(add(mul(square, 3 * _CUBIC), _LINEAR), held)
    # With s = 1 / divisor: e / divisor is 1 - s, but keeps its digits where s is nearly 1.
    return (div(add(mul(div(e, divisor), inner), 1), divisor),)


def _silu_divisor(x: Expr) -> Expr:
    return add(call("exp", neg(x)), 1)


def _silu(x: Expr) -> Expr:
    return div(x, _silu_divisor(x))


def _silu_slope(y: Expr, x: Expr) -> tuple[Expr]:
    # s (1 + x (1 - s)) with s x as silu itself: where that is wanted too, for the gradient of a
    # factor beside it, the two share all but three steps.
    return (div(add(sub(x, _silu(x)), 1), _silu_divisor(x)),)


# mlgpu/expr/special.py adds to it.
COMPOSED = {c.name: c for c in (Composed("gelu_tanh", _gelu_tanh, _gelu_tanh_slope),
                                Composed("silu", _silu, _silu_slope))}

# What complex numbers, having no order, are refused by.
REAL_ONLY = frozenset(
    """lt le gt ge maximum minimum fmax fmin clamp_min clamp_max hardtanh relu floor ceil round
    trunc sign signbit copysign nextafter floor_divide trunc_divide remainder fmod atan2 hypot
    logaddexp gelu gelu_slope erf erfc erfinv lgamma digamma polygamma
    hurwitz recurrence sinc logsigmoid""".split())
