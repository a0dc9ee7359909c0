"""The functions for compiled loops, against more precise ones."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mlgpu.cpu.fast import maths
from mlgpu.cpu.fast.compiler import compiled

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1.0, -1.0, 0.5, -0.5]


def exponentials(x, exp):
    for i in range(x.size):
        exp[i] = maths.exp(x[i])


def points(dtype, low, high):
    """A grid over a range, what is special, and numbers of all sizes and signs within it."""
    grid = np.linspace(low, high, 400_001).astype(dtype)
    info = np.finfo(dtype)
    sizes = np.geomspace(float(info.tiny), float(info.max) / 2, 100_001).astype(dtype)
    sizes = np.concatenate([sizes, info.tiny * np.linspace(0, 1, 1001, dtype=dtype), [info.max]])
    return np.concatenate([grid, np.array(SPECIAL, dtype), sizes, -sizes])


def check(name, got, wanted, bound):
    """Within `bound` units in the last place, and exactly right where there is none."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(got.dtype)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded), name)
        np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(rounded[got == 0]),
                                      name)
        finite = np.isfinite(rounded)
        endless = ~finite & ~np.isnan(rounded)
        np.testing.assert_array_equal(got[endless], rounded[endless], name)
        unit = np.spacing(np.abs(rounded[finite])).astype(wanted.dtype)
        error = np.abs(got[finite] - wanted[finite]) / unit
    assert error.max() <= bound, (name, error.max(), error.argmax())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponentials_are_within_an_ulp(dtype):
    end = 110 if dtype is np.float32 else 750
    x = points(dtype, -end, end)
    out = np.empty_like(x)
    compiled(exponentials)(x, out)
    with np.errstate(all="ignore"):
        check("exp", out, np.exp(x.astype(np.longdouble)), 1.0)
