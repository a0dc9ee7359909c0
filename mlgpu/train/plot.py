"""Curves as text: lines of Braille characters, 2 by 4 dots each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a cell
_BLANK = 0x2800


@dataclass
class Series:
    """Points of a curve; of very many, every second one is let go again and again."""

    name: str
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    limit: int = 1024
    _every: int = 1
    _seen: int = 0

    def add(self, step: int, value: float) -> None:
        """One more point."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > self.limit:
            self.steps, self.values = self.steps[::2], self.values[::2]
            self._every *= 2


Cell = tuple[str, int | None]  # a character, and which curve it belongs to


def plot(curves: Sequence[tuple[Sequence[int], Sequence[float]]], width: int, height: int
         ) -> tuple[list[list[Cell]], tuple[float, float], tuple[int, int]]:
    """Curves of (steps, values) on a grid of `height` lines of `width` characters.

    Returns the cells, the least and greatest value, and the first and last step.  Values that are
    not finite leave a gap.  Where curves meet, the last one has the cell.
    """
    points = [[(x, y) for x, y in zip(*curve, strict=True) if math.isfinite(y)]
              for curve in curves]
    every = [point for curve in points for point in curve]
    if not every:
        return [[(" ", None)] * width for _ in range(height)], (0.0, 0.0), (0, 0)
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    across, down = 2 * width - 1, 4 * height - 1
    bits = [[0] * width for _ in range(height)]
    owner: list[list[int | None]] = [[None] * width for _ in range(height)]
    for number, curve in enumerate(points):
        places = [(across * (x - left) / (right - left) if right > left else 0.0,
                   down * (high - y) / (high - low) if high > low else down / 2)
                  for x, y in curve]
        for column, row in _line(places):
            bits[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            owner[row // 4][column // 2] = number
    cells: list[list[Cell]] = [
        [(chr(_BLANK + dots) if dots else " ", who) for dots, who in zip(*line, strict=True)]
        for line in zip(bits, owner, strict=True)]
    return cells, (low, high), (left, right)


def _line(places: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """The dots of a line through these places."""
    dots = [(round(x), round(y)) for x, y in places[:1]]
    for (x, y), (to_x, to_y) in itertools.pairwise(places):
        count = max(1, math.ceil(max(abs(to_x - x), abs(to_y - y))))
        dots += [(round(x + (to_x - x) * i / count), round(y + (to_y - y) * i / count))
                 for i in range(1, count + 1)]
    return dots
