"""Rows for mlgpu/ops/reduce.py and mlgpu/ops/variance.py."""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import ALL, COMPLEX, FLOATS, INTS, REALS, Case, In, both

import mlgpu

X = In((2, 3, 5))
FIXED = {"gradient": False, "second": False}
DIMS = (None, 0, 1, -1, (0, 2), (-1, -3), (1,), [0, 1, 2], ())


def some_zero(rng, shape):
    return rng.integers(-1, 2, shape).astype(float)


def with_nan(rng, shape):
    x = rng.uniform(-2, 2, shape)
    x.reshape(-1)[1::4] = np.nan
    return x


def with_infinities(rng, shape):
    x = rng.uniform(-2, 2, shape)
    x[0, :] = -np.inf
    x[1, 0] = np.inf
    return x


def near_one(rng, shape):
    """Factors whose product stays in every dtype's range."""
    return rng.uniform(0.9, 1.1, shape)


def axis(dim):
    """NumPy's axes for PyTorch's dimensions, of which none means all."""
    return None if dim is None or dim == () else tuple(np.atleast_1d(dim).tolist())


def tag(dim):
    return "" if dim is None else f"-{dim}".replace(" ", "")


def over(name, reference, dims=DIMS, x=X, **options):
    """A reduction over dimensions of every kind, with and without `keepdim`."""
    for dim in dims:
        yield both(f"{name}{tag(dim)}", _called(name, dim),
                   lambda x, d=dim: reference(x, axis=axis(d)), (x,), **options)
    for dim in (dims[1], dims[-2]):
        yield both(f"{name}-keepdim{tag(dim)}",
                   lambda lib, x, d=dim: getattr(lib, name)(x, dim=d, keepdim=True),
                   lambda x, d=dim: reference(x, axis=axis(d), keepdims=True), (x,), **options)


def _called(name, dim):
    return lambda lib, x: getattr(lib, name)(x, *(() if dim is None else (dim,)))


SIZES = (((10007,), None), ((3, 10007), -1), ((10007, 3), 0), ((65, 3, 129), 1))
SEVERAL = (*SIZES, ((65, 3, 129), (0, 2)))


def odd(name, reference, nothing, sizes=SIZES, dims=(None, 0, -1), make=None, **options):
    """No dimensions, no elements, one element, and more elements than a block holds."""
    for dim in dims:
        yield both(f"{name}-scalar{tag(dim)}", _called(name, dim),
                   lambda x: reference(np.reshape(x, 1), axis=0), (In((), make=make),),
                   **options)
    for shape, dim in sizes:
        yield both(f"{name}-{shape}{tag(dim)}".replace(" ", ""), _called(name, dim),
                   lambda x, d=dim: reference(x, axis=axis(d)),
                   (In(shape, make=make),), **options)
    yield both(f"{name}-one", _called(name, 1), lambda x: reference(x, axis=1),
               (In((3, 1), make=make),), **options)
    yield both(f"{name}-transposed", lambda lib, x: getattr(lib, name)(x.mT, 1),
               lambda x: reference(x, axis=2), (In((2, 3, 5), make=make),), **options)
    yield both(f"{name}-no-rows", _called(name, 1), lambda x: np.zeros(0), (In((0, 3)),),
               **options)
    finite = options if np.isfinite(nothing) else {**options, **FIXED}
    for dim in dims[:2]:
        yield both(f"{name}-nothing{tag(dim)}", _called(name, dim),
                   lambda x, d=dim: np.full(() if d is None else x.sum(d).shape, nothing),
                   (In((0, 3)),), **finite)


def sums():
    yield from over("sum", np.sum, dtypes=ALL)
    yield from odd("sum", np.sum, 0, SEVERAL,
                   dtypes=("float64", "float32", "bfloat16", "int32", "complex64"))
    yield both("sum-expanded", lambda lib, x: x.expand(4, 3, 5).sum((0, 2)),
               lambda x: 20 * x[:, 0], (In((3, 1)),), dtypes=FLOATS)
    # PyTorch has no derivative of a real tensor's sum in a complex dtype.
    for name in ("float64", "float32", "int64", "int8", "complex64", "bool"):
        yield both(f"sum-dtype-{name}", lambda lib, x, d=name: x.sum(1, dtype=getattr(lib, d)),
                   _summed_as(name), (In((2, 3, 5), 0, 2),), dtypes=("float32", "int32", "bool"),
                   gradient=name.startswith("float"))
    yield from over("nansum", np.nansum, x=In((2, 3, 5), make=with_nan), dtypes=FLOATS, **FIXED)
    yield from over("nansum", np.nansum, (None, 1, (0, 2), ()), dtypes=REALS + ("bool",))
    yield from odd("nansum", np.nansum, 0, make=with_nan, dtypes=("float64", "float16"), **FIXED)
    yield both("nansum-dtype", lambda lib, x: lib.nansum(x, 1, dtype=lib.float64),
               lambda x: x.sum(1), (X,), dtypes=("float32", "int16"))


def _summed_as(name):
    def reference(x):
        if name == "bool":
            return (x != 0).any(1)
        return (np.trunc(x) if name.startswith("int") else x).astype(name).sum(1)

    return reference


def means():
    floating = FLOATS + COMPLEX
    yield from over("mean", np.mean, dtypes=floating)
    yield from odd("mean", np.mean, np.nan, dtypes=("float64", "float32", "float16", "complex64"))
    yield both("mean-dtype", lambda lib, x: x.mean(1, dtype=lib.float64), lambda x: x.mean(1),
               (X,), dtypes=("float32", "int32", "bool"))
    yield both("mean-large", lambda lib, x: (x + 60000).mean(), lambda x: (x + 60000).mean(),
               (In((1009,), 0, 5000),), dtypes=("float64", "float32"))
    yield both("mean-half-range", lambda lib, x: x.mean(0), lambda x: x.mean(0),
               (In((1009, 2), 60000, 65000),), dtypes=("float16",), second=False)
    yield from over("nanmean", np.nanmean, x=In((2, 3, 5), make=with_nan), dtypes=FLOATS, **FIXED)
    yield from over("nanmean", np.mean, (None, 1, (0, 2), ()), dtypes=FLOATS)
    yield from odd("nanmean", np.mean, np.nan, dtypes=("float64", "float16"), **FIXED)
    yield both("nanmean-all-nan", lambda lib, x: lib.nanmean(x, 0), lambda x: x[0],
               (In((1, 3), make=with_nan),), dtypes=FLOATS, **FIXED)


def products():
    one = In((2, 3, 5), 0.5, 1.5)
    single = (None, 0, 1, -1)
    yield from over("prod", np.prod, single, one, dtypes=FLOATS + COMPLEX)
    yield from over("prod", np.prod, single, In((2, 3, 2), make=lambda rng, shape: rng.choice(
        [-2.0, -1, 1, 2], shape)), dtypes=INTS[:4] + ("bool",), **FIXED)
    yield from odd("prod", np.prod, 1, make=near_one, dtypes=("float64", "float32"), tolerance=10)
    yield both("prod-half", lambda lib, x: x.prod(1), lambda x: x.prod(1), (one,),
               dtypes=("float16", "bfloat16"), **FIXED)
    for dim in single:
        yield both(f"prod-zeros{tag(dim)}",
                   lambda lib, x, d=dim: x.prod() if d is None else x.prod(d),
                   lambda x, d=dim: x.prod(d), (In((3, 2, 4), make=some_zero),), dtypes=FLOATS)
    yield both("prod-dtype", lambda lib, x: x.prod(dim=1, dtype=lib.float64),
               lambda x: x.astype(float).prod(1), (one,), dtypes=("float32", "int32", "bool"))
    yield both("prod-wraps", lambda lib, x: x.prod(0), lambda x: x.prod(0),
               (In((40, 2), make=lambda rng, shape: rng.integers(2, 9, shape)),),
               dtypes=("int64", "int32", "int8"), **FIXED)


def exponentials():
    def reference(x, axis=None, keepdims=False):
        return special.logsumexp(x, axis=axis, keepdims=keepdims)

    # PyTorch requires `dim`, and fails for ().
    dims = (0, 1, -1, (0, 2), (-1, -3), (1,), [0, 1, 2])
    yield from over("logsumexp", reference, dims, dtypes=FLOATS + COMPLEX)
    yield from odd("logsumexp", reference, -np.inf, (((10007,), 0), *SIZES[1:]), (0, -1),
                   dtypes=("float64", "float32"))
    yield Case("logsumexp-all", lambda x: mlgpu.logsumexp(x, ()), (X,), special.logsumexp)
    yield both("logsumexp-large", lambda lib, x: (x * 500).logsumexp(1),
               lambda x: special.logsumexp(x * 500, axis=1), (In((3, 7)),),
               dtypes=("float64", "float32"), second=False)
    yield both("logsumexp-infinite", lambda lib, x: x.logsumexp(1),
               lambda x: np.logaddexp.reduce(x, 1), (In((3, 4), make=with_infinities),),
               dtypes=FLOATS, **FIXED)
    yield both("logsumexp-integers", lambda lib, x: x.logsumexp(1),
               lambda x: special.logsumexp(x.astype(float), axis=1), (X,), dtypes=INTS + ("bool",))


def logic():
    zeros = In((2, 3, 5), make=some_zero)
    logical = DIMS[:-1]
    for name, reference in (("all", np.all), ("any", np.any)):
        yield from over(name, reference, logical, zeros, dtypes=ALL, **FIXED)
        yield both(f"{name}-no-dimension", lambda lib, x, n=name: getattr(x, n)(()),
                   lambda x: x != 0, (zeros,), dtypes=ALL, **FIXED)
        yield from odd(name, reference, name == "all", make=some_zero,
                       dtypes=("float32", "bfloat16", "uint8", "complex64", "bool"), **FIXED)
        yield both(f"{name}-nan", lambda lib, x, n=name: getattr(x, n)(1),
                   lambda x, f=reference: f(x, 1), (In((3, 4), make=with_nan),), dtypes=FLOATS,
                   **FIXED)
    for dim in DIMS:
        yield both(f"count_nonzero{tag(dim)}", _called("count_nonzero", dim),
                   lambda x, d=dim: np.count_nonzero(x, axis(d)), (zeros,), dtypes=ALL, **FIXED)
    yield from odd("count_nonzero", np.count_nonzero, 0, make=some_zero,
                   dtypes=("float32", "bfloat16", "int64", "complex64", "bool"), **FIXED)


def spreads(name, one):
    """var or std, alone and with the mean: dimensions of every kind, and every correction."""
    def reference(x, axis=None, keepdims=False, correction=1):
        return one(x, axis=axis, keepdims=keepdims, ddof=correction)

    def joint(x, axis=None, keepdims=False, correction=1):
        return (reference(x, axis, keepdims, correction),
                np.mean(x, axis=axis, keepdims=keepdims))

    both_dtypes = FLOATS + COMPLEX
    # PyTorch divides by the wrong count in the gradient over (): values only.
    yield from over(name, reference, DIMS[:-1], dtypes=both_dtypes)
    yield from over(f"{name}_mean", joint, (None, -1, (0, 2)), dtypes=both_dtypes)
    yield both(f"{name}-()", lambda lib, x: getattr(lib, name)(x, ()), reference, (X,), **FIXED)
    yield both(f"{name}_mean-()", lambda lib, x: getattr(lib, f"{name}_mean")(x, ()), joint, (X,),
               **FIXED)
    yield from corrections(name, reference, dtypes=both_dtypes)
    yield from corrections(f"{name}_mean", joint, dtypes=both_dtypes)
    for shape, dim in (*SEVERAL, ((3, 2), -1), ((3, 0, 4), 0)):
        yield both(f"{name}-{shape}{tag(dim)}".replace(" ", ""), _called(name, dim),
                   lambda x, d=dim: reference(x, axis(d)), (In(shape),),
                   dtypes=("float64", "float32", "float16", "complex64"))
    # A large mean must not swallow the deviations.
    yield both(f"{name}-large-mean", lambda lib, x: getattr(x + 4096, name)(1),
               lambda x: reference(x, 1), (In((3, 1009), make=quarters),),
               dtypes=("float64", "float32"))
    yield both(f"{name}-equal", lambda lib, x: getattr(x, name)(1), lambda x: np.zeros(3),
               (In((3, 4), make=lambda rng, shape: np.ones(shape)),), gradient=name == "var")


def quarters(rng, shape):
    return rng.integers(-8, 8, shape) / 4


def corrections(name, reference, **options):
    for correction in (0, 2, 1.5):
        yield both(f"{name}-correction-{correction}",
                   lambda lib, x, c=correction: getattr(lib, name)(
                       x, (0, 2), correction=c, keepdim=True),
                   lambda x, c=correction: reference(x, (0, 2), True, c), (X,), **options)
    for unbiased in (False, True):
        yield both(f"{name}-unbiased-{unbiased}",
                   lambda lib, x, u=unbiased: getattr(lib, name)(x, u),
                   lambda x, u=unbiased: reference(x, correction=int(u)), (X,), **options)
        yield both(f"{name}-unbiased-{unbiased}-1",
                   lambda lib, x, u=unbiased: getattr(lib, name)(x, 1, u, True),
                   lambda x, u=unbiased: reference(x, 1, True, int(u)), (X,), **options)


CASES = [*sums(), *means(), *products(), *exponentials(), *logic(), *spreads("var", np.var),
         *spreads("std", np.std)]
