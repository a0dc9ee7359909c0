"""Metrics of classification: from counts of each class, and from the confusion matrix.

`task` is "binary", "multiclass" (give `num_classes`) or "multilabel" (`num_labels`); see
`mlgpu.metrics.classes.Task` for the shapes.  `average` over classes or labels: "micro" counts all
alike, "macro" takes the mean of the classes that occur, "weighted" by their targets, "none" gives
all.
"""

from __future__ import annotations

from typing import Any

from mlgpu.dtypes import float64, int64
from mlgpu.errors import ShapeError
from mlgpu.metrics.classes import Task, confusion
from mlgpu.metrics.metric import Metric, ratio
from mlgpu.ops.creation import arange, zeros
from mlgpu.tensor import Tensor

__all__ = ["Accuracy", "CohenKappa", "ConfusionMatrix", "Dice", "F1Score", "FBetaScore",
           "HammingDistance", "JaccardIndex", "MatthewsCorrCoef", "Precision", "Recall",
           "Specificity", "StatScores"]

AVERAGES = ("micro", "macro", "weighted", "none", None)


class _Counts(Metric):
    """The confusion matrix of all batches, from which everything else follows."""

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, top_k: int = 1, ignore_index: int | None = None
                 ) -> None:
        super().__init__()
        self.task = Task(type(self).__name__, task, num_classes, num_labels, threshold, top_k,
                         ignore_index)
        count = self.task.count
        shape = {"binary": (2, 2), "multiclass": (count, count), "multilabel": (count, 2, 2)}[task]
        self.add_state("counts", zeros(*shape, dtype=int64))

    counts: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        self.counts = self.counts + confusion(self.task, preds, target)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """True and false positives, true and false negatives, of each class; 0-dim if binary."""
        counts = self.counts
        if self.task.task == "multiclass":
            right = counts.diagonal()
            given, true = counts.sum(0), counts.sum(1)
            return right, given - right, counts.sum() - given - true + right, true - right
        return counts[..., 1, 1], counts[..., 0, 1], counts[..., 0, 0], counts[..., 1, 0]


class _Averaged(_Counts):
    """A quantity of the counts of a class, averaged over classes."""

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, average: str | None = "micro", top_k: int = 1,
                 ignore_index: int | None = None) -> None:
        super().__init__(task, threshold, num_classes, num_labels, top_k, ignore_index)
        if average not in AVERAGES:
            raise ShapeError(f"{type(self).__name__}: average must be one of {AVERAGES}, got "
                             f"{average!r}")
        self.average = average

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        """The quantity, from counts of one shape."""
        raise NotImplementedError(f"{type(self).__name__}: of is not defined")

    def compute(self) -> Tensor:
        """The quantity, float64: 0-dim, or (classes,) without an average."""
        tp, fp, tn, fn = self._parts()
        if self.task.task == "binary":
            return self.of(tp, fp, tn, fn)
        if self.average == "micro":
            return self.of(tp.sum(), fp.sum(), tn.sum(), fn.sum())
        each = self.of(tp, fp, tn, fn)
        if self.average in ("none", None):
            return each
        weights = (tp + fn).to(float64)
        if self.average == "macro":
            weights = weights * 0 + 1
            if self.task.task == "multiclass":  # a class that does not occur has no quantity
                weights = weights * (tp + fp + fn > 0)
        return ratio((each * weights).sum(), weights.sum())


class StatScores(_Counts):
    """True and false positives, true and false negatives, and targets, of each class.

    compute() gives (5,) if binary, else (classes, 5), int64.
    """

    def compute(self) -> Tensor:
        from mlgpu.ops.join import stack

        tp, fp, tn, fn = self._parts()
        return stack([tp, fp, tn, fn, tp + fn], -1)


class Accuracy(_Averaged):
    """The share of right predictions; of each class (multiclass), that of its targets."""

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        if self.task.task == "multiclass":
            return ratio(tp, tp + fn)
        return ratio(tp + tn, tp + fp + tn + fn)


class HammingDistance(Accuracy):
    """The share of wrong predictions: 1 - accuracy."""

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        return 1 - super().of(tp, fp, tn, fn)


class Precision(_Averaged):
    """The share of positive predictions that are right."""

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        return ratio(tp, tp + fp)


class Recall(_Averaged):
    """The share of positive targets that are found."""

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        return ratio(tp, tp + fn)


class Specificity(_Averaged):
    """The share of negative targets that are found."""

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        return ratio(tn, tn + fp)


class FBetaScore(_Averaged):
    """The harmonic mean of precision and recall, recall weighing beta² times as much."""

    def __init__(self, task: str, beta: float = 1.0, threshold: float = 0.5,
                 num_classes: int | None = None, num_labels: int | None = None,
                 average: str | None = "micro", top_k: int = 1, ignore_index: int | None = None
                 ) -> None:
        super().__init__(task, threshold, num_classes, num_labels, average, top_k, ignore_index)
        if not beta > 0:
            raise ShapeError(f"{type(self).__name__}: beta must be positive, got {beta}")
        self.beta = beta

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        square = self.beta * self.beta
        return ratio((1 + square) * tp, (1 + square) * tp + square * fn + fp)


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall."""

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, average: str | None = "micro", top_k: int = 1,
                 ignore_index: int | None = None) -> None:
        super().__init__(task, 1.0, threshold, num_classes, num_labels, average, top_k,
                         ignore_index)


class Dice(F1Score):
    """Twice the overlap over the sizes of both masks: the F1 score of elements, as (n, ...)."""


class JaccardIndex(_Averaged):
    """The overlap of predictions and targets over their union; "macro" by default."""

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, average: str | None = "macro",
                 ignore_index: int | None = None) -> None:
        super().__init__(task, threshold, num_classes, num_labels, average, 1, ignore_index)

    def of(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        return ratio(tp, tp + fp + fn)


class ConfusionMatrix(_Counts):
    """Counts by [true, predicted] class: (2, 2), (classes, classes) or (labels, 2, 2).

    `normalize`: divided by the sums of "true" (rows), "pred" (columns), or "all".
    """

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, normalize: str | None = None,
                 ignore_index: int | None = None) -> None:
        super().__init__(task, threshold, num_classes, num_labels, 1, ignore_index)
        if normalize not in ("true", "pred", "all", "none", None):
            raise ShapeError("ConfusionMatrix: normalize must be 'true', 'pred', 'all' or None, "
                             f"got {normalize!r}")
        self.normalize = normalize

    def compute(self) -> Tensor:
        if self.normalize in ("none", None):
            return self.counts
        dims: Any = {"true": -1, "pred": -2, "all": (-2, -1)}[str(self.normalize)]
        return ratio(self.counts, self.counts.sum(dims, keepdim=True).expand(self.counts.shape))


class CohenKappa(_Counts):
    """Agreement beyond chance: 1 - observed / expected disagreement (Cohen 1960).

    Not for multilabel.  `weights`: disagreements count alike (None), or by the "linear" or
    "quadratic" distance of the classes' numbers.
    """

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 weights: str | None = None, ignore_index: int | None = None) -> None:
        super().__init__(task, threshold, num_classes, None, 1, ignore_index)
        if weights not in ("linear", "quadratic", "none", None):
            raise ShapeError("CohenKappa: weights must be 'linear', 'quadratic' or None, got "
                             f"{weights!r}")
        self.weights = weights

    def compute(self) -> Tensor:
        counts = self.counts.to(float64)
        place = arange(len(counts), device=counts.device, dtype=float64)
        apart = (place[:, None] - place).abs()
        if self.weights in ("none", None):
            apart = (apart > 0).to(float64)
        elif self.weights == "quadratic":
            apart = apart * apart
        expected = counts.sum(1)[:, None] * counts.sum(0) / counts.sum().clamp(min=1)
        return 1 - ratio((apart * counts).sum(), (apart * expected).sum())


class MatthewsCorrCoef(_Counts):
    """The correlation of predicted and true classes (Matthews 1975, Gorodkin 2004)."""

    def __init__(self, task: str, threshold: float = 0.5, num_classes: int | None = None,
                 num_labels: int | None = None, ignore_index: int | None = None) -> None:
        super().__init__(task, threshold, num_classes, num_labels, 1, ignore_index)

    def compute(self) -> Tensor:
        counts = self.counts.to(float64)
        counts = counts.sum(0) if counts.ndim == 3 else counts
        true, given, total = counts.sum(1), counts.sum(0), counts.sum()
        shared = counts.diagonal().sum() * total - (true * given).sum()
        spread = (total * total - (true * true).sum()) * (total * total - (given * given).sum())
        return ratio(shared, spread.sqrt())
