"""`assert_close`: tensors, numbers, sequences and mappings compared within a dtype's tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgpu import dtypes
from mlgpu.tensor import Tensor

Array = npt.NDArray[Any]

# (rtol, atol) per dtype, torch.testing's; dtypes that are not here are compared exactly.
_TOLERANCES = {
    dtypes.float16: (1e-3, 1e-5), dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5), dtypes.float64: (1e-7, 1e-7),
    dtypes.complex64: (1.3e-6, 1e-5), dtypes.complex128: (1e-7, 1e-7)}
_NUMBERS = {int: dtypes.int64, float: dtypes.float64, complex: dtypes.complex128}


@dataclass(frozen=True)
class _Rule:
    """What counts as close."""

    rtol: float | None
    atol: float | None
    equal_nan: bool
    check_device: bool
    check_dtype: bool
    check_stride: bool

    def tolerances(self, *kinds: dtypes.dtype) -> tuple[float, float]:
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        rtols, atols = zip(*(_TOLERANCES.get(kind, (0.0, 0.0)) for kind in kinds), strict=True)
        return max(rtols), max(atols)

    # --- one pair ---------------------------------------------------------------------------

    def fault(self, actual: Any, expected: Any) -> str | None:
        """What is wrong with `actual`, or None.  TypeError for what cannot be compared."""
        if actual is None or expected is None:
            return None if actual is expected else f"None mismatch: {actual} is not {expected}"
        kinds = (type(actual), type(expected))
        if bool in kinds and all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
            return None if actual is expected else f"Booleans mismatch: {actual} is not {expected}"
        if all(issubclass(kind, (int, float, complex)) for kind in kinds):
            return self._numbers(actual, expected)
        if isinstance(actual, Tensor) and isinstance(expected, Tensor):
            return self._tensors(actual, expected)
        if isinstance(actual, np.ndarray) and isinstance(expected, np.ndarray):
            from mlgpu.ops.creation import tensor

            return self._tensors(tensor(actual), tensor(expected))
        raise TypeError(f"assert_close: cannot compare {kinds[0].__name__} with "
                        f"{kinds[1].__name__}")

    def _numbers(self, actual: complex, expected: complex) -> str | None:
        types = type(actual), type(expected)
        if self.check_dtype and types[0] is not types[1]:
            return f"The (d)types do not match: {types[0]} != {types[1]}."
        kinds = [next(_NUMBERS[base] for base in _NUMBERS if issubclass(kind, base))
                 for kind in types]
        return self._values(np.asarray(actual), np.asarray(expected), *self.tolerances(*kinds))

    def _tensors(self, actual: Tensor, expected: Tensor) -> str | None:
        checked = {"shape": True, "device": self.check_device, "dtype": self.check_dtype}
        for what, check in checked.items():
            mine, other = getattr(actual, what), getattr(expected, what)
            if check and mine != other:
                return f"The values for attribute '{what}' do not match: {mine} != {other}."
        if self.check_stride and actual.stride() != expected.stride():
            return ("The values for attribute 'stride()' do not match: "
                    f"{actual.stride()} != {expected.stride()}.")
        return self._values(_exact(actual), _exact(expected),
                            *self.tolerances(actual.dtype, expected.dtype))

    def _values(self, actual: Array, expected: Array, rtol: float, atol: float) -> str | None:
        with np.errstate(all="ignore"):
            if rtol == atol == 0:
                close = (actual == expected) | (self.equal_nan & (actual != actual)
                                                & (expected != expected))
            else:
                close = np.isclose(actual, expected, rtol, atol, self.equal_nan)
            if np.all(close):
                return None
            absolute = np.where(close, 0, np.abs(actual - expected))
            relative = np.where(close, 0, absolute / np.abs(expected))
        describe = _number_fault if actual.ndim == 0 else _array_fault
        return describe(actual, expected, np.asarray(close), absolute, relative, rtol, atol)


def _exact(x: Tensor) -> Array:
    """The values in a dtype that holds them and their differences."""
    array = x.numpy(force=True)
    wide = {"bool": np.int64, "int": np.int64, "float": np.float64, "complex": np.complex128}
    return array.astype(wide[x.dtype.kind])


def _allowed(tolerance: float, exact: bool) -> str:
    return "" if exact else f" (up to {tolerance} allowed)"


def _title(what: str, exact: bool) -> str:
    return f"{what} are not {'equal' if exact else 'close'}!\n\n"


def _number_fault(actual: Array, expected: Array, close: Array, absolute: Array, relative: Array,
                  rtol: float, atol: float) -> str:
    exact = rtol == atol == 0
    return (f"{_title('Scalars', exact)}Expected {expected.item()} but got {actual.item()}.\n"
            f"Absolute difference: {absolute.item()}{_allowed(atol, exact)}\n"
            f"Relative difference: {relative.item()}{_allowed(rtol, exact)}")


def _array_fault(actual: Array, expected: Array, close: Array, absolute: Array, relative: Array,
                 rtol: float, atol: float) -> str:
    exact = rtol == atol == 0
    wrong = close.size - int(np.count_nonzero(close))
    lines = [f"Mismatched elements: {wrong} / {close.size} ({100 * wrong / close.size:.1f}%)"]
    for what, difference, tolerance in (("absolute", absolute, atol), ("relative", relative, rtol)):
        index = tuple(map(int, np.unravel_index(np.argmax(difference), difference.shape)))
        lines.append(f"Greatest {what} difference: {difference[index].item()} at index {index}"
                     f"{_allowed(tolerance, exact)}")
    return _title("Tensor-likes", exact) + "\n".join(lines)


def _pairs(actual: Any, expected: Any, path: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Pairs of leaves with the path to each; a fourth item says what is wrong with a structure."""
    if all(isinstance(x, Sequence) and not isinstance(x, (str, bytes)) for x in (actual, expected)):
        if len(actual) != len(expected):
            yield path, None, None, ("The length of the sequences mismatch: "
                                     f"{len(actual)} != {len(expected)}")
            return
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            yield from _pairs(a, b, f"{path}[{i}]")
    elif isinstance(actual, Mapping) and isinstance(expected, Mapping):
        missing = [key for key in expected if key not in actual]
        extra = [key for key in actual if key not in expected]
        if missing or extra:
            yield path, None, None, ("The keys of the mappings do not match:\n"
                                     f"Missing keys in the actual mapping: {missing}\n"
                                     f"Additional keys in the actual mapping: {extra}")
            return
        for key in actual:
            yield from _pairs(actual[key], expected[key], f"{path}[{key!r}]")
    else:
        yield path, actual, expected, ""


def assert_close(actual: Any, expected: Any, *, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
                 check_dtype: bool = True, check_stride: bool = False,
                 msg: str | Callable[[str], str] | None = None) -> None:
    """Raise AssertionError unless |actual - expected| <= atol + rtol * |expected| everywhere.

    For tensors, NumPy arrays, numbers, None, and sequences and mappings of them.  Without `rtol`
    and `atol` (both or neither) the tolerances are the dtype's; integers and bools must be equal.
    `msg` replaces the error's text, or makes another of it.
    Raises ValueError for one tolerance without the other, TypeError for what cannot be compared.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: give both rtol and atol or neither, got no "
                         f"{'rtol' if rtol is None else 'atol'}")
    rule = _Rule(rtol, atol, equal_nan, check_device, check_dtype, check_stride)
    for path, a, b, structure in _pairs(actual, expected):
        fault = structure or rule.fault(a, b)
        if fault:
            text = f"{fault}\n\nThe failure occurred for item {path}" if path else fault
            raise AssertionError(text if msg is None else msg(text) if callable(msg) else msg)
