"""Dtypes, PyTorch's promotion rules, and what arithmetic each dtype is computed in.

float16 and bfloat16 are storage formats: arithmetic and reductions run in float32 and round once
(`compute_dtype`).  bfloat16 is `ml_dtypes.bfloat16` on the CPU, loaded when first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.errors import DTypeError

if TYPE_CHECKING:
    from mlgpu.tensor import Tensor

# What dtypes and sizes are printed as names of; mlgpu.as_torch makes it "torch".
library = "mlgpu"

KINDS = ("bool", "int", "float", "complex")


class dtype:
    """An element type, e.g. `mlgpu.float32`.  There is one instance per type; compare with `is`."""

    __slots__ = ("category", "is_complex", "is_floating_point", "is_signed", "itemsize", "kind",
                 "name", "numpy")

    name: str
    numpy: np.dtype[Any]
    kind: str
    category: int
    itemsize: int
    is_floating_point: bool
    is_complex: bool
    is_signed: bool

    def __init__(self, name: str, numpy: Any, kind: str, itemsize: int) -> None:
        self.name = name
        if numpy is not None:
            self.numpy = np.dtype(numpy)
        self.kind = kind
        self.category = KINDS.index(kind)
        self.itemsize = itemsize
        self.is_floating_point = kind == "float"
        self.is_complex = kind == "complex"
        self.is_signed = name != "uint8" and kind != "bool"

    def __getattr__(self, name: str) -> Any:
        if name == "numpy":  # not set yet: NumPy has no bfloat16 of its own
            from ml_dtypes import bfloat16 as scalar

            self.numpy = np.dtype(scalar)
            _BY_NUMPY[self.numpy] = self
            return self.numpy
        raise AttributeError(f"mlgpu.{self.name} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"{library}.{self.name}"

    def __reduce__(self) -> tuple[Callable[[str], dtype], tuple[str]]:
        return by_name, (self.name,)

    def to_real(self) -> dtype:
        """The floating dtype of the real and imaginary parts; a real dtype is its own."""
        return _REAL_PART.get(self, self)

    def to_complex(self) -> dtype:
        """The complex dtype whose parts have this floating dtype (bfloat16 parts widen)."""
        return _COMPLEX_OF.get(self, self)


bool_ = dtype("bool", np.bool_, "bool", 1)
uint8 = dtype("uint8", np.uint8, "int", 1)
int8 = dtype("int8", np.int8, "int", 1)
int16 = dtype("int16", np.int16, "int", 2)
int32 = dtype("int32", np.int32, "int", 4)
int64 = dtype("int64", np.int64, "int", 8)
float16 = dtype("float16", np.float16, "float", 2)
bfloat16 = dtype("bfloat16", None, "float", 2)
float32 = dtype("float32", np.float32, "float", 4)
float64 = dtype("float64", np.float64, "float", 8)
complex64 = dtype("complex64", np.complex64, "complex", 8)
complex128 = dtype("complex128", np.complex128, "complex", 16)

ALL = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64,
       complex128)
ALIASES = {"half": float16, "float": float32, "double": float64, "short": int16, "int": int32,
           "long": int64, "cfloat": complex64, "cdouble": complex128}

_BY_NAME = {d.name: d for d in ALL} | ALIASES
_BY_NUMPY = {d.numpy: d for d in ALL if d is not bfloat16}
_REAL_PART = {complex64: float32, complex128: float64}
_COMPLEX_OF = {float16: complex64, bfloat16: complex64, float32: complex64, float64: complex128}
_PYTHON = {bool: bool_, int: int64, float: float32, complex: complex64}


def by_name(name: str) -> dtype:
    """The dtype called `name`, e.g. "float32".  Raises DTypeError for an unknown name."""
    try:
        return _BY_NAME[name]
    except KeyError:
        known = ", ".join(_BY_NAME)
        raise DTypeError(f"dtype: unknown name {name!r}; known are {known}") from None


def from_numpy(array_dtype: Any) -> dtype:
    """The mlgpu dtype of a NumPy dtype.  Raises DTypeError where there is none (uint32, object)."""
    found = _BY_NUMPY.get(array_dtype)
    if found is not None:
        return found
    native = np.dtype(array_dtype).newbyteorder("=")
    found = _BY_NUMPY.get(native)
    if found is None and native == bfloat16.numpy:  # which may not have been in the table
        found = bfloat16
    if found is None:
        known = ", ".join(d.name for d in ALL)
        raise DTypeError(f"dtype: NumPy's {array_dtype} has no counterpart; use one of {known}")
    return found


# What a `dtype` argument takes: a dtype, one of Python's or NumPy's types, a NumPy dtype.
DTypeLike = dtype | type | np.dtype[Any]


def as_dtype(value: DTypeLike) -> dtype:
    """`value` as a dtype: a dtype, a Python type (float means the default dtype) or a NumPy dtype.

    Raises DTypeError for anything else.
    """
    if isinstance(value, dtype):
        return value
    if value is float:
        return get_default_dtype()
    if value is complex:
        return get_default_dtype().to_complex()
    if isinstance(value, type) and value in _PYTHON:
        return _PYTHON[value]
    if isinstance(value, (np.dtype, type)):
        return from_numpy(value)
    raise DTypeError(f"dtype: expected an mlgpu dtype such as mlgpu.float32, got {value!r}")


def compute_dtype(d: dtype) -> dtype:
    """The dtype that arithmetic on `d` runs in: float32 for the half types, itself otherwise."""
    return float32 if d is float16 or d is bfloat16 else d


# --- the default floating dtype ----------------------------------------------------------------

_default = float32


def get_default_dtype() -> dtype:
    """The floating dtype that Python floats become: float32, or what `set_default_dtype` set."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Make `d` the default dtype of the whole process.  Raises DTypeError unless floating."""
    global _default
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise DTypeError(f"set_default_dtype: only floating dtypes can be the default, got {d!r}")
    _default = d


# --- promotion ---------------------------------------------------------------------------------

_FLOAT_ORDER = (float16, bfloat16, float32, float64)


def _promote(a: dtype, b: dtype) -> dtype:
    if a is b:
        return a
    if a.category < b.category:
        a, b = b, a
    if a.category > b.category:
        if a.is_complex and b is float64:
            return complex128
        return a
    if a.kind == "float":
        if {a, b} == {float16, bfloat16}:
            return float32
        return max(a, b, key=_FLOAT_ORDER.index)
    if a.kind == "complex":
        return complex128
    if uint8 in (a, b):
        other = b if a is uint8 else a
        return int16 if other is int8 else other
    return a if a.itemsize > b.itemsize else b


_PROMOTED = {(a, b): _promote(a, b) for a in ALL for b in ALL}


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest dtype that both promote to, as torch.promote_types."""
    for d in (type1, type2):
        if not isinstance(d, dtype):
            raise DTypeError(f"promote_types: expected dtypes such as mlgpu.float32, got {d!r}")
    return _PROMOTED[type1, type2]


def scalar_dtype(value: Any) -> dtype:
    """The dtype a Python scalar has before promotion: bool, int64, default float or complex."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    if isinstance(value, (float, np.floating)):
        return _default
    if isinstance(value, (complex, np.complexfloating)):
        return _default.to_complex()
    raise DTypeError(f"expected a Tensor or a number, got {type(value).__name__}")


def result_type(*operands: Tensor | complex) -> dtype:
    """The dtype of an arithmetic result, by PyTorch's rules.

    Tensors with dimensions decide; 0-dim tensors, then Python scalars, only raise the *kind*
    (bool < int < float < complex) of the result.
    """
    dims: dtype | None = None
    zero: dtype | None = None
    number: dtype | None = None
    for operand in operands:
        d = getattr(operand, "dtype", None)
        if isinstance(d, dtype):
            if operand.ndim:  # type: ignore[union-attr]
                dims = d if dims is None else _PROMOTED[dims, d]
            else:
                zero = d if zero is None else _PROMOTED[zero, d]
        else:
            d = scalar_dtype(operand)
            number = d if number is None else _PROMOTED[number, d]
    result = dims
    for weaker in (zero, number):
        result = weaker if result is None else combine_weak(result, weaker)
    if result is None:
        raise DTypeError("result_type: at least one operand is needed")
    return result


def combine_weak(strong: dtype, weak: dtype | None) -> dtype:
    """`strong`, raised to `weak`'s kind where that is higher; `weak`'s width counts only then."""
    if weak is None or weak.category <= strong.category:
        return strong
    if weak.is_complex and strong.is_floating_point:
        return strong.to_complex()
    return weak


def can_cast(from_: dtype, to: dtype) -> bool:
    """Whether an in-place result of dtype `from_` may be written into `to`, of no lower kind."""
    for d in (from_, to):
        if not isinstance(d, dtype):
            raise DTypeError(f"can_cast: expected dtypes such as mlgpu.float32, got {d!r}")
    if to is bool_:
        return from_ is bool_
    return from_.category <= to.category


class finfo:
    """Limits of a floating dtype: bits, eps, max, min, tiny, smallest_normal, resolution."""

    def __init__(self, type: dtype | None = None) -> None:
        d = (type or _default).to_real()
        if not d.is_floating_point:
            raise DTypeError(f"finfo: expected a floating or complex dtype, got {d!r}; use iinfo")
        limits: Any = np.finfo
        if d.numpy.kind == "V":  # bfloat16, and what mlgpu.as_torch names
            from ml_dtypes import finfo as limits  # whose declaration has no types
        info = limits(d.numpy)
        self.dtype = d.name
        self.bits = int(info.bits)
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = float(info.tiny)
        self.smallest_normal = float(info.smallest_normal)
        self.resolution = float(f"1e-{info.precision}")

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
                f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, "
                f"dtype={self.dtype})")


class iinfo:
    """Limits of an integer dtype: bits, min, max."""

    def __init__(self, type: dtype) -> None:
        if type.kind != "int":
            raise DTypeError(f"iinfo: expected an integer dtype, got {type!r}; use finfo")
        info = np.iinfo(type.numpy)
        self.dtype = type.name
        self.bits = int(info.bits)
        self.min = int(info.min)
        self.max = int(info.max)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
