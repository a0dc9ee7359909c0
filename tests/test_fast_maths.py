"""The functions for compiled loops, against more precise ones."""

import math

import mpmath
import numpy as np
import pytest

pytest.importorskip("numba")

from mlgpu.cpu.fast import maths
from mlgpu.cpu.fast.compiler import compiled

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1.0, -1.0, 0.5, -0.5]


def both(x, out):
    for i in range(x.size):
        v = x[i]
        out[0, i] = maths.exp(v)
        out[1, i] = maths.exp2(v)
        out[2, i] = maths.expm1(v)
        out[3, i] = maths.sigmoid(v)
        out[4, i] = maths.tanh(v)
        out[5, i] = maths.log(v)
        out[6, i] = maths.log2(v)
        out[7, i] = maths.log10(v)
        out[8, i] = maths.log1p(v)
        out[9, i] = maths.erf(v)
        out[10, i] = maths.erfc(v)
        out[11, i] = maths.rint(v)


def errors(x, erf, erfc):
    for i in range(x.size):
        erf[i] = maths.erf(x[i])
        erfc[i] = maths.erfc(x[i])


def down(x, out):
    for i in range(x.size):
        out[i] = maths.exp_down(x[i])


def single(x, y, out):
    for i in range(x.size):
        out[0, i] = maths.sin(x[i])
        out[1, i] = maths.cos(x[i])
        out[2, i] = maths.power(x[i], y[i])
        out[3, i] = maths.copysign(x[i], y[i])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Units in the last place of float32 and float64 that the result may be off.
BOTH = {
    "exp": (np.exp, 1.0, 1.0), "exp2": (np.exp2, 1.0, 1.0), "expm1": (np.expm1, 1.5, 2.0),
    "sigmoid": (sigmoid, 2.5, 2.5), "tanh": (np.tanh, 1.5, 1.5), "log": (np.log, 1.0, 1.0),
    "log2": (np.log2, 1.5, 1.5), "log10": (np.log10, 1.5, 1.5), "log1p": (np.log1p, 1.5, 1.5),
    "erf": (np.vectorize(math.erf), 1.5, 2.5), "erfc": (np.vectorize(math.erfc), 0.6, 9.0),
    "rint": (np.rint, 0.0, 0.0),
}


def points(dtype, low, high):
    """A grid over a range, what is special, and numbers of all sizes and signs within it."""
    info = np.finfo(dtype)
    grid = np.linspace(low, high, 400_001).astype(dtype)
    sizes = np.geomspace(float(info.tiny), float(info.max) / 2, 100_001).astype(dtype)
    sizes = np.concatenate([sizes, info.tiny * np.linspace(0, 1, 1001, dtype=dtype), [info.max]])
    return np.concatenate([grid, grid / 100, np.array(SPECIAL, dtype), sizes, -sizes])


def error(name, got, wanted):
    """The largest error in units in the last place; what is not finite or 0 must be right."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(got.dtype)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded), name)
        zero = (got == 0) & (rounded == 0)
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(rounded[zero]), name)
        finite = np.isfinite(rounded)
        endless = ~finite & ~np.isnan(rounded)
        np.testing.assert_array_equal(got[endless], rounded[endless], name)
        unit = np.spacing(np.abs(rounded[finite])).astype(wanted.dtype)
        errors = np.abs(got[finite] - wanted[finite]) / unit
    return errors.max(initial=0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_one_number_are_within_their_bounds(dtype):
    end = 110 if dtype is np.float32 else 750
    x = points(dtype, -end, end)
    out = np.empty((len(BOTH), x.size), dtype)
    compiled(both)(x, out)
    found = {}
    for row, (name, (function, *_)) in zip(out, BOTH.items(), strict=True):
        with np.errstate(all="ignore"):
            found[name] = error(name, row, function(x.astype(np.longdouble)))
    allowed = {name: bounds[dtype is np.float64] for name, (_, *bounds) in BOTH.items()}
    assert {name: e for name, e in found.items() if e > allowed[name]} == {}, found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_down_is_exp_but_for_what_is_below_the_normal_numbers(dtype):
    x = points(dtype, -110, 110)
    out = np.empty_like(x)
    compiled(down)(x, out)
    with np.errstate(all="ignore"):
        wanted = np.exp(x.astype(np.longdouble))
    if dtype is np.float32:
        small = x < maths._DEEPEST32
        assert small.any()
        assert (out[small] == 0).all()
        assert (out[x > 88] > 1e38).all()  # infinity begins an ulp of 128 early
        kept = ~small & ~(x > 88)
        x, out, wanted = x[kept], out[kept], wanted[kept]
    assert error("exp_down", out, wanted) <= 1.0


def test_float64_error_functions_are_within_their_bounds():
    # The C library's own error is as large, so here is one that has none.
    x = np.concatenate([np.linspace(-7, 26, 2000), np.linspace(-1.2, 1.2, 2000)])
    erf, erfc = np.empty_like(x), np.empty_like(x)
    compiled(errors)(x, erf, erfc)
    with mpmath.workdps(40):
        for got, function, bound in ((erf, mpmath.erf, 1.5), (erfc, mpmath.erfc, 5.0)):
            off = [abs((mpmath.mpf(g) - function(mpmath.mpf(v))) / mpmath.mpf(float(np.spacing(g))))
                   for g, v in zip(map(float, got), map(float, x), strict=True)]
            assert max(off) <= bound, (function, float(max(off)))


def test_float32_sine_cosine_and_power_are_within_their_bounds():
    rng = np.random.default_rng(0)
    x = np.concatenate([points(np.float32, -110, 110), points(np.float32, -1e6, 1e6)])
    y = rng.standard_normal(x.size).astype(np.float32) * 10
    edges = np.array([*SPECIAL, 2, -2, 3, -3, 2.5, -2.5, 1e30, -1e30], np.float32)
    y[:1000] = rng.integers(-9, 9, 1000)
    x[-edges.size ** 2:] = np.repeat(edges, edges.size)
    y[-edges.size ** 2:] = np.tile(edges, edges.size)
    out = np.empty((4, x.size), np.float32)
    compiled(single)(x, y, out)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        wanted = (np.array([math.sin(v) if math.isfinite(v) else math.nan for v in wide]),
                  np.array([math.cos(v) if math.isfinite(v) else math.nan for v in wide]),
                  np.power(wide, y.astype(np.float64)))
    assert error("sin", out[0], wanted[0]) <= 1.5
    assert error("cos", out[1], wanted[1]) <= 1.5
    assert error("power", out[2], wanted[2]) <= 0.51
    np.testing.assert_array_equal(out[3].view(np.int32), np.copysign(x, y).view(np.int32))
