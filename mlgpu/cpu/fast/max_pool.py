"""Max pooling by windows of 2 x 2, two apart, and the linear maps that are its derivatives.

That is the pooling of nearly all models, and all four elements of a window are at hand at once:
a tenth of the time of comparing along one axis after another.  x (P, H, W), y (P, H / 2, W / 2);
`choice`, as y, is the number of a window's largest element, 0 to 3 in row-major order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled

Array = Any


@compiled
def maximum(x: Array, y: Array, choice: Array) -> None:
    """y = the maximum of each window; its first place, or the last that is NaN."""
    for plane in range(x.shape[0]):
        for row in range(y.shape[1]):
            upper, lower = x[plane, 2 * row], x[plane, 2 * row + 1]
            best, chosen = y[plane, row], choice[plane, row]
            for q in range(len(best)):
                value, place = upper[2 * q], np.uint8(0)
                other = upper[2 * q + 1]
                wins = (other > value) | (other != other)
                value, place = other if wins else value, np.uint8(1) if wins else place
                other = lower[2 * q]
                wins = (other > value) | (other != other)
                value, place = other if wins else value, np.uint8(2) if wins else place
                other = lower[2 * q + 1]
                wins = (other > value) | (other != other)
                best[q] = other if wins else value
                chosen[q] = np.uint8(3) if wins else place


@compiled
def choose(x: Array, choice: Array, y: Array) -> None:
    """y = the element of each window that `choice` names."""
    for plane in range(x.shape[0]):
        for row in range(y.shape[1]):
            upper, lower = x[plane, 2 * row], x[plane, 2 * row + 1]
            out, chosen = y[plane, row], choice[plane, row]
            for q in range(len(out)):
                place = chosen[q]
                left = upper[2 * q] if place < 2 else lower[2 * q]
                right = upper[2 * q + 1] if place < 2 else lower[2 * q + 1]
                out[q] = right if place & 1 else left


@compiled
def unchoose(y: Array, choice: Array, x: Array) -> None:
    """x = each element of y where `choice` says, zero elsewhere."""
    zero = x.dtype.type(0)
    for plane in range(x.shape[0]):
        for row in range(y.shape[1]):
            given, chosen = y[plane, row], choice[plane, row]
            upper, lower = x[plane, 2 * row], x[plane, 2 * row + 1]
            for q in range(len(given)):
                value, place = given[q], chosen[q]
                upper[2 * q] = value if place == 0 else zero
                upper[2 * q + 1] = value if place == 1 else zero
            for q in range(len(given)):
                value, place = given[q], chosen[q]
                lower[2 * q] = value if place == 2 else zero
                lower[2 * q + 1] = value if place == 3 else zero
            upper[2 * len(given):] = zero
            lower[2 * len(given):] = zero
        x[plane, 2 * y.shape[1]:] = zero
