"""Rows for mlgpu/ops/complex.py, and arithmetic that mixes complex with real numbers."""

from __future__ import annotations

import numpy as np
from table.case import ALL, COMPLEX, FLOATS, INTS, REALS, In, both

X = In((3, 5))
DOUBLES = FLOATS[:2]
AWAY = In((3, 5), 0.5, 2)
FIXED = {"gradient": False, "second": False}


def row(name, call, reference, inputs=(X,), dtypes=COMPLEX, **options):
    return both(name, call, reference, inputs, dtypes=dtypes, **options)


def parts():
    for label, shapes in {"": ((3, 5), (3, 5)), "-broadcast": ((3, 1), (5,)),
                          "-scalar": ((), (2, 3)), "-scalars": ((), ()),
                          "-empty": ((0, 3), (3,))}.items():
        two = tuple(In(s) for s in shapes)
        yield row(f"complex{label}", lambda lib, a, b: lib.complex(a, b), lambda a, b: a + 1j * b,
                  two, DOUBLES)
        # PyTorch's gradient of a negative length has the wrong sign.
        yield row(f"polar{label}", lambda lib, a, b: lib.polar(a, b),
                  lambda a, b: a * np.exp(1j * b), (In(shapes[0], 0.5, 2), two[1]), DOUBLES)
    for shape in ((3, 5), (), (0, 3)):
        one = (In(shape),)
        label = f"-{shape}".replace(" ", "")
        yield row(f"real{label}", lambda lib, x: lib.real(x), np.real, one, ALL)
        yield row(f"imag{label}", lambda lib, x: lib.imag(x), np.imag, one)
        yield row(f"real-attribute{label}", lambda lib, x: x.real, np.real, one, ALL)
        yield row(f"imag-attribute{label}", lambda lib, x: x.imag * 2, lambda x: x.imag * 2, one)
        # PyTorch's conj is a view with a flag; its values are compared.
        yield row(f"conj{label}", lambda lib, x: lib.conj(x).resolve_conj(), np.conj, one)
        yield row(f"conj-method{label}", lambda lib, x: x.conj() * 1j, lambda x: np.conj(x) * 1j,
                  one)
        yield row(f"conj_physical{label}", lambda lib, x: x.conj_physical(), np.conj, one)
        yield row(f"view_as_real{label}", lambda lib, x: lib.view_as_real(x.contiguous()),
                  lambda x: np.stack((x.real, x.imag), -1), one)
    yield row("conj-real", lambda lib, x: lib.conj(x), lambda x: x, (X,), (*REALS, "bool"))
    yield row("conj-twice", lambda lib, x: x.conj().conj().resolve_conj() * 1, lambda x: x)
    yield row("resolve_conj", lambda lib, x: lib.resolve_conj(x), lambda x: x, (X,), ALL)
    yield row("resolve_neg", lambda lib, x: lib.resolve_neg(x), lambda x: x, (X,), ALL)
    yield row("flags", lambda lib, x: lib.tensor([lib.is_conj(x), lib.is_neg(x),
                                                  lib.is_complex(x)]),
              lambda x: np.array([False, False, np.iscomplexobj(x)]), (X,), ALL, **FIXED)
    for shape in ((3, 5, 2), (2,), (0, 2)):
        yield row(f"view_as_complex-{shape}".replace(" ", ""),
                  lambda lib, x: lib.view_as_complex(x.contiguous().reshape(x.shape)),
                  lambda x: x[..., 0] + 1j * x[..., 1], (In(shape),), DOUBLES)
    yield row("view_as_complex-transposed",
              lambda lib, x: lib.view_as_complex(x.contiguous().transpose(0, 1)) * 1,
              lambda x: (x[..., 0] + 1j * x[..., 1]).T, (In((3, 5, 2)),), DOUBLES)
    yield row("view-there-and-back",
              lambda lib, x: lib.view_as_complex(lib.view_as_real(x.contiguous()) * 2),
              lambda x: 2 * x)
    yield row("adjoint", lambda lib, x: x.mH.resolve_conj() * 1, lambda x: np.conj(x.T))


def writes():
    """In-place changes of a part, through its view."""
    def change(part, call):
        def inner(lib, x):
            y = x.clone()
            call(getattr(y, part))
            return y * 1

        return inner

    yield row("real-mul_", change("real", lambda p: p.mul_(3)), lambda x: 3 * x.real + 1j * x.imag)
    yield row("imag-zero_", change("imag", lambda p: p.zero_()), lambda x: x.real + 0j)
    yield row("imag-sin_", change("imag", lambda p: p[1:].sin_()),
              lambda x: x.real + 1j * np.concatenate((x.imag[:1], np.sin(x.imag[1:]))))

    def assigned(lib, x, a):
        y = x.clone()
        y.real = a
        return y

    yield row("real-assigned", assigned, lambda x, a: a + 1j * x.imag,
              (X, In((5,), dtype="float64")), ("complex128",))
    yield row("view_as_real-exp_", change("real", lambda p: p.t().exp_()),
              lambda x: np.exp(x.real) + 1j * x.imag)


ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
              "pow": np.power}


def mixes():
    for name, reference in ARITHMETIC.items():
        for dtype in ("float64", "float32", "bfloat16", "int64", "uint8", "bool", "complex64"):
            if name in ("sub", "pow") and dtype == "bool":
                continue
            exact = dtype in ("float64", "int64", "uint8", "bool")
            other = In((5,), 1, 3, dtype=dtype)
            gradient = (0,) if name == "pow" or not exact else True
            yield row(f"{name}-{dtype}", lambda lib, x, y, n=name: getattr(lib, n)(x, y),
                      reference, (AWAY, other), gradient=gradient,
                      tolerance=1e6 if dtype == "complex64" else 10)
            if name != "pow":
                yield row(f"r{name}-{dtype}", lambda lib, x, y, n=name: getattr(lib, n)(y, x),
                          lambda x, y, f=reference: f(y, x), (AWAY, other), gradient=gradient,
                          tolerance=1e6 if dtype == "complex64" else 10)
        for number in (2, 1.5, 1 + 0.5j):
            yield row(f"{name}-number-{number}",
                      lambda lib, x, n=name, c=number: getattr(lib, n)(x, c),
                      lambda x, f=reference, c=number: f(x, c), (AWAY,))
        yield row(f"{name}-complex-number", lambda lib, x, n=name: getattr(lib, n)(x, 1 + 0.5j),
                  lambda x, f=reference: f(x, 1 + 0.5j), (AWAY,), (*DOUBLES, *INTS),
                  tolerance=1 if name != "pow" else 10)
    yield row("number-minus", lambda lib, x: (2 - 1j) - x, lambda x: (2 - 1j) - x)
    yield row("number-over", lambda lib, x: (2 - 1j) / x, lambda x: (2 - 1j) / x, (AWAY,))
    yield row("number-times-real", lambda lib, x: 1j * x, lambda x: 1j * x, (X,),
              (*DOUBLES, *INTS, "bool"))
    yield row("abs-squared", lambda lib, x: (x * x.conj()).real, lambda x: np.abs(x) ** 2)
    yield row("real-and-imag", lambda lib, x: x.real * x.imag + x.abs(),
              lambda x: x.real * x.imag + np.abs(x), (AWAY,))
    yield row("where", lambda lib, c, x, y: lib.where(c, x, y), np.where,
              (In((3, 5), dtype="bool"), X, In((5,), dtype="float64")), ("complex128",),
              gradient=(1,))
    yield row("equal-to-real", lambda lib, x, y: x == y, lambda x, y: x == y,
              (X, In((5,), dtype="float64")), **FIXED)


CASES = [*parts(), *writes(), *mixes()]
