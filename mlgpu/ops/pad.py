"""nn.functional.pad: constant, reflect, replicate and circular, with derivatives of any order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from mlgpu.cpu.runtime import empty
from mlgpu.cuda import arrange as cuda_arrange
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.axis_map import AxisMap, Pairs, SeparableMap
from mlgpu.ops.window import Array
from mlgpu.tensor import Tensor

__all__ = ["pad"]

MODES = ("constant", "reflect", "replicate", "circular")


class ConstantPad(Op):
    """Adds or, where negative, removes elements at both ends of each axis."""

    def __init__(self, ends: Sequence[tuple[int, int]], value: complex) -> None:
        self.ends = tuple(ends)
        self.value = value

    def forward(self, x: Array) -> Array:
        sizes = zip(x.shape, self.ends, strict=True)
        out = empty(tuple(n + low + high for n, (low, high) in sizes), x.dtype)
        # Borders only, axis by axis: what lies inside is written once.
        fill = np.asarray(self.value).astype(x.dtype)
        inside: list[slice] = []
        source: list[slice] = []
        for axis, (low, high) in enumerate(self.ends):
            size, start = out.shape[axis], max(0, low)
            stop = max(start, size - max(0, high))
            for border in (slice(0, start), slice(stop, size)):
                out[(*inside, border)] = fill
            inside.append(slice(start, stop))
            source.append(slice(start - low, stop - low))
        out[tuple(inside)] = x[tuple(source)]
        return out

    def forward_cuda(self, x: Array) -> Array:
        return cuda_arrange.pad(x, self.ends, self.value)

    def backward(self, dy: Tensor) -> Tensor:
        return run(ConstantPad([(-low, -high) for low, high in self.ends], 0), dy)  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def border_map(mode: str, axis: int, size: int, low: int, high: int) -> AxisMap:
    """Where each element of a padded axis comes from: the left border, the inside, the right."""
    count = size + low + high
    place = np.arange(count) - low
    if mode == "reflect":
        source = size - 1 - np.abs(size - 1 - np.abs(place))
    elif mode == "replicate":
        source = np.clip(place, 0, size - 1)
    else:  # negative amounts are removed before the rest is wrapped around
        start, stop = max(0, -low), size - max(0, -high)
        source = start + (place - start) % (stop - start)
    left = min(count, max(0, low))
    cuts = [0, left, max(left, count - max(0, high)), count]
    rows = [np.arange(start, stop) for start, stop in pairwise(cuts)]
    pairs = [Pairs(0, part, source[part], None) for part in rows if part.size]
    return AxisMap(axis, size, count, pairs)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant",
        value: complex | None = None) -> Tensor:
    """Pad the last axes: `pad` is (low, high) of the last axis, then of the one before, ...

    constant: any number of axes with `value` (0), and negative amounts remove elements.  reflect,
    replicate, circular: the last 1, 2 or 3 axes of an input with one or two more.  The result is
    never a view.  Raises ShapeError for amounts that do not fit, DTypeError for bool borders.
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(f"pad: needs (low, high) for at most {input.ndim} axes, got {tuple(pad)}")
    ends = [(int(pad[i]), int(pad[i + 1])) for i in range(len(pad) - 2, -1, -2)]
    for axis, (low, high) in enumerate(ends, -len(ends)):
        size = input.shape[axis]
        kept = size + min(0, low) + min(0, high)
        if size + low + high < 0 or (kept < 0 and mode in ("constant", "circular")):
            raise ShapeError(f"pad: cannot remove {(low, high)} from axis {axis} of "
                             f"{tuple(input.shape)}")
    if mode == "constant":
        ends = [(0, 0)] * (input.ndim - len(ends)) + ends
        return run(ConstantPad(ends, 0 if value is None else value), input)  # type: ignore[no-any-return]
    check_borders(input, ends, mode, value)
    maps = [border_map(mode, axis, input.shape[axis], low, high)
            for axis, (low, high) in enumerate(ends, -len(ends))]
    return run(SeparableMap(maps), input)  # type: ignore[no-any-return]


def check_borders(input: Tensor, ends: Sequence[tuple[int, int]], mode: str,
                  value: complex | None) -> None:
    if mode not in MODES:
        raise ShapeError(f"pad: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if value is not None and value != 0:
        raise ShapeError(f"pad: mode {mode!r} takes no value, got {value}")
    if len(ends) not in (1, 2, 3) or input.ndim - len(ends) not in (1, 2):
        raise ShapeError(f"pad: mode {mode!r} pads the last 1, 2 or 3 axes of an input with one or "
                         f"two more, got {len(ends)} axes of {tuple(input.shape)}")
    if input.dtype.kind == "bool" and mode != "circular":
        raise DTypeError(f"pad: mode {mode!r} is not defined for bool; convert with .to()")
    for axis, (low, high) in enumerate(ends, -len(ends)):
        size = input.shape[axis]
        most = {"reflect": size - 1, "replicate": max(low, high, 0)}.get(
            mode, size + min(0, low) + min(0, high))
        if max(low, high, 0) > most or size == 0:
            raise ShapeError(f"pad: mode {mode!r} can add at most {most} at an end of axis {axis} "
                             f"of {tuple(input.shape)}, got {(low, high)}")
