"""The digits of special functions, against 40 digits, and what their derivatives are.

In float64 the error is a few units in the last place: of the result, or of the envelope where a
function oscillates.  In float32 results are those of float64, rounded.
"""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import special
from mlgpu.errors import DerivativeError, DTypeError, ShapeError

mp = pytest.importorskip("mpmath")


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(40):
        yield


def wave(kind, order):
    """A Bessel function and its envelope, beside which a zero's error counts."""
    function = {"j": mp.besselj, "y": mp.bessely}[kind]
    return (lambda x: function(order, x), lambda x: max(
        abs(function(order, x)), mp.sqrt(2 / (mp.pi * abs(x))) if abs(x) > 0.5 else 0))


def airy_size(x):
    return mp.sqrt(mp.airyai(x) ** 2 + (mp.airybi(x) ** 2 if x < 0 else 0))


def quantile(p):
    if p > 0.5:
        return -quantile(1 - p)
    x = -mp.sqrt(-2 * mp.log(2 * p))
    for _ in range(10):
        below = mp.erfc(-x / mp.sqrt(2)) / 2
        x -= (mp.log(below) - mp.log(p)) * below * mp.sqrt(2 * mp.pi) * mp.exp(x * x / 2)
    return x


BOTH = [-900.5, -31.0, -8.0, -4.999, -2.4, -0.7, -1e-5, 1e-9, 0.4, 2.0, 3.8, 5.0, 7.99, 26.0, 1e5]
RIGHT = [1e-200, 1e-5, 0.1, 0.9, 1.99, 2.0, 3.9, 4.99, 5.01, 7.9, 8.1, 40.0, 600.0]
# name: reference, size beside which the error is taken (the result's, if None), points, units.
ONE = {
    "bessel_j0": (*wave("j", 0), BOTH, 4), "bessel_j1": (*wave("j", 1), BOTH, 4),
    "bessel_y0": (*wave("y", 0), RIGHT, 4), "bessel_y1": (*wave("y", 1), RIGHT, 4),
    "i0": (lambda x: mp.besseli(0, x), None, [*RIGHT, 713.0], 4),
    "i1": (lambda x: mp.besseli(1, x), None, [*RIGHT, -7.0, -713.0], 4),
    "i0e": (lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), None, BOTH, 4),
    "i1e": (lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), None, BOTH, 4),
    "modified_bessel_k0": (lambda x: mp.besselk(0, x), None, RIGHT, 4),
    "modified_bessel_k1": (lambda x: mp.besselk(1, x), None, RIGHT, 4),
    "scaled_modified_bessel_k0": (lambda x: mp.besselk(0, x) * mp.exp(x), None, RIGHT, 4),
    "scaled_modified_bessel_k1": (lambda x: mp.besselk(1, x) * mp.exp(x), None, RIGHT, 4),
    "airy_ai": (mp.airyai, airy_size, [-9000.0, -30.0, -4.6, -4.4, -2.3, 0.0, 1.9, 2.1, 9, 90], 5),
    "spherical_bessel_j0": (lambda x: mp.sin(x) / x, None, BOTH, 2),
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), None,
              [-26.0, -3.3, -0.1, 0.0, 0.6, 3.75, 25.0, 90.0], 3),
    "log_ndtr": (lambda x: mp.log(mp.erfc(-x / mp.sqrt(2)) / 2), None,
                 [-300.0, -9.3, -0.1, 0.0, 0.8, 5.0], 4),
    "ndtri": (quantile, None, [1e-300, 1e-30, 1e-20, 1e-4, 0.1, 0.19, 0.21, 0.6, 0.9, 0.999], 4),
}


def units(found, exact, size, eps):
    return max(float(abs(mp.mpf(float(y)) - e) / s) / eps
               for y, e, s in zip(found, exact, size, strict=True))


@pytest.mark.parametrize("name", list(ONE))
def test_digits(name):
    reference, envelope, points, bound = ONE[name]
    x = np.array(points)
    exact = [reference(mp.mpf(v)) for v in x.tolist()]
    size = [envelope(mp.mpf(v)) if envelope else abs(e)
            for v, e in zip(x.tolist(), exact, strict=True)]
    function = getattr(special, name)
    found = function(mlgpu.tensor(x)).numpy()
    assert units(found, exact, size, 2.0 ** -52) < bound
    narrow = mlgpu.tensor(x.astype(np.float32))
    np.testing.assert_array_equal(function(narrow).numpy(),
                                  function(narrow.double()).float().numpy())


def cases(*pairs):
    return np.array(pairs, float).T


@pytest.mark.parametrize("upper", [False, True])
def test_digits_of_incomplete_gamma_functions(upper):
    # Each form, and the borders between them; the error is relative also far out.
    a, x = cases((1e-10, 1e-12), (1e-5, 0.3), (0.4, 1.0), (1.0, 1.05), (1.09, 1.2), (0.3, 20), (
        2, 1e-3), (3, 2.9), (5, 5.1), (9.9, 30), (15, 4), (50, 52), (99, 70), (101, 90), (150, 160),
        (900, 850), (30, 160))
    bounds = (mp.inf,) if upper else ()
    exact = [mp.gammainc(p, q, *bounds, regularized=True) if upper else
             mp.gammainc(p, 0, q, regularized=True) for p, q in zip(a, x, strict=True)]
    function = mlgpu.igammac if upper else mlgpu.igamma
    found = function(mlgpu.tensor(a), mlgpu.tensor(x)).numpy()
    for p, q, y, e in zip(a, x, found, exact, strict=True):
        lost = 8 - float(mp.log(e)) if e > 1e-300 else mp.inf  # the exponent's own rounding
        assert abs(mp.mpf(float(y)) - e) <= lost * mp.mpf(2) ** -52 * e, (p, q, y, float(e))


def test_digits_of_zeta():
    s, q = cases((1.001, 1), (1.5, 0.01), (2, 1), (2, -0.5), (3, -7.3), (5, 200), (20, 0.5), (
        60, 90), (4, -1e-9))
    exact = []
    with mp.workdps(250):  # it keeps digits absolutely
        for p, r in zip(s, q, strict=True):
            steps = max(0, int(np.ceil(-r)))
            exact.append(mp.zeta(mp.mpf(p), mp.mpf(r) + steps) + sum(
                (mp.mpf(r) + k) ** -mp.mpf(p) for k in range(steps)))
    found = special.zeta(mlgpu.tensor(s), mlgpu.tensor(q)).numpy()
    assert units(found, exact, [abs(e) for e in exact], 2.0 ** -52) < 10


def test_ends():
    inf, nan = np.inf, np.nan
    for function, given, expected in (
            (special.bessel_j0, [0, inf, -inf, nan], [1, 0, 0, nan]),
            (special.bessel_j1, [0, inf, -inf, nan], [0, 0, 0, nan]),
            (special.bessel_y0, [0, -1, inf, nan], [-inf, nan, 0, nan]),
            (special.bessel_y1, [0, -1, inf, nan], [-inf, nan, 0, nan]),
            (special.i0, [0, inf, -inf, nan, 800], [1, inf, inf, nan, inf]),
            (special.i1, [0, inf, -inf, nan, -800], [0, inf, -inf, nan, -inf]),
            (special.i0e, [0, inf, -inf, nan], [1, 0, 0, nan]),
            (special.i1e, [0, inf, -inf, nan], [0, 0, 0, nan]),
            (special.modified_bessel_k0, [0, -1, inf, nan], [inf, nan, 0, nan]),
            (special.modified_bessel_k1, [0, -1, inf, nan], [inf, nan, 0, nan]),
            (special.scaled_modified_bessel_k1, [0, -1, inf, nan], [inf, nan, 0, nan]),
            (special.airy_ai, [inf, -inf, nan, 1e4], [0, 0, nan, 0]),
            (special.spherical_bessel_j0, [0, inf, -inf, nan], [1, 0, 0, nan]),
            (special.erfcx, [inf, -inf, nan, -30], [0, inf, nan, inf]),
            (special.log_ndtr, [inf, -inf, nan], [0, -inf, nan]),
            (special.ndtri, [0, 1, 0.5, -0.1, 1.1, nan], [-inf, inf, 0, nan, nan, nan])):
        found = function(mlgpu.tensor(np.array(given, float))).numpy()
        np.testing.assert_array_equal(found, expected, err_msg=function.__name__)


def test_ends_of_two():
    inf, nan = np.inf, np.nan
    a, x, lower, upper = cases((0, 0, nan, nan), (0, 1, 1, 0), (1, 0, 0, 1), (-1, 1, nan, nan), (
        1, -1, nan, nan), (inf, 1, 0, 1), (1, inf, 1, 0), (inf, inf, nan, nan), (nan, 1, nan, nan),
        (1, nan, nan, nan), (1e300, 1, 0, 1), (2, 1e300, 1, 0))
    np.testing.assert_array_equal(special.gammainc(mlgpu.tensor(a), mlgpu.tensor(x)), lower)
    np.testing.assert_array_equal(special.gammaincc(mlgpu.tensor(a), mlgpu.tensor(x)), upper)
    s, q, expected = cases((1, 2, inf), (0.5, 2, nan), (2, 0, inf), (3, -4, inf), (2.5, -0.5, nan),
                           (inf, 2, 0), (inf, 0.5, inf), (1e300, 1, 1), (2, inf, 0), (nan, 1, nan))
    np.testing.assert_array_equal(special.zeta(mlgpu.tensor(s), mlgpu.tensor(q)), expected)


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "first", "second"), [
    (special.zeta, [2.5, 3.0], [0.7, 4.0]), (mlgpu.igamma, [0.4, 7.0], [1.3, 6.0]),
    (mlgpu.igammac, [0.4, 7.0], [1.3, 6.0]), (mlgpu.ldexp, [1.5, -2.0], [3.3, -7.9])])
def test_derivatives_of_the_second(function, first, second):
    a = mlgpu.tensor(first, dtype=mlgpu.float64)
    x = mlgpu.tensor(second, dtype=mlgpu.float64, requires_grad=True)
    assert mlgpu.testing.gradcheck(lambda x: function(a, x), (x,))
    assert mlgpu.testing.gradgradcheck(lambda x: function(a, x), (x,))


def test_derivatives_at_zero():
    for function, expected in ((special.bessel_j1, (0.5, 0)), (special.i1, (0.5, 0)), (
            special.bessel_j0, (0, -0.5)), (special.i0, (0, 0.5)), (special.i1e, (0.5, 0)), (
            special.spherical_bessel_j0, (0, -1 / 3))):
        x = mlgpu.zeros(1, dtype=mlgpu.float64, requires_grad=True)
        first, = mlgpu.autograd.grad(function(x).sum(), x, create_graph=True)
        second, = mlgpu.autograd.grad(first.sum(), x)
        assert (first.item(), second.item()) == pytest.approx(expected), function.__name__


def test_mvlgamma_and_ndtri_are_differentiable():
    x = mlgpu.tensor([2.5, 4.0], dtype=mlgpu.float64, requires_grad=True)
    assert mlgpu.testing.gradcheck(lambda x: mlgpu.mvlgamma(x, 4), (x,))
    exact = [3 * mp.log(mp.pi) + sum(mp.loggamma(mp.mpf(v) - mp.mpf(k) / 2) for k in range(4))
             for v in (2.5, 4)]
    assert mlgpu.mvlgamma(x, 4).tolist() == pytest.approx([float(e) for e in exact], rel=1e-14)
    p = mlgpu.tensor([1e-3, 0.3, 0.8], dtype=mlgpu.float64, requires_grad=True)
    assert mlgpu.testing.gradcheck(special.ndtri, (p,))


@pytest.mark.parametrize("function", [special.zeta, mlgpu.igamma, mlgpu.igammac])
def test_what_has_no_derivative_says_so(function):
    a = mlgpu.tensor([2.0], requires_grad=True)
    y = function(a, mlgpu.tensor([1.0]))
    with pytest.raises(DerivativeError, match=f"{function.name}: has no derivative with respect "
                                              "to input; detach"):
        y.backward()
    x = mlgpu.tensor([1.0], requires_grad=True)
    n = mlgpu.tensor([3.0], requires_grad=True)
    with pytest.raises(DerivativeError, match="hermite_polynomial_h: has no derivative with "):
        special.hermite_polynomial_h(x, n).backward()


def test_polynomials_of_odd_degrees():
    """Cut degrees, negative ones, and what overflows, with its sign."""
    x = mlgpu.tensor([0.5, 0.5, 0.5, 0.5, -1e9, -1e9, 0.5], dtype=mlgpu.float64)
    n = mlgpu.tensor([2.9, -0.5, -3, np.nan, 200, 201, np.inf], dtype=mlgpu.float64)
    found = special.chebyshev_polynomial_t(x, n).numpy()
    np.testing.assert_array_equal(found, [-0.5, 1, 0, 0, np.inf, -np.inf, np.nan])
    assert special.legendre_polynomial_p(0.5, mlgpu.tensor([2])).tolist() == [-0.125]


def test_parts_of_numbers():
    x = mlgpu.tensor([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -8.0], dtype=mlgpu.float64)
    mantissa, exponent = mlgpu.frexp(x)
    np.testing.assert_array_equal(mantissa, [0, 0, np.inf, -np.inf, np.nan, 0.5, -0.5])
    assert exponent.dtype is mlgpu.int32
    assert exponent.tolist() == [0, 0, 0, 0, 0, -1073, 4]
    # The power alone overflows, or is 0.
    assert mlgpu.ldexp(mlgpu.tensor([5e-324, 2.0 ** 1000], dtype=mlgpu.float64),
                       mlgpu.tensor([1100, -1990])).tolist() == [2.0 ** 26, 2.0 ** -990]
    assert mlgpu.ldexp(mlgpu.tensor([3]), mlgpu.tensor(2)).dtype is mlgpu.float32


def test_in_place_and_other_names():
    x = mlgpu.tensor([2.5, 3.0])
    for name, others in (("i0_", ()), ("igamma_", (x,)), ("igammac_", (x,)), ("mvlgamma_", (2,)),
                         ("ldexp_", (mlgpu.tensor([1, -2]),))):
        y = x.clone()
        assert getattr(y, name)(*others) is y
        np.testing.assert_array_equal(y, getattr(mlgpu, name[:-1])(x, *others))
    n = mlgpu.tensor([4, -6])
    assert n.clone().gcd_(mlgpu.tensor([6, 9])).tolist() == [2, 3]
    assert n.clone().lcm_(mlgpu.tensor([6, 9])).tolist() == [12, 18]
    assert n.clone().lcm_(0).tolist() == [0, 0]
    assert special.multigammaln(x, 2).tolist() == mlgpu.mvlgamma(x, 2).tolist()


def test_refusals():
    with pytest.raises(DTypeError, match="gcd: expected integers, got"):
        mlgpu.gcd(mlgpu.ones(2), mlgpu.tensor(3))
    with pytest.raises(DTypeError, match="lcm: expected integers, got"):
        mlgpu.lcm(mlgpu.tensor([True]), mlgpu.tensor([True]))
    with pytest.raises(DTypeError, match="i0: not defined for complex numbers"):
        mlgpu.i0(mlgpu.ones(2, dtype=mlgpu.complex64))
    with pytest.raises(DTypeError, match="frexp: expected a floating dtype"):
        mlgpu.frexp(mlgpu.tensor([3]))
    with pytest.raises(ShapeError, match="mvlgamma: p must be at least 1, got 0"):
        mlgpu.mvlgamma(mlgpu.ones(2), 0)
