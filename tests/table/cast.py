"""Rows for mlgpu/ops/cast.py: dtypes, copies, layouts, and assignment, which casts."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
from table.case import ALL, COMPLEX, FLOATS, INTS, REALS, In, both

X = In((3, 5), 0, 100)
SIGNED = In((3, 5), -100, 100)
FIXED = {"gradient": False, "second": False}
METHODS = {"double": "float64", "float": "float32", "half": "float16", "bfloat16": "bfloat16",
           "long": "int64", "int": "int32", "short": "int16", "bool": "bool",
           "cfloat": "complex64", "cdouble": "complex128"}
REAL = (*REALS, "bool")


def converted(name):
    """The values in that dtype, by NumPy, whose casts have the same meaning."""
    target = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)

    def reference(x, *_):
        x = np.asarray(x)
        if x.dtype.kind == "c" and name not in (*COMPLEX, "bool"):
            x = x.real
        return x.astype(target)

    return reference


def taking(name):
    """The dtypes that are cast to it without a warning."""
    return ALL if name in (*COMPLEX, "bool") else REAL


def quiet(call):
    """Without the warning that a complex number loses its imaginary part."""
    def inner(*args):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(*args)

    return inner


def casts():
    for method, name in METHODS.items():
        yield both(method, lambda lib, x, m=method: getattr(x, m)(), converted(name), (X,),
                   dtypes=taking(name), **FIXED)
        yield both(f"type_as-{name}", lambda lib, x, y: x.type_as(y), converted(name),
                   (X, In((), dtype=name)), dtypes=taking(name), **FIXED)
    for name in (*FLOATS, *INTS, *COMPLEX, "bool"):
        reference = converted(name)
        yield both(f"to-{name}", lambda lib, x, n=name: x.to(getattr(lib, n)), reference,
                   (X,), dtypes=taking(name), **FIXED)
        if name != "uint8":
            yield both(f"to-{name}-signed", lambda lib, x, n=name: x.to(dtype=getattr(lib, n)),
                       reference, (SIGNED,), dtypes=taking(name), **FIXED)
        yield both(f"to-{name}-shapes", lambda lib, x, y, n=name: (
                       x.to(getattr(lib, n)), y.mT.to(getattr(lib, n))),
                   lambda x, y, f=reference: (f(x), f(y.T)), (In(()), In((0, 3))),
                   dtypes=taking(name), **FIXED)
    for name in (*FLOATS, *INTS):
        yield both(f"to-{name}-of-complex", quiet(lambda lib, x, n=name: x.to(getattr(lib, n))),
                   converted(name), (SIGNED,) if name != "uint8" else (X,), dtypes=COMPLEX,
                   **FIXED)
    yield both("to-other", lambda lib, x, y: x.to(y), converted("float64"),
               (X, In((), dtype="float64")), dtypes=REAL)
    yield both("to-device", lambda lib, x: x.to("cpu"), lambda x: x, (X,), dtypes=ALL)
    yield both("to-device-dtype", lambda lib, x: x.to("cpu", lib.float64), converted("float64"),
               (X,), dtypes=REAL)
    yield both("to-copy", lambda lib, x: x.to(x.dtype, copy=True), lambda x: x, (X,), dtypes=ALL)
    yield both("cpu", lambda lib, x: x.cpu(), lambda x: x, (X,), dtypes=ALL)
    yield both("bool-tiny", lambda lib, x: x.bool(), lambda x: x != 0,
               (In((4,), make=lambda rng, shape: np.array([0.0, -0.0, 0.25, np.nan])),),
               dtypes=FLOATS, **FIXED)


def gradients():
    """A cast to fewer digits has no finite difference: the gradient itself is the result."""
    def gradient(name, call):
        def inner(lib, x):
            x = x.detach().clone().requires_grad_()
            y = call(x, getattr(lib, name)) * 3
            return lib.autograd.grad(y, x, lib.ones_like(y))[0]

        return inner

    for name in (*FLOATS, *COMPLEX):
        yield both(f"gradient-{name}", quiet(gradient(name, lambda x, d: x.to(d))),
                   lambda x: np.full(x.shape, 3), (X,), dtypes=FLOATS + COMPLEX, **FIXED)
    yield both("double-twice", lambda lib, x: (x.double() ** 2).to(lib.complex128) * 2j,
               lambda x: 2j * x.astype(float) ** 2, (In((3, 5)),), dtypes=FLOATS)
    yield both("cdouble-squared", lambda lib, x: x.cdouble() ** 2,
               lambda x: x.astype(complex) ** 2, (In((3, 5)),), dtypes=("float64", "complex128"))
    yield both("real-of-complex", quiet(lambda lib, x: x.to(lib.float64) ** 2),
               lambda x: x.real ** 2, (In((3, 5)),), dtypes=COMPLEX)


def layouts():
    yield both("clone", lambda lib, x: x.clone(), lambda x: x, (X,), dtypes=ALL)
    yield both("clone-function", lambda lib, x: lib.clone(x.mT), lambda x: x.T, (X,), dtypes=ALL)
    yield both("contiguous", lambda lib, x: x.contiguous(), lambda x: x, (X,), dtypes=ALL)
    yield both("contiguous-transposed", lambda lib, x: x.mT.contiguous().view(-1) * 1,
               lambda x: x.T.reshape(-1) * 1, (In((3, 5)),), dtypes=REALS + COMPLEX)
    yield both("contiguous-expanded", lambda lib, x: x.expand(4, 3, 5)[:, 1:].contiguous(),
               lambda x: np.stack([x[1:]] * 4), (X,), dtypes=ALL)
    yield both("clone-strides", lambda lib, x: lib.tensor(x.contiguous().mT.clone().stride()),
               lambda x: np.array([1, 5]), (X,), **FIXED)


def assignments():
    """y[...] = x, where y has another dtype: the values are cast, the gradient comes back."""
    def fill(name, place, source, call=None):
        def inner(lib, x):
            y = lib.zeros(3, 5, dtype=getattr(lib, name))
            if call is None:
                y[place] = x[source]
            else:
                call(y[place], x[source])
            return y

        def reference(x):
            y = np.zeros((3, 5), converted(name)(x).dtype)
            y[place] = converted(name)(x)[source]
            return y

        return quiet(inner), reference

    whole, rows, cell = (slice(None),) * 2, slice(1, None), (2, 3)
    for name in (*FLOATS, "int64", "uint8", "bool", *COMPLEX):
        options = {"dtypes": taking(name), "gradient": name == "float64",
                   "second": name == "float64"}
        if name == "complex128":
            options["dtypes"] = ALL
        for label, place, source in (("all", whole, whole), ("rows", rows, rows),
                                     ("cell", cell, cell), ("broadcast", rows, 0)):
            call, reference = fill(name, place, source)
            yield both(f"setitem-{name}-{label}", call, reference, (X,), **options)
        call, reference = fill(name, rows, rows, lambda y, x: y.copy_(x))
        yield both(f"copy_-{name}", call, reference, (X,), **options)
    for name in ("float64", "int32"):
        call, reference = fill(name, whole, whole)
        yield both(f"setitem-{name}-of-complex", call, reference, (X,), dtypes=COMPLEX, **FIXED)


CASES = [*casts(), *gradients(), *layouts(), *assignments()]
