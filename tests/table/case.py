"""One row of the op table: a call, its inputs, an independent reference, and what holds for it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

import mlgpu

FLOATS = ("float64", "float32", "float16", "bfloat16")
COMPLEX = ("complex128", "complex64")
INTS = ("int64", "int32", "int16", "int8", "uint8")
REALS = FLOATS + INTS
ALL = (*REALS, *COMPLEX, "bool")

# What a result computed in a dtype may differ by from the exact one, relatively and absolutely.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2,
             "complex128": 1e-10, "complex64": 2e-5}

Array = np.ndarray[Any, Any]


def numpy_dtype(name: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def exact_dtype(name: str) -> str:
    """What a reference computes in: double precision for floating and complex values."""
    if name in FLOATS:
        return "float64"
    return "complex128" if name in COMPLEX else name


@dataclass(frozen=True)
class In:
    """An input: uniform in [low, high], or `make(rng, shape)`; of its own dtype or the row's."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str | None = None
    make: Callable[[np.random.Generator, tuple[int, ...]], Any] | None = None

    def values(self, rng: np.random.Generator, dtype: str) -> Array:
        """The array, in the NumPy dtype of that name."""
        name = self.dtype or dtype
        target = numpy_dtype(name)
        drawn = self._draw(rng)
        if name == "bool":
            return np.asarray(drawn if drawn.dtype == np.bool_ else drawn > 0)
        if name in INTS:
            whole = np.rint(drawn)
            return np.asarray(np.abs(whole) if name == "uint8" else whole).astype(target)
        if name in COMPLEX:
            drawn = np.asarray(drawn + 0.5j * self._draw(rng))
        return drawn.astype(target)

    def _draw(self, rng: np.random.Generator) -> Array:
        if self.make is not None:
            return np.asarray(self.make(rng, self.shape))
        return np.asarray(rng.uniform(self.low, self.high, self.shape))


@dataclass(frozen=True)
class Case:
    """`fn(*tensors)` equals `reference(*arrays)` (NumPy) and `torch(library, *tensors)`.

    gradient: whether (or for which inputs) it is differentiated; second: whether twice.
    tolerance: how many times the usual error is allowed.
    torch_gradient: whether PyTorch differentiates it, too.
    """

    name: str
    fn: Callable[..., Any]
    inputs: tuple[In, ...]
    reference: Callable[..., Any] | None
    torch: Callable[..., Any] | None = None
    dtypes: tuple[str, ...] = FLOATS
    gradient: bool | tuple[int, ...] = True
    second: bool = True
    tolerance: float = 1.0
    torch_gradient: bool = True

    def arrays(self, dtype: str) -> list[Array]:
        """The inputs' values: the same for a row whatever the dtype, but for rounding."""
        rng = np.random.default_rng(7)
        return [spec.values(rng, dtype) for spec in self.inputs]

    def differentiated(self, dtype: str) -> tuple[int, ...]:
        """The inputs whose gradient is looked at."""
        if self.gradient is False or exact_dtype(dtype) not in ("float64", "complex128"):
            return ()
        floating = [i for i, spec in enumerate(self.inputs)
                    if exact_dtype(spec.dtype or dtype) in ("float64", "complex128")]
        chosen = floating if self.gradient is True else self.gradient
        return tuple(i for i in floating if i in chosen)

    def exact(self) -> str | None:
        """The dtype in which derivatives are compared with finite differences, if any."""
        found = [d for d in ("float64", "complex128") if d in self.dtypes and
                 self.differentiated(d)]
        return found[0] if found else None


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values no two of which a finite difference brings together."""
    count = int(np.prod(shape))
    return np.asarray((rng.permutation(count).reshape(shape) - count / 2) * 0.11 + 0.03)


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Few different values, so that many are equal."""
    return rng.integers(-2, 3, shape).astype(float)


def both(name: str, call: Callable[..., Any], reference: Callable[..., Any] | None,
         inputs: tuple[In, ...], **options: Any) -> Case:
    """A row whose call, `call(library, *tensors)`, is the same in both libraries."""
    return Case(name, lambda *xs: call(mlgpu, *xs), inputs, reference, call, **options)


def families() -> Iterator[tuple[str, list[Case]]]:
    """Every file of rows in this folder."""
    import table

    for module in pkgutil.iter_modules(table.__path__):
        if module.name != "case":
            yield module.name, importlib.import_module(f"table.{module.name}").CASES


def rows() -> list[tuple[str, Case]]:
    """All rows by name; those that share one, for other shapes of input, are numbered."""
    found: dict[str, Case] = {}
    for family, cases in families():
        for case in cases:
            name = plain = f"{family}/{case.name}"
            number = 1
            while name in found:
                number += 1
                name = f"{plain} ({number})"
            found[name] = case
    return list(found.items())


def flat(result: Any) -> list[Any]:
    """The tensors (or arrays) of a result, in order."""
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in flat(part)]
    return [] if result is None else [result]


def as_exact(array: Any) -> Array:
    """Floating values in double precision, everything else as it is."""
    array = np.asarray(array)
    if array.dtype.kind in "fV":
        return array.astype(np.float64)
    return array.astype(np.complex128) if array.dtype.kind == "c" else array


def host(tensor: Any) -> Array:
    """A tensor's values as an array that shares nothing with it."""
    return tensor.detach().cpu().numpy().copy()


def close(found: Array, expected: Array, tolerance: float, what: str) -> None:
    """Same shape, and values within `tolerance`, relatively and absolutely; integers equal."""
    found, expected = as_exact(found), as_exact(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    if found.dtype.kind in "biu" and expected.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected, what)
        return
    with np.errstate(all="ignore"):
        error = np.abs(found - expected)
        near = (error <= tolerance + tolerance * np.abs(expected)) & (error < np.inf)
    if not near.all():  # also for NaN and infinities; ten times as slow, and says what is wrong
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def tensors(case: Case, dtype: str, requires: bool, device: str = "cpu",
            strided: bool = False) -> list[Any]:
    """The row's inputs as leaves; `strided` ones lie with gaps and in reversed memory order."""
    made = []
    for i, array in enumerate(case.arrays(dtype)):
        if strided and array.ndim:
            gaps = np.zeros((*array.shape[::-1], 2), array.dtype)
            gaps[..., 1] = array.T
            tensor = mlgpu.tensor(gaps, device=device)[..., 1].permute(*range(array.ndim)[::-1])
        else:
            tensor = mlgpu.tensor(array, device=device)
        made.append(tensor.requires_grad_(requires and i in case.differentiated(dtype)))
    return made
