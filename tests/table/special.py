"""Rows for mlgpu/ops/bessel.py, probability.py, incomplete.py, orthogonal.py and number.py.

Functions of one family are fused into one kernel, which compiles in a fraction of the time.  Their
digits are held by tests/test_special.py, which also has zeta (whose sum polygamma runs on CUDA) and
mvlgamma (a sum of lgamma).
"""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import FLOATS, INTS, Case, In, both

import mlgpu


def attribute(lib, name):
    for part in name.split("."):
        lib = getattr(lib, part)
    return lib


def family(name, members, references, *inputs, **options):
    """One row of several functions: members by their names in mlgpu."""
    def fused(*xs):
        return tuple(attribute(mlgpu, member)(*xs) for member in members)

    # fuse wants named arguments.
    fn = mlgpu.fuse((lambda x: fused(x)) if len(inputs) == 1 else (lambda x, n: fused(x, n)))
    return Case(name, fn, inputs, lambda *xs: tuple(f(*xs) for f in references), **{
        "torch": lambda torch, *xs: tuple(attribute(torch, member)(*xs) for member in members),
        "dtypes": ("float64",), **options})


def third(x, n):
    """V: cos((n + 1/2) t) / cos(t / 2)."""
    return special.eval_chebyu(n, x) - np.where(n > 0, special.eval_chebyu(n - 1, x), 0)


def fourth(x, n):
    return special.eval_chebyu(n, x) + np.where(n > 0, special.eval_chebyu(n - 1, x), 0)


def swapped(function):
    return lambda x, n: function(n, x)


DEGREES = In((2, 4), make=lambda rng, shape: np.arange(8).reshape(shape), dtype="int64")
# On both sides of where forms change.
WAVES = In((2, 4), make=lambda rng, shape: np.array([[0.3, 2.0, 4.9, 5.1], [7, 20, 1.1, 60]]))
GROWTH = In((2, 4), make=lambda rng, shape: np.array([[0.3, -2.0, 1.9, 2.1], [7.9, -9, 12, 1e-3]]))
DECAY = In((2, 4), make=lambda rng, shape: np.abs(GROWTH.make(rng, shape)))
SIGNED = In((2, 4), make=lambda rng, shape: np.array(
    [[-8.1, -4.4, -4.6, -0.5], [0.7, 1.9, 2.1, 4]]))
SHARES = In((2, 4), make=lambda rng, shape: np.array(
    [[1e-30, 1e-5, 1e-3, 0.19], [0.21, 0.5, 0.75, 0.99]]))
SHAPES = In((2, 4), make=lambda rng, shape: np.array([[0.2, 0.2, 3, 3], [12, 150, 150, 150]]))
POINTS = In((2, 4), make=lambda rng, shape: np.array([[0.1, 5, 1, 9], [9, 140, 165, 250]]))

CASES = [
    family("bessel", ("special.bessel_j0", "special.bessel_j1", "special.bessel_y0",
                      "special.bessel_y1"), (special.j0, special.j1, special.y0, special.y1),
           WAVES, tolerance=100, torch=None),  # PyTorch's are off by up to 3e-7
    family("modified_bessel", ("special.modified_bessel_i0", "special.modified_bessel_i1",
                               "special.i0e", "special.i1e"),
           (special.i0, special.i1, special.i0e, special.i1e), GROWTH, tolerance=10,
           torch_gradient=False),
    family("modified_bessel_k",
           ("special.modified_bessel_k0", "special.modified_bessel_k1",
            "special.scaled_modified_bessel_k0", "special.scaled_modified_bessel_k1"),
           (special.k0, special.k1, special.k0e, special.k1e), DECAY, second=False,
           torch_gradient=False),
    family("airy_ai", ("special.airy_ai", "special.spherical_bessel_j0"),
           (lambda x: special.airy(x)[0], lambda x: special.spherical_jn(0, x)), SIGNED,
           torch_gradient=False),
    family("erfcx", ("special.erfcx", "special.log_ndtr"), (special.erfcx, special.log_ndtr),
           In((2, 4), -3, 3), tolerance=100),
    family("ndtri", ("special.ndtri",), (special.ndtri,), SHARES, gradient=False),
    both("ndtri-inner", lambda lib, p: lib.special.ndtri(p), special.ndtri,
         (In((4,), 0.2, 0.8),), dtypes=("float64",)),
    both("i0", lambda lib, x: lib.i0(x), special.i0, (In((3, 5)),), dtypes=FLOATS),
    both("i0-whole", lambda lib, x: lib.i0(x), special.i0, (In((5,)),),
         dtypes=(*INTS, "bool"), gradient=False),
    family("igamma", ("igamma", "igammac"), (special.gammainc, special.gammaincc), SHAPES, POINTS,
           gradient=False),
    family("chebyshev_polynomial",
           ("special.chebyshev_polynomial_t", "special.chebyshev_polynomial_u",
            "special.chebyshev_polynomial_v", "special.chebyshev_polynomial_w"),
           (swapped(special.eval_chebyt), swapped(special.eval_chebyu), third, fourth),
           In((4,)), DEGREES, gradient=(0,), tolerance=100, torch_gradient=False),
    family("shifted_chebyshev_polynomial",
           ("special.shifted_chebyshev_polynomial_t", "special.shifted_chebyshev_polynomial_u",
            "special.shifted_chebyshev_polynomial_v", "special.shifted_chebyshev_polynomial_w"),
           (swapped(special.eval_sh_chebyt), swapped(special.eval_sh_chebyu),
            lambda x, n: third(2 * x - 1, n), lambda x, n: fourth(2 * x - 1, n)),
           In((4,), 0, 1), DEGREES, gradient=False),
    family("orthogonal_polynomial",
           ("special.hermite_polynomial_h", "special.hermite_polynomial_he",
            "special.laguerre_polynomial_l", "special.legendre_polynomial_p"),
           tuple(map(swapped, (special.eval_hermite, special.eval_hermitenorm,
                               special.eval_laguerre, special.eval_legendre))),
           In((4,)), DEGREES, gradient=(0,), tolerance=1000, torch_gradient=False),
    both("gcd", lambda lib, a, b: lib.gcd(a, b), np.gcd,
         (In((3, 5), -60, 60), In((5,), -60, 60)), dtypes=INTS, gradient=False),
    both("lcm", lambda lib, a, b: lib.lcm(a, b), np.lcm,
         (In((3, 5), -9, 9), In((5,), -9, 9)), dtypes=INTS, gradient=False),
    both("ldexp", lambda lib, x, n: lib.ldexp(x, n), lambda x, n: x * 2.0 ** n,
         (In((3, 5)), In((5,), -4, 4, dtype="int32")), gradient=(0,)),
    both("frexp", lambda lib, x: tuple(lib.frexp(x)), np.frexp, (In((3, 5), 0.3, 9),)),
]
