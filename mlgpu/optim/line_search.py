"""A line search for the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5, 3.6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from mlgpu.tensor import Tensor

DECREASE, CURVATURE = 1e-4, 0.9  # the conditions' constants, for quasi-Newton steps
TRIALS = 25
SMALLEST = 1e-9  # of a bracket, times the direction's largest element


class Point(NamedTuple):
    """Where a step of `size` leads: the loss, the gradient, and its slope along the direction."""

    size: float
    loss: float
    gradient: Tensor
    slope: float


def strong_wolfe(at: Callable[[float], Point], start: Point, size: float, largest: float) -> Point:
    """The point `at` a step near `size` where loss and slope are much lower than at `start`.

    `largest` is the direction's largest element.  After 25 trials the best of the bracket is taken.
    """
    def too_high(point: Point) -> bool:
        return point.loss > start.loss + DECREASE * point.size * start.slope

    def flat(point: Point) -> bool:
        return abs(point.slope) <= -CURVATURE * start.slope

    before, point, trials = start, at(size), 0
    while trials < TRIALS:  # until the two enclose such a point
        if too_high(point) or (trials > 1 and point.loss >= before.loss):
            break
        if flat(point):
            return point
        if point.slope >= 0:
            break
        low = point.size + 0.01 * (point.size - before.size)
        before, point = point, at(cubic_minimum(before, point, low, point.size * 10))
        trials += 1
    else:
        before = start
    best, other = (before, point) if before.loss <= point.loss else (point, before)
    stalled = False
    while trials < TRIALS and abs(best.size - other.size) * largest >= SMALLEST:
        low, high = sorted((best.size, other.size))
        size, margin = cubic_minimum(before, point, low, high), 0.1 * (high - low)
        if min(high - size, size - low) >= margin:
            stalled = False
        elif stalled or not low < size < high:  # too near an end, twice in turn or on it
            size = high - margin if abs(size - high) < abs(size - low) else low + margin
            stalled = False
        else:
            stalled = True
        found = at(size)
        trials += 1
        if too_high(found) or found.loss >= best.loss:
            best, other = (best, found) if best.loss <= found.loss else (found, best)
        elif flat(found):
            return found
        else:
            if found.slope * (other.size - best.size) >= 0:
                other = best
            best = found
        before, point = best, other
    return best


def cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two losses with these slopes is lowest, within [low, high]."""
    if a.size > b.size:
        a, b = b, a
    if a.size == b.size:
        return (low + high) / 2
    inner = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.size - b.size)
    square = inner * inner - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    root = math.sqrt(square)
    below = b.slope - a.slope + 2 * root
    if below == 0:
        return (low + high) / 2
    least = b.size - (b.size - a.size) * ((b.slope + root - inner) / below)
    return min(max(least, low), high)
