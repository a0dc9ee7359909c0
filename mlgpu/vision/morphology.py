"""Greyscale and binary morphology with flat structuring elements (Serra 1982), differentiable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.bits import bitwise_and, bitwise_not
from mlgpu.ops.creation import tensor
from mlgpu.ops.morphology import BestTap, Taps
from mlgpu.tensor import Tensor
from mlgpu.vision.border import padded

__all__ = ["black_hat", "closing", "dilate", "erode", "morphological_gradient", "opening",
           "structuring_element", "top_hat"]

Element = Tensor | int | Sequence[int]
SHAPES = ("rect", "cross", "ellipse")


def structuring_element(shape: str, size: int | Sequence[int]) -> Tensor:
    """A structuring element of `size` (height, width), bool, on the CPU.

    rect: all of it; cross: the row and the column in the middle; ellipse: what lies in the ellipse
    that touches its sides.  Raises ShapeError for another shape or a size below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if shape not in SHAPES or height < 1 or width < 1:
        raise ShapeError(f"structuring_element: shape must be one of {', '.join(SHAPES)} and the "
                         f"size at least 1, got {shape!r} and {size}")
    y, x = np.arange(height)[:, None], np.arange(width)
    if shape == "rect":
        found = np.ones((height, width), bool)
    elif shape == "cross":
        found = (y == height // 2) | (x == width // 2)
    else:
        found = (((2 * y - height + 1) / height) ** 2 + ((2 * x - width + 1) / width) ** 2) <= 1
    return tensor(found, device="cpu")


def erode(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
          iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """The smallest element that the kernel covers, for images (..., h, w) of any real dtype.

    kernel: a bool tensor (kh, kw), or the size of a rectangle; what is not zero in it belongs to
    it.  `anchor` (y, x) is its element that is laid on each pixel, by default the middle one,
    (kh // 2, kw // 2).  `border`: beyond the image nothing counts ("ignore"), or it goes on with
    `value` ("constant"), "reflect", "replicate" or "circular".  NaN wins.  The gradient goes to
    the first of equal elements.  Raises ShapeError, DTypeError.
    """
    return _morph("erode", input, kernel, anchor, iterations, border, value, "e")


def dilate(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
           iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """The largest element that the reflected kernel covers; see `erode`.

    Reflected, as Serra defines it: so that `opening` and `closing` change nothing the second time
    whatever the kernel.  It makes no difference for symmetric ones.
    """
    return _morph("dilate", input, kernel, anchor, iterations, border, value, "d")


def opening(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
            iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """`erode`, then `dilate`: without what is bright and smaller than the kernel."""
    return _morph("opening", input, kernel, anchor, iterations, border, value, "ed")


def closing(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
            iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """`dilate`, then `erode`: without what is dark and smaller than the kernel."""
    return _morph("closing", input, kernel, anchor, iterations, border, value, "de")


def morphological_gradient(input: Tensor, kernel: Element = 3,
                           anchor: Sequence[int] | None = None, iterations: int = 1,
                           border: str = "ignore", value: float = 0.0) -> Tensor:
    """`dilate` minus `erode`: edges."""
    name = "morphological_gradient"
    return _difference(*(_morph(name, input, kernel, anchor, iterations, border, value, steps)
                         for steps in "de"))


def top_hat(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
            iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """The input minus its `opening`: what is bright and smaller than the kernel."""
    return _difference(input, _morph("top_hat", input, kernel, anchor, iterations, border, value,
                                     "ed"))


def black_hat(input: Tensor, kernel: Element = 3, anchor: Sequence[int] | None = None,
              iterations: int = 1, border: str = "ignore", value: float = 0.0) -> Tensor:
    """The `closing` minus the input: what is dark and smaller than the kernel."""
    return _difference(_morph("black_hat", input, kernel, anchor, iterations, border, value, "de"),
                       input)


def _difference(high: Tensor, low: Tensor) -> Tensor:
    """What is in `high` and not in `low`, which is nowhere larger."""
    if high.dtype is dtypes.bool_:
        return bitwise_and(high, bitwise_not(low))
    return high - low


def _morph(name: str, input: Tensor, kernel: Element, anchor: Sequence[int] | None,
           iterations: int, border: str, value: float, steps: str) -> Tensor:
    """Erosions ("e") and dilations ("d") in this order, each `iterations` times."""
    if input.ndim < 2 or iterations < 0:
        raise ShapeError(f"{name}: expected images (..., h, w) and iterations of at least 0, got "
                         f"{tuple(input.shape)} and {iterations}")
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order, got {input.dtype.name}")
    parts = _taps(name, kernel, anchor)
    planes = input.reshape(math.prod(input.shape[:-2]), *input.shape[-2:])
    for step in steps:
        erosion = step == "e"
        lists = parts if erosion else [[(-y, -x) for y, x in taps] for taps in parts]
        for taps in lists * iterations:
            planes = _best(name, planes, taps, erosion, border, value)
    return planes.reshape(input.shape)


def _best(name: str, planes: Tensor, taps: Taps, erosion: bool, border: str, value: float
          ) -> Tensor:
    op = BestTap(taps, erosion)
    if border == "ignore":
        return run(op, planes)  # type: ignore[no-any-return]
    (top, bottom), (left, right) = ((max(0, -min(way)), max(0, max(way)))
                                    for way in zip(*taps, strict=True))
    wide: Tensor = run(op, padded(name, planes, (left, right, top, bottom), border, value))
    height, width = planes.shape[-2:]
    return wide[:, top:top + height, left:left + width]


def _taps(name: str, kernel: Element, anchor: Sequence[int] | None) -> list[Taps]:
    """The taps of elements whose erosions, one after the other, are the one by the kernel."""
    if isinstance(kernel, Tensor):
        if kernel.ndim != 2:
            raise ShapeError(f"{name}: kernel must be (kh, kw), got {tuple(kernel.shape)}")
        element = np.asarray(kernel.detach().cpu().numpy() != 0)
    else:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        element = np.ones((max(0, height), max(0, width)), bool)
    if not element.any():
        raise ShapeError(f"{name}: the kernel must cover something, got {kernel}")
    height, width = element.shape
    y, x = (height // 2, width // 2) if anchor is None else anchor
    if not (0 <= y < height and 0 <= x < width):
        raise ShapeError(f"{name}: anchor must be a place in the kernel {element.shape}, got "
                         f"{tuple(anchor or ())}")
    rows, columns = range(-y, height - y), range(-x, width - x)
    if element.all() and height > 1 and width > 1:
        return [[(0, column) for column in columns], [(row, 0) for row in rows]]
    return [[(int(row) - y, int(column) - x) for row, column in np.argwhere(element)]]
