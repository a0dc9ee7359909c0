"""Rows for mlgpu/ops/fill.py and every in-place method: on copies, and through their views."""

from __future__ import annotations

import operator

import numpy as np
from scipy import special
from table.case import ALL, COMPLEX, FLOATS, INTS, REALS, Case, In, both

import mlgpu

X = In((3, 5))
FIXED = {"gradient": False, "second": False}
NUMBERS = REALS + COMPLEX


def nonzero(rng, shape):
    return rng.uniform(0.4, 2, shape) * rng.choice([-1.0, 1.0], shape)


def between(rng, shape):
    """Values away from integers and halves, where rounding and clamping have kinks."""
    return rng.integers(-2, 2, shape) + rng.uniform(0.1, 0.4, shape)


def changed(change):
    """The call that applies `change(copy, *others)` in place and returns the copy."""
    def call(lib, x, *others):
        y = x.clone()
        change(y, *others)
        return y

    return call


def row(name, change, reference, inputs=(X,), dtypes=NUMBERS, **options):
    """`change` on a copy of the first input, which it overwrites."""
    return both(name, changed(change), reference, inputs, dtypes=dtypes, **options)


def fills():
    for shape in ((3, 5), (), (0, 3)):
        spec, label = (In(shape),), f"-{shape}".replace(" ", "")
        yield row(f"fill_{label}", lambda y: y.fill_(2), lambda x: np.full_like(x, 2), spec, ALL)
        yield row(f"zero_{label}", lambda y: y.zero_(), np.zeros_like, spec, ALL)
    yield row("fill_-tensor", lambda y, v: y.fill_(v), lambda x, v: np.full_like(x, v),
              (X, In(())), ALL)
    yield row("fill_-float-in-int", lambda y: y.fill_(2.7), lambda x: np.full_like(x, 2),
              dtypes=INTS, **FIXED)
    for shape in ((3, 5), (5, 3), (9, 2), (3, 3, 3)):
        for wrap in (False, True):
            yield row(f"fill_diagonal_-{shape}-{wrap}".replace(" ", ""),
                      lambda y, w=wrap: y.fill_diagonal_(3, wrap=w),
                      lambda x, w=wrap: _diagonal(x, w), (In(shape),), ALL[:10])
    mask, index = In((3, 5), dtype="bool"), In((2,), dtype="int64", make=_places)
    yield row("masked_fill_", lambda y, m: y.masked_fill_(m, 2),
              lambda x, m: np.where(m, np.asarray(2, x.dtype), x), (X, mask), ALL)
    yield row("masked_fill_-broadcast", lambda y, m, v: y.masked_fill_(m, v),
              lambda x, m, v: np.where(m, v, x), (X, In((5,), dtype="bool"), In(())), ALL)
    yield row("index_fill_", lambda y, i: y.index_fill_(1, i, 3), _index_filled, (X, index), ALL)
    for name, reference in (("tril_", np.tril), ("triu_", np.triu)):
        for k in (0, 1, -2):
            yield row(f"{name}-{k}", lambda y, n=name, k=k: getattr(y, n)(k),
                      lambda x, f=reference, k=k: f(x, k), (In((2, 3, 5)),), ALL)
    yield row("copy_", lambda y, z: y.copy_(z), lambda x, z: z, (X, X), ALL)
    yield row("copy_-broadcast", lambda y, z: y.copy_(z),
              lambda x, z: np.broadcast_to(z, x.shape), (X, In((3, 1))), ALL)


def _places(rng, shape):
    return np.array([3, 0])


def _diagonal(x, wrap):
    x = x.copy()
    np.fill_diagonal(x, 3, wrap)
    return x


def _index_filled(x, i):
    x = x.copy()
    x[:, i] = 3
    return x


UNARY = {
    "abs_": (np.abs, nonzero), "neg_": (np.negative, None), "square_": (np.square, None),
    "exp_": (np.exp, None), "exp2_": (np.exp2, None), "expm1_": (np.expm1, None),
    "log_": (np.log, "+"), "log2_": (np.log2, "+"), "log10_": (np.log10, "+"),
    "log1p_": (np.log1p, "+"), "sqrt_": (np.sqrt, "+"), "rsqrt_": (lambda x: 1 / np.sqrt(x), "+"),
    "reciprocal_": (np.reciprocal, "+"), "sin_": (np.sin, None), "cos_": (np.cos, None),
    "tan_": (np.tan, "1"), "asin_": (np.arcsin, "1"), "acos_": (np.arccos, "1"),
    "atan_": (np.arctan, None), "sinh_": (np.sinh, None), "cosh_": (np.cosh, None),
    "tanh_": (np.tanh, None), "asinh_": (np.arcsinh, None),
    "acosh_": (np.arccosh, "2"), "atanh_": (np.arctanh, "1"),
    "erf_": (special.erf, None), "erfc_": (special.erfc, None), "erfinv_": (special.erfinv, "1"),
    "lgamma_": (special.gammaln, "+"), "digamma_": (special.digamma, "+"),
    "sigmoid_": (special.expit, None), "logit_": (special.logit, "p"),
    "relu_": (lambda x: np.maximum(x, 0), nonzero), "ceil_": (np.ceil, between),
    "floor_": (np.floor, between), "round_": (np.round, between), "trunc_": (np.trunc, between),
    "fix_": (np.trunc, between), "frac_": (lambda x: x - np.trunc(x), between),
    "sign_": (np.sign, nonzero), "sgn_": (np.sign, nonzero), "sinc_": (np.sinc, nonzero),
    "deg2rad_": (np.deg2rad, None), "rad2deg_": (np.rad2deg, None),
    "absolute_": (np.abs, nonzero), "negative_": (np.negative, None),
    "arccos_": (np.arccos, "1"), "arccosh_": (np.arccosh, "2"), "arcsin_": (np.arcsin, "1"),
    "arcsinh_": (np.arcsinh, None), "arctan_": (np.arctan, None), "arctanh_": (np.arctanh, "1"),
    "logical_not_": (lambda x: (x == 0) * 1.0, between),
    "nan_to_num_": (np.nan_to_num, None),
}
NOT_THERE = ("asinh_", "acosh_", "atanh_", "arcsinh_", "arccosh_", "arctanh_")
DOMAINS = {"+": (0.3, 3), "1": (-0.9, 0.9), "2": (1.2, 3), "p": (0.1, 0.9)}


def unaries():
    """Each on a whole copy, and on part of one through a transposed view."""
    for name, (reference, domain) in UNARY.items():
        spec = In((3, 5), *DOMAINS[domain]) if isinstance(domain, str) else In((3, 5), make=domain)

        def part(x, f=reference):
            return np.concatenate((x[:, :1], f(x[:, 1:])), 1)

        # PyTorch has no derivative of the inverse hyperbolic ones in place.
        flows = FIXED if name in NOT_THERE or name == "logical_not_" else {}
        yield row(name, lambda y, n=name: getattr(y, n)(), reference, (spec,), FLOATS, **flows)
        yield row(f"{name}-view", lambda y, n=name: getattr(y.t()[1:], n)(), part, (spec,),
                  ("float64", "float32"), **flows)


BINARY = {
    "add_": np.add, "sub_": np.subtract, "subtract_": np.subtract, "mul_": np.multiply,
    "multiply_": np.multiply, "div_": np.divide, "divide_": np.divide, "true_divide_": np.divide,
    "pow_": np.power, "remainder_": np.remainder, "fmod_": np.fmod,
    "floor_divide_": np.floor_divide, "atan2_": np.arctan2, "arctan2_": np.arctan2,
    "hypot_": np.hypot, "copysign_": np.copysign, "xlogy_": special.xlogy,
    "nextafter_": np.nextafter, "heaviside_": np.heaviside,
    "eq_": np.equal, "ne_": np.not_equal, "not_equal_": np.not_equal, "lt_": np.less,
    "less_": np.less, "le_": np.less_equal, "less_equal_": np.less_equal, "gt_": np.greater,
    "greater_": np.greater, "ge_": np.greater_equal, "greater_equal_": np.greater_equal,
    "logical_and_": np.logical_and, "logical_or_": np.logical_or, "logical_xor_": np.logical_xor,
}
FLAT = ("remainder_", "fmod_", "floor_divide_", "nextafter_", "heaviside_", "copysign_")


def binaries():
    first, second = In((3, 5), 0.3, 0.9), In((5,), 1.1, 2.4)
    for name, reference in BINARY.items():
        kind = reference(np.ones(1), np.ones(1)).dtype.kind
        options = FIXED if kind == "b" or name in FLAT else {}
        dtypes = ("float64", "float32") if name in FLAT else FLOATS
        yield row(name, lambda y, z, n=name: getattr(y, n)(z),
                  lambda x, z, f=reference: f(x, z).astype(x.dtype), (first, second), dtypes,
                  **options)
        if name not in ("nextafter_", "heaviside_", "atan2_", "arctan2_", "hypot_", "logical_and_",
                        "logical_or_", "logical_xor_"):
            yield row(f"{name}-number", lambda y, n=name: getattr(y, n)(2),
                      lambda x, f=reference: f(x, 2).astype(x.dtype), (first,), dtypes, **options)
    for name in ("bitwise_and_", "bitwise_or_", "bitwise_xor_"):
        yield row(name, lambda y, z, n=name: getattr(y, n)(z), getattr(np, name[:-1]), (X, X),
                  (*INTS, "bool"), **FIXED)
    for name, reference in (("bitwise_left_shift_", np.left_shift),
                            ("bitwise_right_shift_", np.right_shift)):
        yield row(name, lambda y, z, n=name: getattr(y, n)(z), reference,
                  (X, In((3, 5), 0, 4)), INTS, **FIXED)
    yield row("bitwise_not_", lambda y: y.bitwise_not_(), np.invert, (X,), (*INTS, "bool"),
              **FIXED)


def others():
    yield row("add_-alpha", lambda y, z: y.add_(z, alpha=3), lambda x, z: x + 3 * z, (X, X))
    yield row("sub_-alpha", lambda y, z: y.sub_(z, alpha=2), lambda x, z: x - 2 * z, (X, X))
    yield row("addcmul_", lambda y, a, b: y.addcmul_(a, b, value=2), lambda x, a, b: x + 2 * a * b,
              (X, In((5,)), In((3, 1))), FLOATS)
    yield row("addcdiv_", lambda y, a, b: y.addcdiv_(a, b, value=2), lambda x, a, b: x + 2 * a / b,
              (X, In((5,)), In((3, 1), 0.5, 2)), FLOATS)
    yield row("lerp_", lambda y, z: y.lerp_(z, 0.25), lambda x, z: x + 0.25 * (z - x), (X, X),
              FLOATS)
    kinks = In((3, 5), make=between)
    for name in ("clamp_", "clip_"):
        yield row(name, lambda y, n=name: getattr(y, n)(-1, 1), lambda x: np.clip(x, -1, 1),
                  (kinks,), FLOATS + INTS[:4])
    yield row("clamp_min_", lambda y: y.clamp_min_(0), lambda x: np.maximum(x, 0), (kinks,),
              FLOATS)
    yield row("clamp_max_", lambda y: y.clamp_max_(0), lambda x: np.minimum(x, 0), (kinks,),
              FLOATS)
    yield row("div_-floor", lambda y: y.div_(2, rounding_mode="floor"), lambda x: x // 2, (kinks,),
              ("float64", *INTS), **FIXED)
    yield row("int-mul_", lambda y: y.mul_(3), lambda x: x * 3, (X,), INTS, **FIXED)
    for change, out_of_place in ((operator.iadd, np.add), (operator.isub, np.subtract),
                                 (operator.imul, np.multiply), (operator.itruediv, np.divide),
                                 (operator.ipow, np.power)):
        yield row(change.__name__, lambda y, c=change: c(y, 2),
                  lambda x, f=out_of_place: f(x, 2), (X,), FLOATS)


def views():
    """Changes of parts through views, several of them, on the way to a result."""
    def twice(y):
        y[1:].mul_(2)
        y.t().add_(1)

    def square(y):
        y[:, 1::2].mul_(y[:, :4:2].clone())

    def chain(y):
        part = y.t()[1:4]
        part.add_(1).mul_(3)
        part[0].neg_()
        y[::2, 1:].exp_()

    def chained(x):
        x = x.copy()
        x[:, 1:4] = (x[:, 1:4] + 1) * 3
        x[:, 1] *= -1
        x[::2, 1:] = np.exp(x[::2, 1:])
        return x

    yield row("views", twice, lambda x: np.concatenate((x[:1], 2 * x[1:])) + 1)
    yield row("view-by-view", square,
              lambda x: np.stack((x[:, 0], x[:, 0] * x[:, 1], x[:, 2], x[:, 2] * x[:, 3],
                                  x[:, 4]), 1))
    yield row("view-chain", chain, chained, (In((3, 5), -1, 0),), FLOATS + COMPLEX)
    yield row("view-of-other", lambda y, z: y[1].add_(z[0]).mul_(z[1]),
              lambda x, z: np.stack((x[0], (x[1] + z[0]) * z[1], x[2])), (X, In((2, 5))))
    yield row("diagonal-view", lambda y: y.diagonal().mul_(3),
              lambda x: x * (1 + 2 * np.eye(3, 5)).astype(x.dtype), (X,))
    yield row("self-overlap", lambda y: y.add_(y.clone().t().t()), lambda x: x + x)
    # PyTorch refuses an operand that overlaps.
    yield Case("transposed-self", lambda x: changed(lambda y: y.mul_(y.t()))(mlgpu, x),
               (In((4, 4)),), lambda x: x * x.T, dtypes=NUMBERS, **FIXED)
    for dtype in ("float32", "float16", "int64", "bool"):
        other = In((5,), 0, 3, dtype=dtype)
        yield row(f"add_-{dtype}", lambda y, z: y.add_(z), lambda x, z: x + z, (X, other),
                  ("float64", "float32", "complex64"), gradient=(0,))
        yield row(f"mul_-view-{dtype}", lambda y, z: y[1:].mul_(z),
                  lambda x, z: np.concatenate((x[:1], x[1:] * z)), (X, other),
                  ("float64", "float32", "complex64"), gradient=(0,))


CASES = [*fills(), *unaries(), *binaries(), *others(), *views()]
