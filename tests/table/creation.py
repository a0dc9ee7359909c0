"""Rows for mlgpu/ops/creation.py: ranges, constants, and dtypes inferred from Python data."""

from __future__ import annotations

import numpy as np
from table.case import ALL, FLOATS, In, both

FIXED = {"gradient": False, "second": False}
NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")


def row(name, call, reference, **options):
    """A row without inputs: the call makes its tensor from nothing."""
    return both(name.replace(" ", ""), lambda lib: call(lib), reference, (), dtypes=("float32",),
                **{**FIXED, **options})


def like(name, call, reference, shape=(3, 5), dtypes=ALL):
    return both(name, call, reference, (In(shape),), dtypes=dtypes, **FIXED)


def ranges():
    for args in ((5,), (0,), (2, 9), (2, 9, 3), (9, 2, -2), (0.5, 3, 0.25), (2.5,), (0, 1, 0.1),
                 (-3, 3), (5, 5), (1.0, 4), (True, 5)):
        yield row(f"arange-{args}", lambda lib, a=args: lib.arange(*a),
                  lambda a=args: np.arange(*a), tolerance=10)
    for name in NAMES:
        half = {"tolerance": 1000} if name in ("float16", "bfloat16") else {}
        yield row(f"arange-{name}", lambda lib, n=name: lib.arange(1, 30, 3, dtype=getattr(lib, n)),
                  lambda: np.arange(1, 30, 3), **half)
        yield row(f"linspace-{name}",
                  lambda lib, n=name: lib.linspace(-4, 12, 5, dtype=getattr(lib, n))
                  if n != "uint8" else lib.linspace(0, 12, 5, dtype=lib.uint8),
                  lambda n=name: np.linspace(-4 if n != "uint8" else 0, 12, 5), **half)
    yield row("arange-keywords", lambda lib: lib.arange(start=2, end=11, step=4),
              lambda: np.array([2, 6, 10]))
    yield row("arange-tensors", lambda lib: lib.arange(lib.tensor(2), lib.tensor(7)),
              lambda: np.arange(2, 7))
    for args in ((0, 1, 5), (0, 1, 1), (3, -2, 4), (0, 10, 0), (-1.5, 2.5, 9), (2, 2, 3),
                 (1e-3, 1e3, 7), (0, 1, 10007)):
        yield row(f"linspace-{args}", lambda lib, a=args: lib.linspace(*a),
                  lambda a=args: np.linspace(*a))
        if abs(args[1]) <= 10:
            yield row(f"logspace-{args}", lambda lib, a=args: lib.logspace(*a),
                      lambda a=args: np.logspace(*a), tolerance=10)
    yield row("linspace-complex", lambda lib: lib.linspace(0, 1 + 2j, 4),
              lambda: np.linspace(0, 1 + 2j, 4))
    yield row("linspace-tensors", lambda lib: lib.linspace(lib.tensor(1.0), lib.tensor(2.0), 3),
              lambda: np.linspace(1, 2, 3))
    yield row("logspace-base", lambda lib: lib.logspace(0, 4, 5, 2, dtype=lib.float64),
              lambda: 2.0 ** np.arange(5))
    yield row("range", lambda lib: lib.range(1, 4, 0.5), lambda: np.arange(1, 4.5, 0.5))


def constants():
    for n, m in ((3, None), (2, 4), (4, 2), (0, None), (0, 3)):
        yield row(f"eye-{n}-{m}", lambda lib, n=n, m=m: lib.eye(n) if m is None else lib.eye(n, m),
                  lambda n=n, m=m: np.eye(n, m))
    for name in (*NAMES, "bool", "complex64"):
        yield row(f"eye-{name}", lambda lib, n=name: lib.eye(2, 3, dtype=getattr(lib, n)),
                  lambda n=name: np.eye(2, 3).astype(bool) if n == "bool" else np.eye(2, 3))
    for name in ("zeros", "ones"):
        for size in ((3,), (2, 3), ((2, 3),), ([4, 1],), ((),), (0,), (2, 0, 3)):
            yield row(f"{name}-{size}", lambda lib, n=name, s=size: getattr(lib, n)(*s),
                      lambda n=name, s=size: getattr(np, n)(
                          s[0] if s and isinstance(s[0], (tuple, list)) else s))
        for dtype in (*NAMES, "bool", "complex128"):
            yield row(f"{name}-{dtype}",
                      lambda lib, n=name, d=dtype: getattr(lib, n)(3, dtype=getattr(lib, d)),
                      lambda n=name, d=dtype: getattr(np, n)(
                          3, bool if d == "bool" else float))
    for value in (2, 2.5, True, 1 + 2j, float("inf"), -3):
        for size in ((2, 3), (), (0,), [4]):
            yield row(f"full-{size}-{value}", lambda lib, s=size, v=value: lib.full(s, v),
                      lambda s=size, v=value: np.full(s, v))
    for name in (*NAMES, "complex64", "bool"):
        yield row(f"full-{name}", lambda lib, n=name: lib.full((2,), 3, dtype=getattr(lib, n)),
                  lambda n=name: np.full(2, True if n == "bool" else 3))
    yield row("empty-shape", lambda lib: lib.empty(2, 0, 3), lambda: np.empty((2, 0, 3)))
    yield row("empty_strided", lambda lib: lib.empty_strided((2, 3), (1, 2)).fill_(4),
              lambda: np.full((2, 3), 4.0))
    yield row("scalar_tensor", lambda lib: lib.scalar_tensor(3), lambda: np.array(3.0))
    for name, reference in (("tril_indices", np.tril_indices), ("triu_indices", np.triu_indices)):
        for n, m, k in ((3, 3, 0), (3, 4, 1), (4, 2, -1), (0, 3, 0), (2, 3, 5), (3, 2, -4)):
            yield row(f"{name}-{n}-{m}-{k}",
                      lambda lib, f=name, n=n, m=m, k=k: getattr(lib, f)(n, m, k),
                      lambda f=reference, n=n, m=m, k=k: np.array(f(n, k, m)))


def likes():
    for name, reference in (("zeros_like", np.zeros_like), ("ones_like", np.ones_like)):
        for shape in ((3, 5), (), (0, 2)):
            yield like(f"{name}-{shape}".replace(" ", ""),
                       lambda lib, x, n=name: getattr(lib, n)(x), reference, shape)
        yield like(f"{name}-dtype", lambda lib, x, n=name: getattr(lib, n)(x, dtype=lib.float16),
                   lambda x, f=reference: f(x, np.float64))
        new = "new_" + name[:-5]
        yield like(new, lambda lib, x, n=new: (getattr(x, n)(2, 4), getattr(x, n)((2,)),
                                               getattr(x, n)(())),
                   lambda x, n=name[:-5]: tuple(getattr(np, n)(s, x.dtype)
                                                for s in ((2, 4), (2,), ())))
        yield like(f"{new}-dtype", lambda lib, x, n=new: getattr(x, n)(3, dtype=lib.int16),
                   lambda x, n=name[:-5]: getattr(np, n)(3, np.int16))
    yield like("full_like", lambda lib, x: lib.full_like(x, 3), lambda x: np.full_like(x, 3))
    yield like("full_like-dtype", lambda lib, x: lib.full_like(x, 2.5, dtype=lib.float64),
               lambda x: np.full(x.shape, 2.5))
    yield like("empty_like", lambda lib, x: lib.empty_like(x).fill_(1), np.ones_like)
    yield like("new_full", lambda lib, x: x.new_full((2, 2), 3),
               lambda x: np.full((2, 2), 3, x.dtype))
    yield like("new_empty", lambda lib, x: x.new_empty(2, 3).zero_(),
               lambda x: np.zeros((2, 3), x.dtype))
    yield like("new_tensor", lambda lib, x: x.new_tensor([[1, 0], [3, 1]]),
               lambda x: np.array([[1, 0], [3, 1]], x.dtype))


DATA = {
    "int": 3, "float": 2.5, "bool": True, "complex": 1 + 2j, "negative": -4, "big": 2 ** 40,
    "list": [1, 2, 3], "floats": [1.5, 2.0], "mixed": [1, 2.5], "mixed-bool": [True, 2],
    "bools": [True, False], "bool-float": [True, 0.5], "complexes": [1, 2j], "tuple": (1, 2),
    "nested": [[1, 2], [3, 4]], "nested-tuple": ([1.0, 2.0], (3.0, 4.0)), "empty": [],
    "empty-rows": [[], []], "deep": [[[1], [2]], [[3], [4]]], "range": range(4),
    "infinite": [float("inf"), -float("inf")],
}


def data():
    for name, value in DATA.items():
        for function in ("tensor", "as_tensor"):
            yield row(f"{function}-{name}", lambda lib, f=function, v=value: getattr(lib, f)(v),
                      lambda v=value: np.array(v))
    for dtype in (*NAMES, "bool", "complex64"):
        yield row(f"tensor-of-{dtype}", lambda lib, d=dtype: lib.tensor([0, 1, 3],
                                                                       dtype=getattr(lib, d)),
                  lambda d=dtype: np.array([0, 1, 3]) != 0 if d == "bool"
                  else np.array([0, 1, 3]))
    for kind in ("float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool",
                 "complex64"):
        array = np.arange(3).astype(kind)
        for function in ("tensor", "as_tensor", "from_numpy"):
            yield row(f"{function}-numpy-{kind}",
                      lambda lib, f=function, a=array: getattr(lib, f)(a), lambda a=array: a)
        yield row(f"tensor-numpy-number-{kind}", lambda lib, a=array: lib.tensor(a[1]),
                  lambda a=array: a[1])
        yield row(f"tensor-numpy-mixed-{kind}", lambda lib, a=array: lib.tensor([[a[1]], [0.5]]),
                  lambda a=array: np.array([[a[1]], [0.5]]))
        if kind != "bool":  # which PyTorch takes for an index there
            yield row(f"tensor-numpy-int-{kind}", lambda lib, a=array: lib.tensor((2, a[1])),
                      lambda a=array: np.array([2, a[1]]))
        yield row(f"tensor-numpy-arrays-{kind}", lambda lib, a=array: lib.tensor([a, a[::-1]]),
                  lambda a=array: np.array([a, a[::-1]]))
        yield row(f"tensor-numpy-numbers-{kind}", lambda lib, a=array: lib.tensor([a[1], a[2]]),
                  lambda a=array: a[1:])
    for function in ("tensor", "as_tensor"):
        yield row(f"{function}-list-of-tensors", lambda lib, f=function: getattr(lib, f)(
            [lib.tensor(1.5), lib.tensor(2.0)]), lambda: np.array([1.5, 2.0]))
        yield row(f"{function}-mixed-tensors", lambda lib, f=function: getattr(lib, f)(
            [[lib.tensor(1), 2], [3, lib.tensor(4)]]), lambda: np.array([[1, 2], [3, 4]]))
    yield both("as_tensor-same", lambda lib, x: lib.as_tensor(x), lambda x: x, (In((3,)),),
               dtypes=FLOATS)
    yield both("as_tensor-dtype", lambda lib, x: lib.as_tensor(x, dtype=lib.float64), lambda x: x,
               (In((3,)),), dtypes=("float64", "float32", "int32"))


CASES = [*ranges(), *constants(), *likes(), *data()]
