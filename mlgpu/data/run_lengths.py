"""Masks in COCO's formats: run lengths, as numbers or as text, and polygons.

Run lengths tell how many pixels in a row are out, in, out ... down the columns of the image, the
first column first.  As text, each is written in characters of five bits, from the fourth on as the
difference to the one before the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlgpu.errors import FormatError, ShapeError
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["decode_mask", "encode_rle"]

Pixels = np.ndarray[Any, Any]


def decode_mask(segmentation: Any, height: int, width: int) -> Tensor:
    """An annotation's "segmentation" as (height, width) uint8, 1 where the object is.

    Run lengths ({"counts": numbers or text, "size"}), or a list of polygons [x0, y0, x1, y1, ...]:
    a pixel is in one where its centre is (even-odd rule), and in the mask where it is in any.
    FormatError for anything else, and where the size differs.
    """
    if isinstance(segmentation, Mapping):
        return from_numpy(_runs(segmentation, height, width))
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, (str, bytes)):
        raise FormatError("decode_mask: expected run lengths or a list of polygons, got "
                          f"{type(segmentation).__name__}")
    mask = np.zeros((height, width), np.uint8)
    for polygon in segmentation:
        mask |= _filled(polygon, height, width)
    return from_numpy(mask)


def encode_rle(mask: Tensor) -> dict[str, Any]:
    """A mask (height, width) as COCO's results want it: {"size": [height, width], "counts": text}.

    Whatever is not 0 is in.
    """
    if mask.ndim != 2:
        raise ShapeError(f"encode_rle: mask must be (height, width), got {tuple(mask.shape)}")
    pixels = mask.detach().cpu().numpy().astype(bool).T.ravel()
    ends = np.flatnonzero(np.diff(pixels, prepend=False)).tolist()
    counts = np.diff([0, *ends, pixels.size]).tolist()
    return {"size": list(mask.shape), "counts": _text(counts)}


def _runs(found: Mapping[str, Any], height: int, width: int) -> Pixels:
    counts, size = found.get("counts"), found.get("size")
    if list(size or ()) != [height, width]:
        raise FormatError(f"decode_mask: the run lengths are of the size {size}, the image of "
                          f"{[height, width]}")
    if isinstance(counts, (str, bytes)):
        counts = _numbers(counts.encode() if isinstance(counts, str) else counts)
    try:
        lengths = np.array(counts, np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        lengths = np.array([-1])
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise FormatError(f"decode_mask: run lengths of {height} x {width} pixels must add up to "
                          f"{height * width}, got {str(counts)[:60]}")
    inside = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.ascontiguousarray(np.repeat(inside, lengths).reshape(width, height).T)


def _numbers(text: bytes) -> list[int]:
    """Run lengths from their text."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise FormatError(f"decode_mask: {text[:60]!r} is no text of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more follows
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _text(counts: Sequence[int]) -> str:
    characters = []
    for number, count in enumerate(counts):
        value = count - (counts[number - 2] if number > 2 else 0)
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(chr(48 + bits + 32 * more))
            if not more:
                break
    return "".join(characters)


def _filled(polygon: Any, height: int, width: int) -> Pixels:
    """The pixels whose centres lie in a polygon."""
    try:
        x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    except (TypeError, ValueError):
        x = y = np.empty(0)
    if len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FormatError("decode_mask: a polygon is [x0, y0, x1, y1, ...] of three points or "
                          f"more, got {str(polygon)[:60]}")
    x_end, y_end = np.roll(x, -1), np.roll(y, -1)
    rows = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y <= rows) != (y_end <= rows))  # which edges cross the row's centres
    share = (rows[row, 0] - y[edge]) / (y_end[edge] - y[edge])
    crossing = x[edge] + share * (x_end[edge] - x[edge])
    first = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)  # pixel right of it
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row, first), 1)
    return (turns.cumsum(1)[:, :width] % 2).astype(np.uint8)
