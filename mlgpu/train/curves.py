"""Curves as inline SVG: axes, lines, and values for those who hover or cannot see.

Colours come from the page's style sheet by class; lines differ by their dashes as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 36
_MOST_POINTS = 800  # drawn of one curve
_MOST_DOTS = 60  # with a value of their own on hovering
_SMOOTHED_FROM = 80  # points, from which on a mean is drawn over them


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


def number_text(value: float) -> str:
    """A number with at most four digits that count."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.3g}"
    return f"{value:.4g}"


def chart(title: str, curves: Sequence[Curve], number: int,
          text: Callable[[float], str] = number_text) -> str:
    """An SVG element that draws the curves over their steps; `number` is the chart's on its page.

    `text` writes values.

    The value axis is logarithmic where all values are positive and span more than two decades.
    Values that are not finite leave a gap.  Of many points the mean over a fiftieth of them is
    drawn, and the points themselves faintly.
    """
    finite = [[(x, y) for x, y in zip(c.steps, c.values, strict=True) if math.isfinite(y)]
              for c in curves]
    every = [point for points in finite for point in points]
    if not every:
        return f"<p>{escape(title)}: no value is finite.</p>"
    scale = _Scale.of(every)
    named = f'aria-labelledby="t{number} d{number}"'
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {named}>',
             f'<title id="t{number}">{escape(title)}</title>',
             f'<desc id="d{number}">{escape(_described(curves, finite, text))}</desc>',
             *_axes(scale, text)]
    for place, (curve, points) in enumerate(zip(curves, finite, strict=True)):
        if points:
            parts += _drawn(curve, points, scale, place % 4, text)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Scale:
    """From steps and values to places in the picture."""

    first: float
    last: float
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, points: Sequence[tuple[int, float]]) -> _Scale:
        first, last = min(x for x, _ in points), max(x for x, _ in points)
        low, high = min(y for _, y in points), max(y for _, y in points)
        log = low > 0 and high / low > 100
        if log:
            low, high = math.log10(low), math.log10(high)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(first, last, low - margin, high + margin, log)

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def values(self) -> list[float]:
        """Where the value axis has its lines."""
        if not self.log:
            return ticks(self.low, self.high, 5)
        decades = range(math.ceil(self.low), math.floor(self.high) + 1)
        return [10.0 ** decade for decade in decades]


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between low and high: multiples of 1, 2 or 5 times 10^n."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(scale: _Scale, text: Callable[[float], str]) -> list[str]:
    parts = []
    for value in scale.values():
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
                     f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">'
                     f'{escape(text(value))}</text>')
    steps = ticks(scale.first, scale.last, 6) if scale.last > scale.first else [scale.first]
    for step in steps:
        if step == int(step):
            parts.append(f'<text class="tick" x="{scale.x(step)}" y="{HEIGHT - BOTTOM + 18}" '
                         f'text-anchor="middle">{int(step):,}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">'
                 'step</text>')
    return parts


def _drawn(curve: Curve, points: Sequence[tuple[int, float]], scale: _Scale, place: int,
           text: Callable[[float], str]) -> list[str]:
    parts = []
    line = list(points)
    if len(points) >= _SMOOTHED_FROM:
        parts.append(_polyline(_fewer(points), scale, f"raw s{place}"))
        line = _smoothed(points, len(points) // 50)
    if len(points) == 1:
        parts.append(_dot(curve, points[0], scale, place, text))
    else:
        parts.append(_polyline(_fewer(line), scale, f"line s{place}"))
        if len(points) <= _MOST_DOTS:
            parts += [_dot(curve, point, scale, place, text) for point in points]
    return parts


def _polyline(points: Sequence[tuple[int, float]], scale: _Scale, kind: str) -> str:
    places = " ".join(f"{scale.x(x)},{scale.y(y)}" for x, y in points)
    return f'<polyline class="{kind}" points="{places}"/>'


def _dot(curve: Curve, point: tuple[int, float], scale: _Scale, place: int,
         text: Callable[[float], str]) -> str:
    step, value = point
    return (f'<circle class="dot s{place}" cx="{scale.x(step)}" cy="{scale.y(value)}" r="3">'
            f'<title>{escape(curve.name)} {escape(text(value))} at step {step:,}</title></circle>')


def _fewer(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most so many points that a line of them can be told from the line of all: of each piece
    the least and the greatest."""
    size = -(-len(points) // (_MOST_POINTS // 2))
    if size <= 2:
        return list(points)
    kept = []
    for first in range(0, len(points), size):
        piece = points[first:first + size]
        kept += sorted({min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1])})
    return kept


def _smoothed(points: Sequence[tuple[int, float]], reach: int) -> list[tuple[int, float]]:
    """Means over `reach` points to both sides, as far as there are any."""
    totals = [0.0]
    for _, value in points:
        totals.append(totals[-1] + value)
    smooth = []
    for place, (step, _) in enumerate(points):
        first, last = max(0, place - reach), min(len(points), place + reach + 1)
        smooth.append((step, (totals[last] - totals[first]) / (last - first)))
    return smooth


def _described(curves: Sequence[Curve], finite: Sequence[Sequence[tuple[int, float]]],
               text: Callable[[float], str]) -> str:
    sentences = []
    for curve, points in zip(curves, finite, strict=True):
        if not points:
            sentences.append(f"{curve.name}: no value is finite.")
            continue
        low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
        (first, start), (last, end) = points[0], points[-1]
        sentences.append(
            f"{curve.name}: from {text(start)} at step {first:,} to {text(end)} at step "
            f"{last:,}; least {text(low[1])} at step {low[0]:,}, greatest "
            f"{text(high[1])} at step {high[0]:,}.")
    return " ".join(sentences)
