"""Numbers that change with the steps of the environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]


@dataclass(frozen=True)
class LinearSchedule:
    """From `start` to `end` in equal parts over `steps`, then `end`."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"LinearSchedule: steps must be at least 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        """The number at a step."""
        share = min(max(step / self.steps, 0.0), 1.0)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class ExponentialSchedule:
    """start * decay ** step, but at least `end`."""

    start: float
    end: float
    decay: float

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"ExponentialSchedule: decay must be above 0 and at most 1, got "
                             f"{self.decay}")

    def __call__(self, step: int) -> float:
        """The number at a step."""
        return max(self.end, self.start * self.decay**step)


def schedule_of(value: float | Schedule) -> Schedule:
    """A schedule, of a number the one that never changes."""
    if callable(value):
        return value
    number = float(value)
    return lambda step: number
