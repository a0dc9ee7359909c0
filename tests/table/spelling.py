"""Rows for other spellings of what has rows elsewhere: operators, aliases, in-place functions."""

from __future__ import annotations

import operator

import numpy as np
from scipy import special
from table.case import ALL, FLOATS, INTS, REALS, In, both

X = In((3, 5))
P = In((3, 5), 0.4, 2)
A = In((4, 3, 6))
FIXED = {"gradient": False, "second": False}
DOUBLES = ("float64", "float32")


def row(name, call, reference, inputs=(X,), dtypes=FLOATS, **options):
    return both(name, call, reference, inputs, dtypes=dtypes, **options)


ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide,
              "pow": np.power}
WHOLE = {"floordiv": np.floor_divide, "mod": np.remainder}
BITS = {"and_": np.bitwise_and, "or_": np.bitwise_or, "xor": np.bitwise_xor,
        "lshift": np.left_shift, "rshift": np.right_shift}
ORDER = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
         "gt": np.greater, "ge": np.greater_equal}


def operators():
    """Between tensors, with a number on either side, and in place."""
    for group, dtypes, options in ((ARITHMETIC, FLOATS, {}), (WHOLE, DOUBLES + INTS[:4], FIXED),
                                   (BITS, INTS, FIXED), (ORDER, REALS, FIXED)):
        spec = In((3, 5), 1, 4) if group is BITS else P if group is ARITHMETIC else In((3, 5), 1, 9)
        for name, reference in group.items():
            function, plain = getattr(operator, name), name.strip("_")
            yield row(f"__{plain}__", lambda lib, x, y, f=function: f(x, y), reference,
                      (spec, In((5,), spec.low, spec.high)), dtypes, **options)
            yield row(f"__{plain}__-number", lambda lib, x, f=function: f(x, 2),
                      lambda x, f=reference: f(x, np.asarray(2, x.dtype)), (spec,), dtypes,
                      **options)
            if group is ORDER:
                continue
            yield row(f"__r{plain}__", lambda lib, x, f=function: f(2, x),
                      lambda x, f=reference: f(np.asarray(2, x.dtype), x), (spec,), dtypes,
                      **options)
            change = getattr(operator, f"i{plain}")
            yield row(f"__i{plain}__", lambda lib, x, y, f=change: f(x.clone(), y), reference,
                      (spec, In((5,), spec.low, spec.high)), dtypes, **options)
    for function, reference in ((operator.neg, np.negative), (operator.pos, np.positive),
                                (abs, np.abs)):
        yield row(f"__{function.__name__}__", lambda lib, x, f=function: f(x), reference, (P,))
    yield row("__invert__", lambda lib, x: ~x, np.invert, (X,), (*INTS, "bool"), **FIXED)
    yield row("__matmul__", lambda lib, x, y: x @ y, np.matmul, (X, In((5, 2))), DOUBLES)
    yield row("__rmatmul__", lambda lib, x, y: x.__rmatmul__(y), lambda x, y: y @ x,
              (X, In((2, 3))), DOUBLES)
    yield row("__contains__", lambda lib, x: lib.tensor([1 in x, 77 in x]),
              lambda x: np.array([True, False]),
              (In((4,), make=lambda rng, shape: np.array([0, 1, 2, 3])),), REALS, **FIXED)


def rebuilt(lib, x):
    """The matrix that eigenvalues and eigenvectors make again, however they are scaled."""
    values, vectors = lib.linalg.eig(x)
    return (vectors * values) @ lib.linalg.inv(vectors)


def spaced(rng, shape):
    """A matrix with eigenvalues far apart."""
    return rng.uniform(-0.5, 0.5, shape) + np.diag([6.0, 2, -2, -5])


def aliases():
    yield row("fix", lambda lib, x: lib.fix(x), np.trunc, (P,), DOUBLES, **FIXED)
    yield row("logaddexp2", lambda lib, x, y: lib.logaddexp2(x, y), np.logaddexp2, (X, X))
    yield row("psi", lambda lib, x: lib.special.psi(x), special.digamma, (P,), DOUBLES)
    yield row("eig", rebuilt, lambda x: x.astype(complex),
              (In((4, 4), make=spaced),), DOUBLES, second=False, tolerance=100)
    yield row("swapdims", lambda lib, x: lib.swapdims(x, 0, 2), lambda x: x.swapaxes(0, 2), (A,),
              ALL)
    for name, dim in (("vsplit", 0), ("hsplit", 1), ("dsplit", 2)):
        yield row(name, lambda lib, x, n=name: getattr(lib, n)(x, (1, 2)),
                  lambda x, d=dim: tuple(np.split(x, (1, 2), d)), (A,), ALL)
        yield row(f"{name}-parts", lambda lib, x, n=name, d=dim: getattr(x, n)(x.shape[d]),
                  lambda x, d=dim: tuple(np.split(x, x.shape[d], d)), (A,), ALL)
    yield row("split_with_sizes", lambda lib, x: lib.split_with_sizes(x, (1, 3, 2), 2),
              lambda x: tuple(np.split(x, (1, 4), 2)), (A,), ALL)
    yield row("sum_to_size", lambda lib, x: x.sum_to_size(3, 1),
              lambda x: x.sum((0, 2))[:, None], (A,), FLOATS)


def reductions_at_places():
    index = In((4,), dtype="int64", make=lambda rng, shape: np.array([2, 0, 2, 1]))
    source = In((4, 5), 0.5, 2)
    for how, ufunc in (("amax", np.maximum), ("amin", np.minimum), ("prod", np.multiply)):
        def reference(x, i, y, f=ufunc):
            x = x.copy()
            f.at(x, i, y)
            return x

        yield row(f"index_reduce-{how}",
                  lambda lib, x, i, y, h=how: x.index_reduce(0, i, y, h), reference,
                  (In((3, 5), 0.5, 2), index, source), DOUBLES, second=False)
        yield row(f"scatter_reduce_-{how}",
                  lambda lib, x, i, y, h=how: x.clone().scatter_reduce_(
                      0, i[:, None].expand(4, 5), y, h), reference,
                  (In((3, 5), 0.5, 2), index, source), DOUBLES, second=False)


ACTIVATIONS = {
    "celu_": ((1.5,), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x / 1.5))),
    "elu_": ((1.5,), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x))),
    "hardtanh_": ((-0.5, 0.75), lambda x: np.clip(x, -0.5, 0.75)),
    "leaky_relu_": ((0.1,), lambda x: np.where(x > 0, x, 0.1 * x)),
    "rrelu_": ((0.1, 0.3), lambda x: np.where(x > 0, x, 0.2 * x)),
    "selu_": ((), lambda x: 1.0507009873554805 * np.where(
        x > 0, x, 1.6732632423543772 * np.expm1(x))),
    "threshold_": ((0.3, -7.0), lambda x: np.where(x > 0.3, x, -7.0)),
}


def activations():
    away = In((3, 5), make=lambda rng, shape: rng.choice([-1.7, -0.9, 0.4, 1.3], shape)
              + rng.uniform(-0.03, 0.03, shape))
    for name, (options, reference) in ACTIVATIONS.items():
        yield row(name, lambda lib, x, n=name, o=options: getattr(lib.nn.functional, n)(
            x.clone(), *o), reference, (away,))
    yield row("upsample", lambda lib, x: lib.nn.functional.upsample(x, scale_factor=2),
              lambda x: x.repeat(2, 2), (In((2, 1, 3)),), DOUBLES)


CASES = [*operators(), *aliases(), *reductions_at_places(), *activations()]
