"""Losses on the device that look at their inputs' values; what is wrong is raised later."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import faults, rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty, zeros
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError


def binary_cross_entropy(x: Any, target: Any, wrong_input: str, wrong_target: str) -> Any:
    """The loss of each element; the messages are raised for values outside [0, 1]."""
    x, target = contiguous(x), contiguous(target)
    y = empty(x.shape, x.dtype)
    width = rows.vector(x.size, y, x, target)
    types = f"{ctype(x.dtype)}, {ctype(rows.wide(x.dtype))}, {width}"
    launch("loss", f"binary_cross_entropy<{types}>", -(-x.size // (256 * width)), 256,
           (y, x, target, x.size // width, faults.fault(), faults.site(wrong_input, ShapeError),
            faults.site(wrong_target, ShapeError)))
    return y


def variance_lift(var: Any, least: float, wrong: str) -> Any:
    """What is missing from each variance to `least`; `wrong` is raised for a negative one."""
    var = contiguous(var)
    lift = empty(var.shape, var.dtype)
    width = rows.vector(var.size, lift, var)
    launch("loss", f"variance_lift<{ctype(var.dtype)}, {ctype(rows.wide(var.dtype))}, {width}>",
           -(-var.size // (256 * width)), 256,
           (lift, var, var.size // width, least, faults.fault(), faults.site(wrong, ShapeError)))
    return lift


def multilabel_margin(x: Any, target: Any, name: str) -> tuple[Any, Any]:
    """The loss of each row, and its slope in each score."""
    x, target = contiguous(x), contiguous(target)
    count, classes = x.shape
    losses, slope = empty((count,), x.dtype), empty(x.shape, rows.wide(x.dtype))
    labelled, counts = zeros(x.shape, np.dtype(np.uint8)), zeros(x.shape, np.dtype(np.int32))
    site = faults.site(f"{name}: target {{value}} is out of range for {{bound}} classes")
    launch("loss", f"multilabel_margin<{ctype(x.dtype)}, {ctype(slope.dtype)}>", count, 256,
           (losses, slope, labelled, counts, x, target, classes, faults.fault(), site))
    return losses, slope
