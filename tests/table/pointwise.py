"""Rows for arithmetic, exponential, trigonometry, special, rounding, choice, bits and compare."""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import ALL, COMPLEX, FLOATS, INTS, REALS, Case, In, distinct

import mlgpu

X = In((3, 5))
NUMBERS = REALS + COMPLEX
FLOATING = FLOATS + COMPLEX


def away(*points, gap=0.1):
    """Random values at a distance from the points where a function has a kink or a pole."""
    def make(rng, shape):
        x = rng.uniform(-2, 2, shape)
        for p in points:
            near = np.abs(x - p) < gap
            x[near] = p + gap * np.where(x[near] < p, -1, 1)
        return x

    return make


def unary(name, reference, low=-2.0, high=2.0, dtypes=FLOATS, make=None, options="", **more):
    """A function of one tensor: contiguous, 0-dim, empty and odd sizes in one row each."""
    call = getattr(mlgpu, name)
    one = In((3, 5), low, high, make=make)
    return [Case(name=name, fn=call, inputs=(one,), reference=reference,
                 torch=lambda torch, x: getattr(torch, name)(x), dtypes=dtypes, **more),
            Case(name=f"{name}-scalar", fn=call, inputs=(In((), low, high, make=make),),
                 reference=reference, torch=lambda torch, x: getattr(torch, name)(x),
                 dtypes=dtypes, **more),
            Case(name=f"{name}-empty", fn=call, inputs=(In((0, 3), low, high),),
                 reference=reference, torch=lambda torch, x: getattr(torch, name)(x),
                 dtypes=dtypes, **more)]


def binary(name, reference, second=X, first=X, dtypes=NUMBERS, **more):
    """A function of two tensors: same shapes, broadcast both ways, a 0-dim and a number."""
    def fn(a, b):
        return getattr(mlgpu, name)(a, b)

    def peer(torch, a, b):
        return getattr(torch, name)(a, b)

    def sized(spec, shape):
        return In(shape, spec.low, spec.high, spec.dtype, spec.make)

    shapes = {"": ((3, 5), (3, 5)), "-row": ((3, 5), (5,)), "-column": ((3, 1), (2, 1, 7)),
              "-outer": ((4, 1), (1, 6)), "-scalar": ((3, 5), ()), "-empty": ((0, 3), (3,))}
    return [Case(name=f"{name}{tag}", fn=fn, inputs=(sized(first, a), sized(second, b)),
                 reference=reference, torch=peer, dtypes=dtypes, **more)
            for tag, (a, b) in shapes.items()]


def row(name, fn, reference, inputs=(X,), dtypes=FLOATS, torch=None, **more):
    """A call that is the same in both libraries unless `torch` says otherwise."""
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), dtypes=dtypes, **more)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def truncated(x, y):
    return np.trunc(x / y) if x.dtype.kind == "f" else (np.sign(x) * np.sign(y)) * (
        np.abs(x) // np.abs(y))


POSITIVE = In((3, 5), 0.2, 3.0)
NONZERO = In((3, 5), make=lambda rng, shape: rng.choice([-3, -2, -1, 1, 2, 3], shape)
             + rng.uniform(-0.2, 0.2, shape))
DISTINCT = In((3, 5), make=distinct)
MIXED = In((3, 5), make=lambda rng, shape: rng.choice(
    [0.3, -1.2, np.inf, -np.inf, np.nan, 0.0, -0.0], shape))

CASES = [
    *binary("add", np.add),
    *binary("sub", np.subtract),
    *binary("mul", np.multiply),
    *binary("div", np.divide, POSITIVE, dtypes=FLOATING),
    *binary("true_divide", np.divide, POSITIVE, dtypes=FLOATING),
    *binary("floor_divide", np.floor_divide, NONZERO, dtypes=("float64", "float32", *INTS[:4]),
            gradient=False),
    *binary("remainder", np.remainder, NONZERO, In((3, 5), 0.2, 0.7),
            dtypes=("float64", "float32", *INTS[:4])),
    *binary("fmod", np.fmod, NONZERO, In((3, 5), 0.2, 0.7),
            dtypes=("float64", "float32", *INTS[:4])),
    *binary("pow", np.power, In((3, 5), -1.5, 2.5), POSITIVE, dtypes=FLOATS),
    *binary("atan2", np.arctan2, POSITIVE, dtypes=FLOATS),
    *binary("hypot", np.hypot, POSITIVE, dtypes=FLOATS),
    *binary("logaddexp", np.logaddexp, dtypes=FLOATS),
    *binary("xlogy", special.xlogy, POSITIVE, NONZERO, dtypes=FLOATS),
    *binary("copysign", np.copysign, NONZERO, NONZERO, dtypes=FLOATS, gradient=(0,)),
    *binary("maximum", np.maximum, DISTINCT, dtypes=REALS),
    *binary("minimum", np.minimum, DISTINCT, dtypes=REALS),
    *binary("fmax", np.fmax, DISTINCT, dtypes=FLOATS),
    *binary("fmin", np.fmin, DISTINCT, dtypes=FLOATS),
    *[c for name, f in (("bitwise_and", np.bitwise_and), ("bitwise_or", np.bitwise_or),
                        ("bitwise_xor", np.bitwise_xor))
      for c in binary(name, f, dtypes=(*INTS, "bool"), gradient=False)],
    *[c for name, f in (("bitwise_left_shift", np.left_shift),
                        ("bitwise_right_shift", np.right_shift))
      for c in binary(name, f, In((3, 5), 0, 4), dtypes=INTS, gradient=False)],
    *[c for name, f in (("eq", np.equal), ("ne", np.not_equal))
      for c in binary(name, f, dtypes=ALL, gradient=False)],
    *[c for name, f in (("lt", np.less), ("le", np.less_equal), ("gt", np.greater),
                        ("ge", np.greater_equal))
      for c in binary(name, f, dtypes=(*REALS, "bool"), gradient=False)],
    *[c for name, f in (("logical_and", np.logical_and), ("logical_or", np.logical_or),
                        ("logical_xor", np.logical_xor))
      for c in binary(name, f, dtypes=ALL, gradient=False)],
    *unary("logical_not", np.logical_not, dtypes=ALL, gradient=False),
    *unary("bitwise_not", np.invert, dtypes=(*INTS, "bool"), gradient=False),
    *unary("neg", np.negative, dtypes=NUMBERS),
    *unary("abs", np.abs, dtypes=FLOATS + INTS[:4], make=away(0)),
    *unary("reciprocal", np.reciprocal, 0.5, 2, dtypes=FLOATING),
    *unary("square", np.square, dtypes=NUMBERS),
    *unary("sqrt", np.sqrt, 0.2, 3, dtypes=FLOATS),
    *unary("rsqrt", lambda x: 1 / np.sqrt(x), 0.2, 3, dtypes=FLOATS),
    *unary("exp", np.exp, dtypes=FLOATING),
    *unary("exp2", np.exp2, dtypes=FLOATS),
    *unary("expm1", np.expm1, dtypes=FLOATS),
    *unary("log", np.log, 0.2, 3, dtypes=FLOATS),
    *unary("log2", np.log2, 0.2, 3, dtypes=FLOATS),
    *unary("log10", np.log10, 0.2, 3, dtypes=FLOATS),
    *unary("log1p", np.log1p, -0.7, 3, dtypes=FLOATS),
    *unary("sin", np.sin, dtypes=FLOATING),
    *unary("cos", np.cos, dtypes=FLOATING),
    *unary("tan", np.tan, -1.2, 1.2, dtypes=FLOATS),
    *unary("asin", np.arcsin, -0.9, 0.9),
    *unary("acos", np.arccos, -0.9, 0.9),
    *unary("atan", np.arctan),
    *unary("sinh", np.sinh, dtypes=FLOATING),
    *unary("cosh", np.cosh, dtypes=FLOATING),
    *unary("tanh", np.tanh, dtypes=FLOATING),
    *unary("asinh", np.arcsinh),
    *unary("acosh", np.arccosh, 1.3, 3),
    *unary("atanh", np.arctanh, -0.9, 0.9),
    *unary("sinc", np.sinc, make=away(0)),
    *unary("deg2rad", np.deg2rad),
    *unary("rad2deg", np.rad2deg),
    *unary("erf", special.erf),
    *unary("erfc", special.erfc),
    *unary("erfinv", special.erfinv, -0.9, 0.9),
    *unary("lgamma", special.gammaln, 0.3, 4),
    *unary("digamma", special.digamma, 0.3, 4),
    *unary("sigmoid", sigmoid),
    *unary("ceil", np.ceil, make=away(-2, -1, 0, 1, 2)),
    *unary("floor", np.floor, make=away(-2, -1, 0, 1, 2)),
    *unary("trunc", np.trunc, make=away(-2, -1, 0, 1, 2)),
    *unary("frac", lambda x: x - np.trunc(x), make=away(-2, -1, 0, 1, 2)),
    *unary("round", np.round, make=away(-1.5, -0.5, 0.5, 1.5)),
    *unary("sign", np.sign, dtypes=REALS, make=away(0)),
    *unary("sgn", np.sign, dtypes=REALS, make=away(0)),
    *unary("isnan", np.isnan, dtypes=FLOATS, gradient=False),
    *unary("signbit", np.signbit, dtypes=FLOATS, gradient=False),
    row("sgn-complex", lambda x: x.sgn(), lambda x: x / np.abs(x), dtypes=COMPLEX),
    row("abs-complex", lambda x: x.abs(), np.abs, dtypes=COMPLEX),
    row("angle-complex", lambda x: x.angle(), np.angle, dtypes=COMPLEX),
    row("angle-real", lambda x: x.angle(), np.angle, (In((4,), make=away(0)),)),
    row("sqrt-complex", lambda x: x.sqrt(), np.sqrt, dtypes=COMPLEX),
    row("log-complex", lambda x: x.log(), np.log, dtypes=COMPLEX),
    row("sigmoid-complex", lambda x: x.sigmoid(), sigmoid, dtypes=COMPLEX),
    row("add-alpha", lambda x, y: x.add(y, alpha=3), lambda x, y: x + 3 * y, (X, X), NUMBERS),
    row("sub-alpha", lambda x, y: x.sub(y, alpha=2), lambda x, y: x - 2 * y, (X, X), NUMBERS),
    row("rsub", mlgpu.rsub, lambda x, y: y - x, (X, X), NUMBERS,
        torch=lambda torch, x, y: torch.rsub(x, y)),
    row("div-trunc", lambda x, y: x.div(y, rounding_mode="trunc"), truncated, (X, NONZERO),
        ("float64", "float32", "int64", "int32")),
    row("div-floor", lambda x, y: x.div(y, rounding_mode="floor"), np.floor_divide, (X, NONZERO),
        ("float64", "float32", "int64", "int32"), gradient=False),
    row("div-integers", lambda x, y: x / y, lambda x, y: x / y, (X, NONZERO), INTS[:4]),
    row("pow-2", lambda x: x**2, lambda x: x**2, dtypes=NUMBERS),
    row("pow-3", lambda x: x**3, lambda x: x**3, dtypes=NUMBERS),
    row("pow-half", lambda x: x**0.5, lambda x: x**0.5, (POSITIVE,)),
    row("pow-minus-one", lambda x: x**-1, lambda x: x**-1.0, (POSITIVE,)),
    row("pow-2.5", lambda x: x**2.5, lambda x: x**2.5, (POSITIVE,)),
    row("pow-0", lambda x: x**0, lambda x: x**0, dtypes=NUMBERS),
    row("pow-of-number", lambda x: 3**x, lambda x: 3.0**x),
    row("pow-zero-base", lambda x: x.pow(2.0), lambda x: x**2,
        (In((3,), make=lambda rng, shape: np.zeros(shape)),)),
    row("float_power", mlgpu.float_power, np.power, (POSITIVE, X),
        torch=lambda torch, x, y: torch.float_power(x, y)),
    row("square-bool-number", lambda x: x * 2, lambda x: x * 2, dtypes=ALL),
    row("number-minus", lambda x: 1 - x, lambda x: 1 - x, dtypes=NUMBERS),
    row("number-over", lambda x: 1 / x, lambda x: 1 / x, (POSITIVE,)),
    row("add-float-to-int", lambda x: x + 1.5, lambda x: x + 1.5, dtypes=REALS),
    row("mod-number", lambda x: x % 3, lambda x: np.remainder(x, 3), (In((7,), 0.1, 2.9),),
        ("float64", "float32", "int64", "int32")),
    row("addcmul", lambda x, a, b: x.addcmul(a, b, value=2.5), lambda x, a, b: x + 2.5 * a * b,
        (X, In((5,)), In((3, 1))), FLOATING),
    row("addcdiv", lambda x, a, b: x.addcdiv(a, b, value=0.5), lambda x, a, b: x + 0.5 * a / b,
        (X, In((5,)), In((3, 1), 0.5, 2)), FLOATING),
    row("lerp", lambda x, y, w: x.lerp(y, w), lambda x, y, w: x + w * (y - x), (X, X, X)),
    row("lerp-number", lambda x, y: x.lerp(y, 0.75), lambda x, y: x + 0.75 * (y - x), (X, X)),
    row("clamp", lambda x: x.clamp(-0.55, 0.65), lambda x: np.clip(x, -0.55, 0.65), (DISTINCT,)),
    row("clamp-int", lambda x: x.clamp(-1, 1), lambda x: np.clip(x, -1, 1), dtypes=INTS[:4]),
    row("clamp-int-float", lambda x: x.clamp(-0.5, 1.5), lambda x: np.clip(x, -0.5, 1.5),
        dtypes=INTS[:4]),
    row("clamp-tensors", lambda x, lo, hi: x.clamp(lo, hi), np.clip,
        (DISTINCT, In((5,), -0.6, -0.5), In((3, 1), 0.5, 0.6))),
    row("clamp-crossed", lambda x: x.clamp(1, -1), lambda x: np.full_like(x, -1)),
    row("clamp_min", lambda x: x.clamp_min(0.2), lambda x: np.maximum(x, 0.2), (DISTINCT,)),
    row("clamp_max", lambda x: x.clamp_max(0.2), lambda x: np.minimum(x, 0.2), (DISTINCT,)),
    row("clamp-nan", lambda x: x.clamp(-1, 1), lambda x: np.clip(x, -1, 1), (MIXED,),
        gradient=False),
    row("maximum-nan", lambda x, y: mlgpu.maximum(x, y), np.maximum, (MIXED, X), gradient=False,
        torch=lambda torch, x, y: torch.maximum(x, y)),
    row("nan_to_num", lambda x: x.nan_to_num(0.5, 2, -3),
        lambda x: np.nan_to_num(x, nan=0.5, posinf=2, neginf=-3), (MIXED,), gradient=False),
    row("nan_to_num-limits", lambda x: x.nan_to_num(), None, (MIXED,), gradient=False),
    row("isfinite", lambda x: x.isfinite(), np.isfinite, (MIXED,), gradient=False),
    row("isinf", lambda x: x.isinf(), np.isinf, (MIXED,), gradient=False),
    row("isnan-mixed", lambda x: x.isnan(), np.isnan, (MIXED,), gradient=False),
    row("isposinf", lambda x: x.isposinf(), np.isposinf, (MIXED,), gradient=False),
    row("isneginf", lambda x: x.isneginf(), np.isneginf, (MIXED,), gradient=False),
    row("isreal", lambda x: x.isreal(), np.isreal, dtypes=NUMBERS, gradient=False),
    row("logit", lambda x: x.logit(), special.logit, (In((3, 5), 0.1, 0.9),)),
    row("logit-eps", lambda x: x.logit(0.2), lambda x: special.logit(np.clip(x, 0.2, 0.8)),
        (In((3, 5), 0.25, 0.7),)),
    row("round-decimals", lambda x: mlgpu.round(x, decimals=2), lambda x: np.round(x, 2),
        (In((9,), make=lambda rng, shape: rng.integers(-200, 200, shape) / 100 + 0.003),),
        ("float64", "float32"), torch=lambda torch, x: torch.round(x, decimals=2)),
    row("round-tens", lambda x: mlgpu.round(x, decimals=-1), lambda x: np.round(x, -1),
        (In((9,), make=lambda rng, shape: rng.integers(-200, 200, shape) + 0.3),),
        ("float64", "float32"), torch=lambda torch, x: torch.round(x, decimals=-1)),
    *[row(f"{name}-integers", lambda x, name=name: getattr(x, name)(), lambda x: x, dtypes=INTS,
          gradient=False) for name in ("ceil", "floor", "round", "trunc")],
    *[row(name, getattr(mlgpu.special, name), getattr(special, name), (In((3, 5), low, 2.0),),
          torch=lambda torch, x, name=name: getattr(torch.special, name)(x))
      for name, low in (("entr", 0.2), ("ndtr", -2.0))],
    row("entr-outside", mlgpu.special.entr, special.entr,
        (In((3,), make=lambda rng, shape: np.array([-1.0, 0.0, np.nan])),), ("float64",),
        gradient=False, torch=lambda torch, x: torch.special.entr(x)),
    row("xlog1py", mlgpu.special.xlog1py, special.xlog1py, (In((3, 5), 0.5, 2), In((5,), -0.5, 2)),
        torch=lambda torch, x, y: torch.special.xlog1py(x, y)),
    row("polygamma", lambda x: mlgpu.polygamma(2, x), lambda x: special.polygamma(2, x),
        (In((3, 5), 0.5, 4),), torch=lambda torch, x: torch.polygamma(2, x), tolerance=10),
    row("heaviside", lambda x, v: x.heaviside(v),  # of NaN, PyTorch makes 0
        lambda x, v: np.where(np.isnan(x), 0, np.heaviside(x, v)), (MIXED, X), gradient=False,
        dtypes=("float64", "float32")),
    row("nextafter", lambda x, y: x.nextafter(y), None, (X, X), ("float64", "float32"),
        gradient=False),
    row("where", lambda c, x, y: mlgpu.where(c, x, y), np.where,
        (In((3, 5), dtype="bool"), X, In((5,))), ALL,
        torch=lambda torch, c, x, y: torch.where(c, x, y)),
    row("where-number", lambda c, x: mlgpu.where(c, x, 0.5), lambda c, x: np.where(c, x, 0.5),
        (In((3, 5), dtype="bool"), X), torch=lambda torch, c, x: torch.where(c, x, 0.5)),
    row("where-method", lambda c, x, y: x.where(c, y), np.where,
        (In((3, 1), dtype="bool"), X, X), torch=lambda torch, c, x, y: x.where(c, y)),
    row("isclose", lambda x, y: mlgpu.isclose(x, y, rtol=0.5), lambda x, y: np.isclose(x, y, 0.5),
        (X, X), ("float64", "float32", "int64"), gradient=False,
        torch=lambda torch, x, y: torch.isclose(x, y, rtol=0.5)),
    row("isclose-nan", lambda x: mlgpu.isclose(x, x.clone(), equal_nan=True),
        lambda x: np.isclose(x, x, equal_nan=True), (MIXED,), gradient=False,
        torch=lambda torch, x: torch.isclose(x, x.clone(), equal_nan=True)),
    row("positive", lambda x: +x, lambda x: x, dtypes=NUMBERS),
    row("equal", lambda x, y: mlgpu.tensor(mlgpu.equal(x, y)), lambda x, y: np.array(False),
        (In((3,), 1, 2), In((3,), -2, -1)), gradient=False,
        torch=lambda torch, x, y: torch.tensor(torch.equal(x, y))),
]
