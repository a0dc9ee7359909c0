"""Rows for mlgpu/ops/integrate.py."""

from __future__ import annotations

import numpy as np
from table.case import Case, In, both

A = In((3, 6))
DTYPES = ("float64", "float32", "complex128")


def row(name, call, reference, inputs=(A,), dtypes=DTYPES, **options) -> Case:
    return both(name, call, reference, inputs, dtypes=dtypes, **options)


def running(y, dx):
    return np.cumsum((y[..., 1:] + y[..., :-1]) * (dx / 2), -1)


CASES = [
    row("trapezoid", lambda lib, y: lib.trapezoid(y, dx=0.5), lambda y: np.trapezoid(y, dx=0.5)),
    row("trapezoid-places", lambda lib, y, x: lib.trapz(y, x, dim=0),
        lambda y, x: np.trapezoid(y, x, axis=0), (A, In((3,))), ("float64", "float32")),
    row("cumulative_trapezoid", lambda lib, y: lib.cumulative_trapezoid(y, dx=2),
        lambda y: running(y, 2)),
    row("cov", lambda lib, x: lib.cov(x), np.cov),
    row("cov-weights", lambda lib, x, n, w: lib.cov(x, correction=0, fweights=n, aweights=w),
        lambda x, n, w: np.cov(x, ddof=0, fweights=n, aweights=w),
        (A, In((6,), dtype="int64", make=lambda rng, shape: rng.integers(1, 4, shape)),
         In((6,), 0.1, 1.0)), ("float64", "float32"), gradient=(0,)),
    row("corrcoef", lambda lib, x: lib.corrcoef(x), np.corrcoef, tolerance=3),
]
