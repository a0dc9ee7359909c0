"""How an image goes on beyond its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlgpu.errors import ShapeError
from mlgpu.ops.pad import MODES, pad
from mlgpu.tensor import Tensor


def padded(name: str, image: Tensor, sides: Sequence[int], border: str, value: float = 0.0
           ) -> Tensor:
    """An image (..., h, w) with (left, right, top, bottom) more: "constant" with `value`, "reflect"
    without repeating the edge, "replicate" it, or "circular"."""
    if border not in MODES:
        raise ShapeError(f"{name}: border must be one of {', '.join(MODES)}, got {border!r}")
    if not any(sides):
        return image
    if border == "constant":
        return pad(image, sides, value=value)
    height, width = image.shape[-2:]
    most = {"reflect": (width - 1, height - 1), "circular": (width, height)}.get(border)
    if most is not None and (max(sides[:2]) > most[0] or max(sides[2:]) > most[1]):
        raise ShapeError(f"{name}: the kernel reaches {tuple(sides)} (left, right, top, bottom) "
                         f"beyond an image {(height, width)}, too far for border {border!r}; take "
                         "'replicate' or 'constant'")
    planes = image.reshape(1, math.prod(image.shape[:-2]), height, width)
    wide = pad(planes, sides, mode=border)
    return wide.reshape(*image.shape[:-2], *wide.shape[-2:])
