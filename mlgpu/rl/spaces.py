"""What observations and actions are: one of n choices, or an array between bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlgpu import dtypes
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.random import Generator

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Discrete:
    """The numbers start, start + 1, ... start + n - 1."""

    n: int
    start: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ShapeError(f"Discrete: n must be at least 1, got {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        """One number."""
        return ()

    @property
    def dtype(self) -> DType:
        """How tensors hold it."""
        return dtypes.int64

    def contains(self, value: Any) -> bool:
        """Whether `value` is one of the numbers."""
        array = np.asarray(value)
        return bool(array.shape == () and array.dtype.kind in "iu"
                    and self.start <= int(array) < self.start + self.n)

    def sample(self, count: int, generator: Generator) -> Array:
        """`count` numbers, uniformly: int64 (count,)."""
        words = generator.draw(count)[:count]
        return (words % np.uint64(self.n)).astype(np.int64) + self.start


class Box:
    """Arrays of one shape, each element between its bounds, which may be infinite.

    `low` and `high` are numbers or arrays of the shape.  `dtype` is a NumPy dtype of an integer or
    a float of at most 32 bits, or float64, which tensors hold as float32.
    """

    def __init__(self, low: Any, high: Any, shape: Sequence[int] | None = None,
                 dtype: Any = np.float32) -> None:
        kind = np.dtype(dtype)
        if kind == np.float64:
            kind = np.dtype(np.float32)
        if kind.kind not in "iuf":
            raise DTypeError(f"Box: dtype must be of numbers, got {kind}")
        given = np.broadcast_shapes(np.shape(low), np.shape(high)) if shape is None else shape
        self.shape: tuple[int, ...] = tuple(int(size) for size in given)
        try:
            self.low: Array = np.broadcast_to(np.asarray(low).astype(kind), self.shape)
            self.high: Array = np.broadcast_to(np.asarray(high).astype(kind), self.shape)
        except ValueError:
            raise ShapeError(f"Box: the bounds have shapes {np.shape(low)} and {np.shape(high)}, "
                             f"which do not fit {self.shape}") from None
        if not (self.low <= self.high).all():
            raise ShapeError("Box: low must not be above high, and neither may be NaN")
        self.numpy = kind

    @property
    def dtype(self) -> DType:
        """How tensors hold it."""
        return dtypes.from_numpy(self.numpy)

    @property
    def bounded(self) -> bool:
        """Whether all bounds are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def contains(self, value: Any) -> bool:
        """Whether `value` has the shape and lies between the bounds."""
        array = np.asarray(value)
        return bool(array.shape == self.shape and array.dtype.kind in "iuf"
                    and (array >= self.low).all() and (array <= self.high).all())

    def sample(self, count: int, generator: Generator) -> Array:
        """`count` arrays, uniformly between bounds, which must be finite: (count, *shape)."""
        if not self.bounded:
            raise ShapeError("Box.sample: has infinite bounds, between which nothing is uniform; "
                             "act with a policy from the start (warmup=0), or bound the space")
        size = count * int(np.prod(self.shape, dtype=np.int64))
        unit = (generator.draw(size)[:size] >> np.uint64(11)).astype(np.float64) * 2.0**-53
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        if self.numpy.kind != "f":
            return np.floor(low + unit.reshape(count, *self.shape) * (high - low + 1)
                            ).astype(self.numpy)
        return (low + unit.reshape(count, *self.shape) * (high - low)).astype(self.numpy)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Box) and self.shape == other.shape and self.numpy == other.numpy
                and np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high))

    def __hash__(self) -> int:
        return hash((self.shape, self.numpy))

    def __repr__(self) -> str:
        return f"Box({self.low.min()}, {self.high.max()}, {self.shape}, {self.numpy})"


Space: TypeAlias = Discrete | Box


def space_of(space: Any) -> Space:
    """A space of ours for one of ours or of Gymnasium's.  TypeError for any that has none."""
    if isinstance(space, (Discrete, Box)):
        return space
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "Box":
        return Box(space.low, space.high, space.shape, space.dtype)
    raise TypeError(f"mlgpu.rl: a space must be Discrete or Box, got {kind}; wrap the environment "
                    "so that observations and actions are one array (Gymnasium has "
                    "FlattenObservation)")
