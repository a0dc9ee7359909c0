"""Means of what steps give, weighted by samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlgpu.tensor import Tensor

Sums = dict[str, list[float]]  # name -> [weighted sum, weight]


class Means:
    """Weighted means of named values since the last `clear`.

    Values that are tensors are read when they are needed and not before, so that nobody waits for
    a device at each step; the sums are added up in float64 in the order of the steps.
    """

    def __init__(self) -> None:
        self._sums: Sums = {}
        self._waiting: list[tuple[Mapping[str, Any], float]] = []

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Take in one step's values."""
        self._waiting.append((values, weight))

    def settle(self) -> list[tuple[dict[str, float], float]]:
        """Read what waits and add it up; answers with it, as numbers."""
        settled = [({name: number(value) for name, value in values.items()}, weight)
                   for values, weight in self._waiting]
        self._waiting = []
        for values, weight in settled:
            for name, value in values.items():
                total = self._sums.setdefault(name, [0.0, 0.0])
                total[0] += value * weight
                total[1] += weight
        return settled

    def means(self) -> dict[str, float]:
        """The means so far."""
        self.settle()
        return {name: total / weight for name, (total, weight) in self._sums.items() if weight}

    def clear(self) -> None:
        """Begin anew."""
        self._sums, self._waiting = {}, []

    def state_dict(self) -> Sums:
        """The sums."""
        self.settle()
        return {name: list(pair) for name, pair in self._sums.items()}

    def load_state_dict(self, state: Sums) -> None:
        """Go on from these sums."""
        self._sums, self._waiting = {name: list(pair) for name, pair in state.items()}, []


def number(value: Any) -> float:
    """A Python number of a tensor of one element, or of a number."""
    return float(value.item() if isinstance(value, Tensor) else value)
