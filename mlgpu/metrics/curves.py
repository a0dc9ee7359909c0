"""Metrics of scores at all thresholds, and of how well scores are probabilities."""

from __future__ import annotations

from mlgpu.dtypes import float64, int64
from mlgpu.errors import ShapeError
from mlgpu.metrics.classes import Task
from mlgpu.metrics.metric import Metric, ratio
from mlgpu.ops.creation import linspace, zeros
from mlgpu.ops.join import cat, stack
from mlgpu.ops.search import bucketize
from mlgpu.tensor import Tensor

__all__ = ["AUROC", "AveragePrecision", "CalibrationError", "LogLoss"]


class _Curve(Metric):
    """Scores and targets of all batches or, with `thresholds`, counts between that many of them.

    `average` over classes (each against the rest) or labels: "macro", "weighted" by their targets,
    "micro" (multilabel: all labels as one), "none".
    """

    def __init__(self, task: str, thresholds: int | None = None, num_classes: int | None = None,
                 num_labels: int | None = None, average: str | None = "macro",
                 ignore_index: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        self.task = Task(name, task, num_classes, num_labels, 0.5, 1, ignore_index)
        choices = ["macro", "weighted", "none", None] + ["micro"] * (task == "multilabel")
        if average not in choices:
            raise ShapeError(f"{name}: average must be one of {choices}, got {average!r}")
        if thresholds is not None and thresholds < 2:
            raise ShapeError(f"{name}: thresholds must be None or at least 2, got {thresholds}")
        self.average, self.thresholds = average, thresholds
        if thresholds is None:
            self.add_state("preds", [])
            self.add_state("target", [])
        else:
            # How many scores of each class reach as many thresholds; negative and positive ones.
            self.add_state("counts", zeros(self.task.count, 2, thresholds + 1, dtype=int64))

    preds: list[Tensor]
    target: list[Tensor]
    counts: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = self.task.scores(preds, target)
        if self.thresholds is None:
            self.preds = [*self.preds, preds.to(float64)]
            self.target = [*self.target, target]
            return
        steps = linspace(0, 1, self.thresholds, dtype=preds.dtype, device=preds.device)
        for number, (scores, truth) in enumerate(self._each(preds, target)):
            place = bucketize(scores, steps, right=True)
            size = self.thresholds + 1
            found = (truth * size + place).bincount(minlength=2 * size)
            self.counts[number] += found.reshape(2, size)

    def _each(self, preds: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Scores and bits of each class or label."""
        ignored = self.task.ignore_index
        if self.task.task == "binary":
            return [(preds, target)]
        if self.task.task == "multiclass":
            return [(preds[:, c], (target == c).to(int64)) for c in range(self.task.count)]
        return [_kept(preds[:, c], target[:, c], ignored) for c in range(self.task.count)]

    def _sums(self) -> list[tuple[Tensor, Tensor]]:
        """Of each class, how many positives and negatives reach each threshold, highest first."""
        if self.thresholds is not None:
            return [(c[1].flip(0).cumsum(0), c[0].flip(0).cumsum(0)) for c in self.counts]
        preds, target = self._all("preds"), self._all("target")
        if self.task.task == "multilabel" and self.average == "micro":
            return [_reached(*_kept(preds.reshape(-1), target.reshape(-1),
                                    self.task.ignore_index))]
        return [_reached(*pair) for pair in self._each(preds, target)]

    def area(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """The quantity, from how many reach each threshold."""
        raise NotImplementedError(f"{type(self).__name__}: area is not defined")

    def compute(self) -> Tensor:
        """The area, float64: 0-dim, or (classes,) without an average."""
        sums = self._sums()
        if self.average == "micro" and self.thresholds is not None and len(sums) > 1:
            sums = [(stack([p for p, _ in sums]).sum(0), stack([n for _, n in sums]).sum(0))]
        each = stack([self.area(p.to(float64), n.to(float64)) for p, n in sums])
        if len(sums) == 1 and (self.task.task == "binary" or self.average == "micro"):
            return each[0]
        if self.average in ("none", None):
            return each
        weights = stack([p[-1].to(float64) for p, _ in sums])
        if self.average == "macro":
            weights = weights * 0 + 1
        return ratio((each * weights).sum(), weights.sum())


def _kept(preds: Tensor, target: Tensor, ignored: int | None) -> tuple[Tensor, Tensor]:
    if ignored is None:
        return preds, target
    kept = target != ignored
    return preds[kept], target[kept]


def _reached(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Counts of positives and negatives down to each different score; 0 first."""
    order = scores.argsort(descending=True, stable=True)
    scores, truth = scores[order], truth[order].to(int64)
    last = scores[1:] != scores[:-1]
    last = cat([last, last.new_ones(min(len(scores), 1))])  # of each run of equal scores
    none = zeros(1, dtype=int64, device=scores.device)
    return (cat([none, truth.cumsum(0)[last]]), cat([none, (1 - truth).cumsum(0)[last]]))


class AUROC(_Curve):
    """The area under the ROC curve: how likely a positive scores above a negative (ties: half).

    0 where there are no positives or no negatives.
    """

    def area(self, positives: Tensor, negatives: Tensor) -> Tensor:
        steps = negatives[1:] - negatives[:-1]
        total = (steps * (positives[1:] + positives[:-1]) / 2).sum()
        return ratio(total, positives[-1] * negatives[-1])


class AveragePrecision(_Curve):
    """The area under precision and recall: the mean over positives of precision there.

    As sums, without interpolation; 0 where there are no positives.
    """

    def area(self, positives: Tensor, negatives: Tensor) -> Tensor:
        precision = ratio(positives[1:], positives[1:] + negatives[1:])
        return ratio(((positives[1:] - positives[:-1]) * precision).sum(), positives[-1])


class CalibrationError(Metric):
    """How far the share of right predictions is from the confidence, in `n_bins` bins of it.

    `norm`: the mean of distances weighted by the bins' sizes ("l1", the expected calibration
    error), the root of that of squares ("l2"), or the largest ("max").  binary: of the positive
    class; multiclass: of the predicted one.  Guo et al. 2017.
    """

    def __init__(self, task: str, n_bins: int = 15, norm: str = "l1",
                 num_classes: int | None = None, ignore_index: int | None = None) -> None:
        super().__init__()
        if norm not in ("l1", "l2", "max"):
            raise ShapeError(f"CalibrationError: norm must be 'l1', 'l2' or 'max', got {norm!r}")
        if n_bins < 1:
            raise ShapeError(f"CalibrationError: n_bins must be positive, got {n_bins}")
        if task == "multilabel":
            raise ShapeError("CalibrationError: task must be 'binary' or 'multiclass'")
        self.task = Task("CalibrationError", task, num_classes, None, 0.5, 1, ignore_index)
        self.n_bins, self.norm = n_bins, norm
        self.add_state("count", zeros(n_bins, dtype=float64))
        self.add_state("confidence", zeros(n_bins, dtype=float64))
        self.add_state("right", zeros(n_bins, dtype=float64))

    count: Tensor
    confidence: Tensor
    right: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = self.task.scores(preds, target)
        if self.task.task == "binary":
            confidence, right = preds.to(float64), target
        else:
            best = preds.max(1)
            confidence, right = best.values.to(float64), best.indices == target
        edges = linspace(0, 1, self.n_bins + 1, dtype=float64, device=preds.device)
        place = (bucketize(confidence, edges, right=True) - 1).clamp(max=self.n_bins - 1)
        for name, value in (("count", confidence * 0 + 1), ("confidence", confidence),
                            ("right", right.to(float64))):
            setattr(self, name, getattr(self, name).index_add(0, place, value))

    def compute(self) -> Tensor:
        apart = (ratio(self.right, self.count) - ratio(self.confidence, self.count)).abs()
        share = ratio(self.count, self.count.sum().expand(self.n_bins))
        if self.norm == "l1":
            return (apart * share).sum()
        return (apart * apart * share).sum().sqrt() if self.norm == "l2" else apart.max()


class LogLoss(Metric):
    """The mean of -log of the probability of the target, in [eps, 1 - eps]; lower is better."""

    def __init__(self, task: str, num_classes: int | None = None, num_labels: int | None = None,
                 eps: float = 1e-15, ignore_index: int | None = None) -> None:
        super().__init__()
        self.task = Task("LogLoss", task, num_classes, num_labels, 0.5, 1, ignore_index)
        self.eps = eps
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        preds, target = self.task.scores(preds, target)
        preds = preds.to(float64)
        if self.task.task == "multiclass":
            chosen = preds.gather(1, target[:, None])[:, 0]
        else:
            preds, target = _kept(preds.reshape(-1), target.reshape(-1), self.task.ignore_index)
            chosen = preds * target + (1 - preds) * (1 - target)
        chosen = chosen.clamp(self.eps, 1 - self.eps)
        self.total = self.total - chosen.log().sum()
        self.count = self.count + len(chosen)

    def compute(self) -> Tensor:
        return ratio(self.total, self.count)
