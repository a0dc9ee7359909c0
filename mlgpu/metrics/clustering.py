"""Metrics of clusterings: agreement of two labellings whose numbers mean nothing."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from mlgpu.dtypes import float64
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.metrics.metric import Metric, check_alike
from mlgpu.ops.creation import tensor
from mlgpu.tensor import Tensor

__all__ = ["AdjustedRandScore", "CompletenessScore", "HomogeneityScore", "VMeasureScore"]


class _Contingency(Metric):
    """How often each pair of labels occurs: all that is kept, on the host."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: Counter[tuple[int, int]] = Counter()

    def _update(self, preds: Tensor, target: Tensor) -> None:
        name = type(self).__name__
        check_alike(name, preds, target)
        if preds.dtype.kind != "int" or target.dtype.kind != "int":
            raise DTypeError(f"{name}: labels must be integers, got {preds.dtype.name} and "
                             f"{target.dtype.name}")
        if preds.ndim != 1:
            raise ShapeError(f"{name}: expected (n,), got {tuple(preds.shape)}")
        self._pairs.update(zip(target.tolist(), preds.tolist(), strict=True))

    def _merge(self, other: Any) -> None:
        self._pairs.update(other._pairs)

    def reset(self) -> None:
        super().reset()
        self._pairs = Counter()

    def state_dict(self) -> dict[str, Any]:
        """The pairs of labels with their counts."""
        return {"pairs": [[*pair, count] for pair, count in self._pairs.items()],
                "updates": self._updates}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned."""
        self._pairs = Counter({(int(a), int(b)): int(n) for a, b, n in state["pairs"]})
        self._updates = int(state["updates"])

    def _sides(self) -> tuple[Counter[int], Counter[int], int]:
        """Sizes of true classes and of clusters, and the number of samples."""
        if not self._pairs:
            raise ShapeError(f"{type(self).__name__}.compute: there were no samples")
        true: Counter[int] = Counter()
        given: Counter[int] = Counter()
        for (a, b), count in self._pairs.items():
            true[a] += count
            given[b] += count
        return true, given, sum(true.values())

    def _scores(self) -> tuple[float, float]:
        """Homogeneity and completeness: the mutual information over each side's entropy."""
        true, given, total = self._sides()
        shared = sum(n / total * math.log(n * total / (true[a] * given[b]))
                     for (a, b), n in self._pairs.items())
        entropies = [-sum(n / total * math.log(n / total) for n in side.values())
                     for side in (true, given)]
        first, second = (1.0 if h == 0 else max(shared, 0.0) / h for h in entropies)
        return first, second


class HomogeneityScore(_Contingency):
    """1 if each cluster has members of one class only (Rosenberg and Hirschberg 2007)."""

    def compute(self) -> Tensor:
        return tensor(self._scores()[0], dtype=float64)


class CompletenessScore(_Contingency):
    """1 if each class lies in one cluster."""

    def compute(self) -> Tensor:
        return tensor(self._scores()[1], dtype=float64)


class VMeasureScore(_Contingency):
    """The harmonic mean of homogeneity and completeness, the former weighing `beta` times less."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not beta > 0:
            raise ShapeError(f"VMeasureScore: beta must be positive, got {beta}")
        self.beta = beta

    def compute(self) -> Tensor:
        h, c = self._scores()
        below = self.beta * h + c
        return tensor((1 + self.beta) * h * c / below if below else 0.0, dtype=float64)


class AdjustedRandScore(_Contingency):
    """The share of pairs on which both agree, beyond chance (Hubert and Arabie 1985)."""

    def compute(self) -> Tensor:
        true, given, total = self._sides()

        def pairs(sizes: Any) -> float:
            return float(sum(n * (n - 1) // 2 for n in sizes))

        both, a, b = pairs(self._pairs.values()), pairs(true.values()), pairs(given.values())
        expected = a * b / pairs([total]) if total > 1 else 0.0
        most = (a + b) / 2
        return tensor(1.0 if most == expected else (both - expected) / (most - expected),
                      dtype=float64)
