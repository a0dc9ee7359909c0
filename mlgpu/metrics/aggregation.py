"""Running sums, means and extrema of numbers, and how fast something goes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from mlgpu.dtypes import float64
from mlgpu.errors import ShapeError
from mlgpu.metrics.metric import Metric, ratio
from mlgpu.ops.creation import full
from mlgpu.tensor import Tensor

__all__ = ["CatMetric", "MaxMetric", "MeanMetric", "MinMetric", "RunningMean", "SumMetric",
           "Throughput"]

Value = Tensor | float


class MeanMetric(Metric):
    """The mean of all values, each times its weight: update(value, weight=1)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("weight", 0.0)

    total: Tensor
    weight: Tensor

    def _update(self, value: Value, weight: Value = 1.0) -> None:
        values = self._numbers(value)
        weights = self._numbers(weight).to(values.device).expand(values.shape)
        self.total = self.total + (values * weights).sum()
        self.weight = self.weight + weights.sum()

    def compute(self) -> Tensor:
        return ratio(self.total, self.weight)


class SumMetric(Metric):
    """The sum of all values."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)

    total: Tensor

    def _update(self, value: Value) -> None:
        self.total = self.total + self._numbers(value).sum()

    def compute(self) -> Tensor:
        return self.total


class MaxMetric(Metric):
    """The largest value; -inf of none, NaN if any is."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value", full((), -float("inf"), dtype=float64), "max")

    value: Tensor

    def _update(self, value: Value) -> None:
        values = self._numbers(value)
        if values.numel():
            self.value = self.value.maximum(values.max())

    def compute(self) -> Tensor:
        return self.value


class MinMetric(Metric):
    """The smallest value; inf of none, NaN if any is."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value", full((), float("inf"), dtype=float64), "min")

    value: Tensor

    def _update(self, value: Value) -> None:
        values = self._numbers(value)
        if values.numel():
            self.value = self.value.minimum(values.min())

    def compute(self) -> Tensor:
        return self.value


class CatMetric(Metric):
    """All values, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value", [])

    value: list[Tensor]

    def _update(self, value: Value) -> None:
        self.value = [*self.value, self._numbers(value).reshape(-1)]

    def compute(self) -> Tensor:
        return self._all("value")


class RunningMean(Metric):
    """The mean of the means of the last `window` updates."""

    def __init__(self, window: int = 5) -> None:
        super().__init__()
        if window < 1:
            raise ShapeError(f"RunningMean: window must be positive, got {window}")
        self.window = window
        self.add_state("value", [])

    value: list[Tensor]

    def _update(self, value: Value) -> None:
        self.value = [*self.value, self._numbers(value).mean().reshape(1)][-self.window:]

    def _merge(self, other: Any) -> None:
        self.value = [*self.value, *other.value][-self.window:]

    def compute(self) -> Tensor:
        from mlgpu.ops.join import cat

        if not self.value:
            raise ShapeError("RunningMean.compute: there were no updates")
        return cat(self.value).mean()


class Throughput(Metric):
    """Items in a second over the last `window` updates: update(items, seconds=None).

    Without `seconds` the time since the update before counts (the first one only starts the clock).
    An item's work on a device is not waited for.  0 before there is a time.
    """

    def __init__(self, window: int = 100) -> None:
        super().__init__()
        if window < 1:
            raise ShapeError(f"Throughput: window must be positive, got {window}")
        self.window = window
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._seen: deque[tuple[float, float]] = deque(maxlen=self.window)
        self._clock: float | None = None

    def _update(self, items: float, seconds: float | None = None) -> None:
        now = time.monotonic()
        if seconds is None and self._clock is not None:
            seconds = now - self._clock
        self._clock = now
        if seconds is not None:
            self._seen.append((float(items), float(seconds)))

    def _merge(self, other: Any) -> None:
        self._seen.extend(other._seen)

    def compute(self) -> float:
        """Items in a second."""
        seconds = sum(s for _, s in self._seen)
        return sum(n for n, _ in self._seen) / seconds if seconds > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What was seen; the clock starts anew."""
        return {"seen": [list(pair) for pair in self._seen], "updates": self._updates}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned."""
        self.reset()
        self._seen.extend((float(n), float(s)) for n, s in state["seen"])
        self._updates = int(state["updates"])
