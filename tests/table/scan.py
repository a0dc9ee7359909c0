"""Rows for mlgpu/ops/scan.py."""

from __future__ import annotations

import numpy as np
from table.case import COMPLEX, FLOATS, REALS, Case, In

import mlgpu

X = In((2, 3, 5))


def row(name, fn, reference, inputs=(X,), torch=None, **options):
    """A row whose call is the same in both libraries, unless `torch` says otherwise."""
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), **options)


def distinct(rng, shape):
    """Values no two of which a finite difference brings together."""
    count = int(np.prod(shape))
    return (rng.permutation(count).reshape(shape) - count / 2) * 0.11 + 0.03


def with_zeros(rng, shape):
    x = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    flat = x.reshape(-1)
    flat[2::7] = 0
    flat[3::14] = 0
    return x


def ties(rng, shape):
    return rng.integers(-2, 3, shape).astype(float)


def with_nan(rng, shape):
    x = distinct(rng, shape)
    x.reshape(-1)[3::8] = np.nan
    return x


def first_infinite(rng, shape):
    x = rng.uniform(-2, 2, shape)
    x[..., 0] = -np.inf
    x[..., 3] = -np.inf
    return x


def running(extreme, x, dim):
    """Values and last indices of a running extreme, element by element."""
    x = np.moveaxis(np.asarray(x), dim, -1)
    values, indices = x.copy(), np.zeros(x.shape, np.int64)
    for place in np.ndindex(*x.shape[:-1]):
        best, at = x[(*place, 0)], 0
        for i, value in enumerate(x[place]):
            better = value >= best if extreme == "max" else value <= best
            if np.isnan(value) or (not np.isnan(best) and better):
                best, at = value, i
            values[(*place, i)], indices[(*place, i)] = best, at
    return np.moveaxis(values, -1, dim), np.moveaxis(indices, -1, dim)


def logcumsumexp(x, dim):
    top = np.max(x, axis=dim, keepdims=True)
    return np.log(np.cumsum(np.exp(x - top), axis=dim)) + top


def sums(name, reference, low=-2.0, high=2.0):
    """cumsum or cumprod along every dimension, and what is odd."""
    x = In((2, 3, 5), low, high)

    def call(dim, **options):
        return lambda x: getattr(x, name)(dim, **options)

    kinds = REALS + COMPLEX
    return [
        *[row(f"{name}-{dim}", call(dim), lambda x, d=dim: reference(x, d), (x,), dtypes=kinds)
          for dim in (0, 1, -1)],
        row(f"{name}-scalar", call(0), lambda x: x, (In((), low, high),), dtypes=FLOATS),
        row(f"{name}-one", call(1), lambda x: x, (In((3, 1), low, high),), dtypes=FLOATS),
        row(f"{name}-empty", call(1), lambda x: x, (In((3, 0)),), dtypes=FLOATS),
        row(f"{name}-no-rows", call(1), lambda x: x, (In((0, 3)),), dtypes=FLOATS),
        row(f"{name}-long", call(0), lambda x: reference(x, 0), (In((37, 2), 0.5, 1.5),),
            dtypes=FLOATS),
        row(f"{name}-transposed", lambda x: getattr(x.mT, name)(1),
            lambda x: reference(x.swapaxes(1, 2), 1), (x,), dtypes=FLOATS),
        row(f"{name}-dtype", lambda x: getattr(x, name)(1, dtype=mlgpu.float64),
            lambda x: reference(x, 1), (x,), dtypes=("float32", "float64", "int32"),
            torch=lambda torch, x: getattr(x, name)(1, dtype=torch.float64)),
        row(f"{name}_", lambda x: getattr(x.clone(), f"{name}_")(1), lambda x: reference(x, 1),
            (x,), dtypes=FLOATS),
    ]


def extremes(name, kind):
    def fn(dim):
        return lambda x: tuple(getattr(x, name)(dim))

    one = In((2, 3, 5), make=distinct)
    return [
        *[row(f"{name}-{dim}", fn(dim), lambda x, d=dim: running(kind, x, d), (one,),
              dtypes=FLOATS) for dim in (0, 1, -1)],
        row(f"{name}-ties", fn(1), lambda x: running(kind, x, 1), (In((3, 11), make=ties),),
            dtypes=REALS, gradient=False, second=False),
        row(f"{name}-nan", fn(1), lambda x: running(kind, x, 1), (In((3, 11), make=with_nan),),
            dtypes=FLOATS, gradient=False, second=False),
        row(f"{name}-scalar", fn(0), lambda x: (x, np.zeros((), np.int64)), (In(()),),
            dtypes=FLOATS),
        row(f"{name}-empty", fn(0), lambda x: (x, np.zeros(x.shape, np.int64)), (In((0, 3)),),
            dtypes=FLOATS),
    ]


CASES = [
    *sums("cumsum", lambda x, d: np.cumsum(x, d)),
    *sums("cumprod", lambda x, d: np.cumprod(x, d)),
    row("cumprod-zeros", lambda x: x.cumprod(1), lambda x: np.cumprod(x, 1),
        (In((3, 7), make=with_zeros),), dtypes=FLOATS),
    row("cumprod-zeros-long", lambda x: x.cumprod(0), lambda x: np.cumprod(x, 0),
        (In((23,), make=with_zeros),), dtypes=FLOATS),
    *[row(f"logcumsumexp-{dim}", lambda x, d=dim: x.logcumsumexp(d),
          lambda x, d=dim: logcumsumexp(x, d), dtypes=FLOATS) for dim in (0, 1, -1)],
    row("logcumsumexp-long", lambda x: x.logcumsumexp(0), lambda x: logcumsumexp(x, 0),
        (In((37, 2)),), dtypes=FLOATS),
    row("logcumsumexp-scalar", lambda x: x.logcumsumexp(0), lambda x: x, (In(()),), dtypes=FLOATS),
    row("logcumsumexp-empty", lambda x: x.logcumsumexp(1), lambda x: x, (In((3, 0)),),
        dtypes=FLOATS),
    row("logcumsumexp-large", lambda x: (x * 400).logcumsumexp(1),
        lambda x: np.logaddexp.accumulate(x * 400, 1), (In((2, 5)),), dtypes=("float64", "float32"),
        second=False),
    # PyTorch gives NaN gradients to elements that are -inf, here they are 0: values only.
    row("logcumsumexp-infinite", lambda x: x.logcumsumexp(1),
        lambda x: np.logaddexp.accumulate(x, 1), (In((2, 6), make=first_infinite),),
        dtypes=FLOATS, gradient=False, second=False),
    *extremes("cummax", "max"),
    *extremes("cummin", "min"),
    *[row(f"diff-{n}-{dim}", lambda x, n=n, d=dim: x.diff(n, d),
          lambda x, n=n, d=dim: np.diff(x, n, d), dtypes=REALS + COMPLEX)
      for n, dim in ((1, -1), (2, 0), (2, 1), (0, 1), (3, 2), (5, 2))],
    row("diff-joined", lambda x, a, b: mlgpu.diff(x, 1, 1, a, b),
        lambda x, a, b: np.diff(x, 1, 1, a, b), (X, In((2, 1, 5)), In((2, 2, 5))), dtypes=REALS,
        torch=lambda torch, x, a, b: torch.diff(x, 1, 1, a, b)),
    row("diff-bool", lambda x: x.diff(), lambda x: np.diff(x), (In((3, 7), dtype="bool"),),
        dtypes=("bool",), gradient=False, second=False),
    row("diff-empty", lambda x: x.diff(), lambda x: x, (In((3, 0)),), dtypes=FLOATS),
]
