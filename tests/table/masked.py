"""Rows for mlgpu/ops/masked.py: the chosen elements of each line, by themselves."""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import FLOATS, Case, In

import mlgpu

X = In((4, 5))
# All, some and one of a line.
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0], [1, 0, 0, 1, 0]], bool)
KEEPS = In((4, 5), dtype="bool", make=lambda rng, shape: MASK)
ROW = In((5,), dtype="bool", make=lambda rng, shape: MASK[1])


def lines(function, empty=np.nan):
    """A reduction of each line's chosen elements."""
    def reference(x, mask):
        chosen = np.broadcast_to(mask, x.shape)
        return np.array([function(row[m]) if m.any() else empty
                         for row, m in zip(x, chosen, strict=True)])

    return reference


def spread(function, rest):
    """What becomes of each line's chosen elements, with `rest` between."""
    def reference(x, mask):
        result = np.full(x.shape, float(rest))
        for y, row, m in zip(result, x, np.broadcast_to(mask, x.shape), strict=True):
            if m.any():
                y[m] = function(row[m])
        return result

    return reference


def row(name, call, reference, tag="", mask=KEEPS, **options):
    def fn(lib, x, m):
        return call(getattr(lib.masked, name), x, m)

    return Case(f"masked_{name}{tag}", lambda x, m: fn(mlgpu, x, m), (X, mask), reference, fn,
                **{"dtypes": ("float64",), **options})


def along(f, x, m):
    return f(x, 1, mask=m)


def scan(function, fill):
    return lambda x, m: function(np.where(m, x, fill), axis=1)


CASES = [
    row("sum", along, lines(np.sum, 0), dtypes=FLOATS),
    row("sum", lambda f, x, m: f(x, mask=m), lambda x, m: (x * m).sum(), "-all", ROW),
    row("prod", along, lines(np.prod, 1), tolerance=2),
    row("amax", along, lines(np.max)), row("amin", along, lines(np.min)),
    row("argmax", along, lambda x, m: np.where(m, x, -np.inf).argmax(1).astype(float),
        gradient=False),
    row("argmin", along, lambda x, m: np.where(m, x, np.inf).argmin(1).astype(float),
        gradient=False),
    row("cumsum", along, scan(np.cumsum, 0)), row("cumprod", along, scan(np.cumprod, 1)),
    row("mean", along, lines(np.mean)),
    row("mean", lambda f, x, m: f(x, (0, 1), keepdim=True, mask=m),
        lambda x, m: x[np.broadcast_to(m, x.shape)].mean(keepdims=True)[:, None], "-all", ROW),
    row("median", along, lines(lambda v: np.sort(v)[(len(v) - 1) // 2])),
    row("norm", lambda f, x, m: f(x, 3, 1, mask=m), lines(lambda v: np.linalg.norm(v, 3), 0)),
    row("normalize", lambda f, x, m: f(x, 2.0, 1, mask=m),
        spread(lambda v: v / np.linalg.norm(v), 0)),
    row("logsumexp", along, lines(special.logsumexp)),
    row("softmax", along, spread(special.softmax, 0)),
    row("softmin", along, spread(lambda v: special.softmax(-v), 0)),
    row("log_softmax", lambda f, x, m: f(x, 1, mask=m).exp(), spread(special.softmax, 0)),
    row("logaddexp", lambda f, x, m: f(x, x * 0.5, input_mask=m),
        lambda x, m: np.logaddexp(np.where(m, x, -np.inf), x * 0.5), mask=ROW),
    row("var", lambda f, x, m: f(x, 1, correction=0, mask=m), lines(np.var)),
    row("std", lambda f, x, m: f(x, mask=m),
        lambda x, m: x[np.broadcast_to(m, x.shape)].std(ddof=1), mask=ROW),
]
