"""A kernel's arguments from text, as the command line takes them: `f32:1.5`, `zeros:i32:32x64`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from mlgpu.sim.errors import SimError

if TYPE_CHECKING:
    from mlgpu.sim import Machine

FORMS = """\
  TYPE:VALUE               a number: i32:5, f32:1.5, u64:0xff, bool:true
  zeros:TYPE:SHAPE         a buffer of zeros; also ones
  empty:TYPE:SHAPE         a buffer that nothing was written to
  arange:TYPE:SHAPE        a buffer of 0, 1, 2, ...
  random:TYPE:SHAPE        a buffer: normally distributed, or any integers
  random:TYPE:SHAPE:LOW:HIGH   a buffer: evenly distributed from LOW up to, without, HIGH
  FILE.npy                 a buffer with a file's array
  null                     a null pointer
  types: i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64 e4m3 e5m2 bool; shapes: 1024, 32x64"""

_TYPES: dict[str, Any] = {
    **{f"i{8 * size}": f"i{size}" for size in (1, 2, 4, 8)},
    **{f"u{8 * size}": f"u{size}" for size in (1, 2, 4, 8)},
    "f16": "f2", "f32": "f4", "f64": "f8", "bool": "?", "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}


@dataclass(frozen=True)
class Made:
    """One argument: a number, an array, or the shape and type of an uninitialised buffer."""

    value: Any = None
    empty: tuple[tuple[int, ...], np.dtype[Any]] | None = None

    @property
    def buffer(self) -> bool:
        """Whether it is memory of the device."""
        return self.empty is not None or isinstance(self.value, np.ndarray)

    def place(self, machine: Machine) -> Any:
        """What the launch takes: the number, or a buffer of this machine."""
        if self.empty is not None:
            return machine.empty(*self.empty)
        return machine.array(self.value) if self.buffer else self.value


def make(form: str, seed: int = 0, position: int = 0) -> Made:
    """The argument that a text describes; SimError where it describes none.

    Random arguments differ by their position, and are the same for the same seed.
    """
    kind, *parts = form.split(":")
    try:
        with np.errstate(over="raise"):  # a number that the type cannot hold
            return _make(form, kind, parts, (seed, position))
    except (ValueError, ArithmeticError, OSError) as error:
        raise SimError(f"argument {form!r}: {error}") from None


def _make(form: str, kind: str, parts: list[str], seed: tuple[int, int]) -> Made:
    if form == "null":
        return Made(np.uint64(0))
    if kind in _TYPES and len(parts) == 1:
        return Made(_number(np.dtype(_TYPES[kind]), parts[0]))
    if kind in _BUFFERS and len(parts) >= 2 and parts[0] in _TYPES:
        dtype = np.dtype(_TYPES[parts[0]])
        shape = tuple(int(size) for size in parts[1].split("x"))
        if min(shape) < 0:
            raise ValueError("a negative size")
        if kind == "empty" and len(parts) == 2:
            return Made(empty=(shape, dtype))
        if len(parts) == 2 or (kind == "random" and len(parts) == 4):
            return Made(_array(kind, dtype, shape, parts[2:], np.random.default_rng(seed)))
    if form.endswith(".npy"):
        return Made(np.ascontiguousarray(np.load(Path(form), allow_pickle=False)))
    raise ValueError(f"none of the forms\n{FORMS}")


_BUFFERS = ("zeros", "ones", "empty", "arange", "random")


def _number(dtype: np.dtype[Any], text: str) -> Any:
    if dtype.kind in "iu":
        return dtype.type(int(text, 0))
    if dtype.kind == "b":
        if text not in ("true", "false", "0", "1"):
            raise ValueError("neither true nor false")
        return dtype.type(text in ("true", "1"))
    return dtype.type(float(text))


def _array(kind: str, dtype: np.dtype[Any], shape: tuple[int, ...], bounds: list[str],
           rng: np.random.Generator) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape, dtype=np.int64))
    flat: np.ndarray[Any, Any]
    if kind == "arange":
        if dtype.kind in "iu" and count - 1 > np.iinfo(dtype).max:
            raise OverflowError(f"{dtype} ends at {np.iinfo(dtype).max}")
        flat = np.arange(count)
    elif kind != "random":
        flat = np.full(count, kind == "ones")
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = (int(b, 0) for b in bounds) if bounds else (limits.min, limits.max + 1)
        flat = rng.integers(low, high, count, dtype=dtype)
    elif dtype.kind == "b":
        if bounds:
            raise ValueError("bounds of true and false")
        flat = rng.integers(0, 2, count)
    elif bounds:
        flat = rng.uniform(float(bounds[0]), float(bounds[1]), count)
    else:
        flat = rng.standard_normal(count)
    return flat.astype(dtype).reshape(shape)
