"""Rows for mlgpu/ops/extrema.py and mlgpu/ops/quantile.py."""

from __future__ import annotations

import numpy as np
from table.case import FLOATS, INTS, REALS, Case, In, both, distinct, ties
from table.reduce import SEVERAL, SIZES, odd, over, tag

import mlgpu

FIXED = {"gradient": False, "second": False}
BOOL = ("bool",)


def with_nan(rng, shape):
    """Ties, infinities, and NaN in every other row."""
    x = ties(rng, shape)
    x.reshape(-1)[2::9] = -np.inf
    x.reshape(-1)[5::11] = np.inf
    x[::2, ..., -2] = np.nan
    x[::2, ..., 1] = np.nan
    return x


X = In((2, 3, 5), make=distinct)
TIES = In((4, 3, 7), make=ties)
MIXED = In((4, 3, 7), make=with_nan)


# --- references -----------------------------------------------------------------------------------


def rows_of(x, dim):
    return np.moveaxis(np.asarray(x), dim, -1) if np.ndim(x) else np.reshape(x, 1)


def chosen(find):
    """(values, indices) along a dimension, where `find` gives the index in one row."""
    def reference(x, dim, keepdim=False):
        rows = rows_of(x, dim)
        index = np.zeros(rows.shape[:-1], np.int64)
        for place in np.ndindex(*index.shape):
            index[place] = find(rows[place])
        values = np.take_along_axis(rows, index[..., None], -1)[..., 0]
        return tuple(np.expand_dims(y, dim) if keepdim and np.ndim(x) else y
                     for y in (values, index))

    return reference


def median_index(row):
    """The first of the lower medians; NaN wins."""
    missing = np.flatnonzero(np.isnan(row))
    return missing[0] if len(missing) else np.argsort(row, kind="stable")[(len(row) - 1) // 2]


def nanmedian_index(row):
    order = np.argsort(row, kind="stable")
    return order[max(np.count_nonzero(~np.isnan(row)) - 1, 0) // 2]


def mode_index(row):
    values, counts = np.unique(row, return_counts=True)
    return np.flatnonzero(row == values[np.argmax(counts)])[-1]


def shared(reference, dims):
    """The gradient of a sum of extremes: even shares for equal elements."""
    def gradient(x):
        attained = x == reference(x, axis=dims, keepdims=True)
        return attained / attained.sum(axis=dims, keepdims=True)

    return gradient


def given(find, dim):
    """The same where the element at the index gets all."""
    def gradient(x):
        dx = np.zeros(x.shape)
        np.put_along_axis(dx, chosen(find)(x, dim, True)[1], 1, dim)
        return dx

    return gradient


def derivative(name, call, reference, x=TIES):
    """A row for the gradient itself, where finite differences have none."""
    return both(f"{name}-gradient", lambda lib, x: _gradient(call, lib, x), reference, (x,),
                dtypes=FLOATS, **FIXED)


def _gradient(call, lib, x):
    x = x.detach().clone().requires_grad_()
    return lib.autograd.grad(call(lib, x).sum(), x)[0]


# --- rows -----------------------------------------------------------------------------------------


def attained():
    """amax, amin, aminmax, and max and min of all elements."""
    dims = ((), 0, 1, -1, (0, 2), (-1, -3), [0, 1, 2])
    for name, reference in (("amax", np.max), ("amin", np.min)):
        short = name[1:]
        yield from over(name, reference, dims, X, dtypes=REALS)
        yield from over(name, reference, dims, TIES, dtypes=INTS + BOOL, **FIXED)
        yield from over(name, reference, dims, MIXED, dtypes=FLOATS, **FIXED)
        yield from some(odd(name, reference, 0, SEVERAL, make=distinct,
                            dtypes=("float64", "float32", "int32")))
        yield derivative(f"{name}-ties", lambda lib, x, n=name: getattr(lib, n)(x, (0, 2)),
                         shared(reference, (0, 2)))
        # PyTorch divides 0 by 0 there, but not in max() and min().
        yield Case(f"{name}-nan-gradient", lambda x, n=name: _gradient(
                       lambda lib, x: getattr(x, n)(1), mlgpu, x), (In((1, 5), make=with_nan),),
                   lambda x: np.isnan(x) / 2.0, dtypes=FLOATS, **FIXED)
        yield both(f"{name}-large-ints", lambda lib, x, n=name: getattr(lib, n)(x + (1 << 60), 1),
                   lambda x, f=reference: f(x + (1 << 60), 1), (TIES,), dtypes=("int64",), **FIXED)
        yield both(short, lambda lib, x, n=short: getattr(lib, n)(x), reference, (X,),
                   dtypes=REALS + BOOL)
        yield both(f"{short}-scalar", lambda lib, x, n=short: getattr(lib, n)(x), reference,
                   (In(()),), dtypes=REALS)
        yield both(f"{short}-long", lambda lib, x, n=short: getattr(lib, n)(x), reference,
                   (In((10007,), make=distinct),), dtypes=("float64", "float32"))
        yield both(f"{short}-nan", lambda lib, x, n=short: getattr(lib, n)(x), reference, (MIXED,),
                   **FIXED)
        yield derivative(f"{short}-ties", lambda lib, x, n=short: getattr(lib, n)(x),
                         shared(reference, (0, 1, 2)))
    yield from aminmaxes()


def some(cases):
    """Without the reductions of no elements, which have no extreme."""
    return [c for c in cases if "-nothing" not in c.name]


def aminmaxes():
    def reference(x, axis=None, keepdims=False):
        return np.min(x, axis=axis, keepdims=keepdims), np.max(x, axis=axis, keepdims=keepdims)

    for dim in (None, 0, 1, -1):
        for keepdim in (False, True):
            yield both(f"aminmax{tag(dim)}{'-keepdim' * keepdim}",
                       lambda lib, x, d=dim, k=keepdim: tuple(lib.aminmax(x, dim=d, keepdim=k)),
                       lambda x, d=dim, k=keepdim: reference(x, d, k), (X,), dtypes=REALS)
        yield both(f"aminmax-nan{tag(dim)}",
                   lambda lib, x, d=dim: tuple(lib.aminmax(x, dim=d)),
                   lambda x, d=dim: reference(x, d), (MIXED,), **FIXED)
    yield both("aminmax-scalar", lambda lib, x: tuple(lib.aminmax(x)), reference, (In(()),))
    yield both("aminmax-scalar-0", lambda lib, x: tuple(lib.aminmax(x, dim=0)),
               lambda x: reference(x), (In(()),))
    yield both("aminmax-bool", lambda lib, x: tuple(lib.aminmax(x, dim=1)),
               lambda x: reference(x, 1), (TIES,), dtypes=BOOL, **FIXED)
    for i, bound in enumerate((np.min, np.max)):
        yield derivative(f"aminmax-ties-{i}", lambda lib, x, i=i: lib.aminmax(x, dim=1)[i],
                         shared(bound, 1))


def along(name, find, x=X, dtypes=REALS, ordered=True):
    """(values, indices) of a function along each dimension; indices only without ties."""
    reference = chosen(find)

    def call(dim, keepdim, count=2):
        return lambda lib, x: tuple(getattr(lib, name)(x, dim, keepdim))[:count]

    for dim in (0, 1, -1):
        yield both(f"{name}{tag(dim)}", call(dim, False), lambda x, d=dim: reference(x, d), (x,),
                   dtypes=dtypes if ordered else FLOATS)
        yield both(f"{name}{tag(dim)}-keepdim", call(dim, True),
                   lambda x, d=dim: reference(x, d, True), (x,))
        count = 2 if ordered else 1  # PyTorch promises no index among equal elements
        yield both(f"{name}-ties{tag(dim)}", call(dim, False, count),
                   lambda x, d=dim, n=count: reference(x, d)[:n], (TIES,), dtypes=dtypes, **FIXED)
    for shape, dim in (*SIZES[1:], ((3, 1), 1), ((0, 3), 1), ((3, 4), 1), ((3, 2), 1)):
        yield both(f"{name}-{shape}{tag(dim)}".replace(" ", ""), call(dim, False),
                   lambda x, d=dim: reference(x, d), (In(shape, make=distinct),),
                   dtypes=("float64", "float32"))
    for dim in (0, -1):
        yield both(f"{name}-scalar{tag(dim)}", call(dim, True), lambda x: reference(x, 0),
                   (In(()),), dtypes=dtypes)
    yield both(f"{name}-transposed", lambda lib, x: tuple(getattr(x.mT, name)(1)),
               lambda x: reference(x, 2), (x,))


def maxima():
    for name, find, pair in (("max", np.argmax, np.maximum), ("min", np.argmin, np.minimum)):
        yield from along(name, find, dtypes=REALS)
        yield both(f"{name}-bool", lambda lib, x, n=name: tuple(getattr(x, n)(1)),
                   lambda x, f=find: chosen(f)(x, 1), (TIES,), dtypes=BOOL, **FIXED)
        yield both(f"{name}-nan-2", lambda lib, x, n=name: tuple(getattr(x, n)(2)),
                   lambda x, f=find: chosen(f)(x, 2), (MIXED,), **FIXED)
        yield both(f"{name}-named", lambda lib, x, n=name: (getattr(x, n)(dim=1).values,
                                                           getattr(x, n)(dim=1).indices),
                   lambda x, f=find: chosen(f)(x, 1), (X,))
        yield derivative(f"{name}-ties-1", lambda lib, x, n=name: getattr(x, n)(1)[0],
                         given(find, 1))
        yield both(f"{name}-other", lambda lib, x, y, n=name: getattr(lib, n)(x, y), pair,
                   (X, In((3, 1), 0, 0.02)), dtypes=REALS)
        yield both(f"{name}-other-method", lambda lib, x, y, n=name: getattr(x, n)(other=y), pair,
                   (X, In((5,), 0, 0.02)), dtypes=FLOATS)
        arg = f"arg{name}"
        for dim in (None, 0, 1, -1):
            for keepdim in (False, True):
                yield both(f"{arg}{tag(dim)}{'-keepdim' * keepdim}",
                           lambda lib, x, n=arg, d=dim, k=keepdim: getattr(lib, n)(x, d, k),
                           lambda x, f=find, d=dim, k=keepdim: f(x, axis=d, keepdims=k), (TIES,),
                           dtypes=REALS, **FIXED)
            yield both(f"{arg}-nan{tag(dim)}", lambda lib, x, n=arg, d=dim: getattr(x, n)(d),
                       lambda x, f=find, d=dim: f(x, axis=d), (MIXED,), **FIXED)
        for shape, dim in (*SIZES, ((), None), ((), 0), ((), -1), ((3, 0), 0)):
            yield both(f"{arg}-{shape}{tag(dim)}".replace(" ", ""),
                       lambda lib, x, n=arg, d=dim: getattr(lib, n)(x, d),
                       lambda x, f=find, d=dim: f(x, axis=d if np.ndim(x) else None),
                       (In(shape, make=distinct),), dtypes=("float32", "int32"), **FIXED)


def medians():
    for name, find in (("median", median_index), ("nanmedian", nanmedian_index)):
        def whole(x, find=find):
            flat = np.reshape(x, -1)
            return flat[find(flat)] if flat.size else np.array(np.nan)

        yield from along(name, find, ordered=False)
        for spec, dtypes in ((X, REALS), (TIES, INTS), (In(()), REALS),
                             (In((10007,), make=distinct), FLOATS[:2])):
            yield both(name, lambda lib, x, n=name: getattr(lib, n)(x), whole, (spec,),
                       dtypes=dtypes, second=spec is not TIES)
        yield both(f"{name}-nan", lambda lib, x, n=name: getattr(lib, n)(x), whole, (MIXED,),
                   **FIXED)
        yield both(f"{name}-nan-2", lambda lib, x, n=name: getattr(x, n)(2)[0],
                   lambda x, f=find: chosen(f)(x, 2)[0], (MIXED,), **FIXED)
        yield both(f"{name}-nothing", lambda lib, x, n=name: getattr(lib, n)(x), whole,
                   (In((0, 3)),), **FIXED)
        yield derivative(f"{name}-ties", lambda lib, x, n=name: getattr(lib, n)(x),
                         lambda x, f=whole: (x == f(x)) / np.count_nonzero(x == f(x)))
        yield both(f"{name}-all-nan", lambda lib, x, n=name: getattr(x, n)(0)[0],
                   lambda x: x[0], (In((3, 2), make=lambda rng, shape: np.full(shape, np.nan)),),
                   **FIXED)


def modes():
    yield from along("mode", mode_index)
    yield both("mode-bool", lambda lib, x: tuple(lib.mode(x)), lambda x: chosen(mode_index)(x, -1),
               (TIES,), dtypes=BOOL, **FIXED)
    yield both("mode-default", lambda lib, x: tuple(x.mode()), lambda x: chosen(mode_index)(x, -1),
               (TIES,), dtypes=REALS, **FIXED)
    yield both("mode-infinite", lambda lib, x: tuple(lib.mode(x, 1)),
               lambda x: chosen(mode_index)(x, 1),
               (In((3, 7), make=lambda rng, shape: rng.choice([np.inf, -np.inf, 1.0], shape)),),
               **FIXED)
    yield derivative("mode-ties", lambda lib, x: lib.mode(x, 1)[0],
                     given(mode_index, 1))


def quantiles():
    doubles = {"dtypes": FLOATS[:2]}
    for name, reference in (("quantile", np.quantile), ("nanquantile", np.nanquantile)):
        for method in ("linear", "lower", "higher", "midpoint", "nearest"):
            for q in (0.0, 0.3, 0.65, 1.0):
                yield both(f"{name}-{method}-{q}", _fraction(name, q, 1, False, method),
                           lambda x, f=reference, q=q, m=method: f(x, q, axis=1, method=m),
                           (In((2, 5, 3), make=distinct),), **doubles)
        for dim in (None, 0, 1, -1):
            for keepdim in (False, True):
                for q in (0.4, (0.1, 0.5, 0.9), (0.7,)):
                    yield both(f"{name}{tag(dim)}{'-keepdim' * keepdim}-{q}".replace(" ", ""),
                               _fraction(name, q, dim, keepdim, "linear"),
                               lambda x, f=reference, q=q, d=dim, k=keepdim: f(
                                   x, q, axis=d, keepdims=k), (X,), **doubles)
        for spec, dim in ((In((4001,), make=distinct), None), (In((3, 1)), 1), (In((0, 3)), 1),
                          (In(()), None), (In(()), 0)):
            if 0 in spec.shape:
                continue
            yield both(f"{name}-{spec.shape}{tag(dim)}".replace(" ", ""),
                       _fraction(name, 0.37, dim, False, "linear"),
                       lambda x, f=reference, d=dim: f(np.reshape(x, -1) if not np.ndim(x) else x,
                                                       0.37, axis=d), (spec,), **doubles)
        yield both(f"{name}-nan", _fraction(name, (0.3, 0.8), 1, False, "linear"),
                   lambda x, f=reference: f(x, (0.3, 0.8), axis=1),
                   (In((4, 9), make=_some_nan),), **doubles, **FIXED)
        yield both(f"{name}-of-q", lambda lib, x, q, n=name: getattr(lib, n)(x, q, 1),
                   lambda x, q, f=reference: f(x, q, axis=1), (X, In((3,), 0.1, 0.4)), **doubles)
    yield both("nanquantile-all-nan", lambda lib, x: lib.nanquantile(x, 0.5, 0), lambda x: x[0],
               (In((3, 2), make=lambda rng, shape: np.full(shape, np.nan)),), **doubles, **FIXED)


def _some_nan(rng, shape):
    x = distinct(rng, shape)
    x[::2, 2::3] = np.nan
    return x


def _fraction(name, q, dim, keepdim, method):
    def call(lib, x):
        at = lib.tensor(q, dtype=x.dtype) if isinstance(q, tuple) else q
        return getattr(lib, name)(x, at, dim, keepdim, interpolation=method)

    return call


CASES = [*attained(), *maxima(), *medians(), *modes(), *quantiles()]
