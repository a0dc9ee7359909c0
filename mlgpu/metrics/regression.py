"""Metrics of regression: sums of errors, and moments that batches merge without loss."""

from __future__ import annotations

from typing import Any

from mlgpu.dtypes import float64
from mlgpu.errors import ShapeError
from mlgpu.metrics.metric import Metric, check_alike, ratio
from mlgpu.ops.choice import where
from mlgpu.ops.creation import zeros
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

__all__ = ["ConcordanceCorrCoef", "CosineSimilarity", "ExplainedVariance", "MeanAbsoluteError",
           "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogError",
           "MinkowskiDistance", "PearsonCorrCoef", "R2Score", "SpearmanCorrCoef",
           "SymmetricMeanAbsolutePercentageError", "WeightedMeanAbsolutePercentageError"]

_SMALLEST = 1.17e-06  # below which a percentage is not taken of a number, as in torchmetrics


class _MeanError(Metric):
    """The mean over all elements of an error, or with `num_outputs` over each of the columns."""

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        shape = () if num_outputs == 1 else (num_outputs,)
        self.add_state("total", zeros(*shape, dtype=float64))
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}: _error is not defined")

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike(type(self).__name__, preds, target)
        errors = self._error(preds.to(float64), target.to(float64))
        if self.num_outputs == 1:
            self.total = self.total + errors.sum()
            self.count = self.count + errors.numel()
            return
        if errors.ndim != 2 or errors.shape[1] != self.num_outputs:
            raise ShapeError(f"{type(self).__name__}: expected (n, {self.num_outputs}), got "
                             f"{tuple(errors.shape)}")
        self.total = self.total + errors.sum(0)
        self.count = self.count + len(errors)

    def compute(self) -> Tensor:
        return ratio(self.total, self.count.expand(self.total.shape))


class MeanSquaredError(_MeanError):
    """The mean of (preds - target)², or its root if not `squared`."""

    def __init__(self, squared: bool = True, num_outputs: int = 1) -> None:
        super().__init__(num_outputs)
        self.squared = squared

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds - target).square()

    def compute(self) -> Tensor:
        mean = super().compute()
        return mean if self.squared else mean.sqrt()


class MeanAbsoluteError(_MeanError):
    """The mean of |preds - target|."""

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds - target).abs()


class MeanSquaredLogError(_MeanError):
    """The mean of (log(1 + preds) - log(1 + target))²."""

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds.log1p() - target.log1p()).square()


class MeanAbsolutePercentageError(_MeanError):
    """The mean of |preds - target| / |target|, as a share (not times 100)."""

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return (preds - target).abs() / target.abs().clamp(min=_SMALLEST)


class SymmetricMeanAbsolutePercentageError(_MeanError):
    """The mean of 2 |preds - target| / (|preds| + |target|)."""

    def _error(self, preds: Tensor, target: Tensor) -> Tensor:
        return 2 * (preds - target).abs() / (preds.abs() + target.abs()).clamp(min=_SMALLEST)


class WeightedMeanAbsolutePercentageError(Metric):
    """The sum of |preds - target| over that of |target|."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("scale", 0.0)

    total: Tensor
    scale: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike(type(self).__name__, preds, target)
        self.total = self.total + (preds.to(float64) - target.to(float64)).abs().sum()
        self.scale = self.scale + target.to(float64).abs().sum()

    def compute(self) -> Tensor:
        return self.total / self.scale.clamp(min=_SMALLEST)


class MinkowskiDistance(Metric):
    """(The sum of |preds - target|^p)^(1/p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if p < 1:
            raise ShapeError(f"MinkowskiDistance: p must be at least 1, got {p}")
        self.p = p
        self.add_state("total", 0.0)

    total: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike("MinkowskiDistance", preds, target)
        apart = (preds.to(float64) - target.to(float64)).abs()
        self.total = self.total + (apart ** self.p).sum()

    def compute(self) -> Tensor:
        return self.total ** (1 / self.p)


class CosineSimilarity(Metric):
    """The mean over rows (n, features) of cos(preds, target), or the sum."""

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ShapeError("CosineSimilarity: reduction must be 'sum' or 'mean', got "
                             f"{reduction!r}")
        self.reduction = reduction
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike("CosineSimilarity", preds, target)
        if preds.ndim != 2:
            raise ShapeError(f"CosineSimilarity: expected (n, features), got {tuple(preds.shape)}")
        a, b = preds.to(float64), target.to(float64)
        size = (a.square().sum(1) * b.square().sum(1)).sqrt()
        self.total = self.total + ratio((a * b).sum(1), size).sum()
        self.count = self.count + len(preds)

    def compute(self) -> Tensor:
        return self.total if self.reduction == "sum" else ratio(self.total, self.count)


class _Moments(Metric):
    """Means and centred second moments of pairs (x, y), by column.

    Batches merge as in Chan, Golub and LeVeque 1983, so that no digits are lost to large means.
    """

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        shape = () if num_outputs == 1 else (num_outputs,)
        self.add_state("count", 0.0)
        for name in ("mean_x", "mean_y", "xx", "yy", "xy"):
            self.add_state(name, zeros(*shape, dtype=float64))

    count: Tensor
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        name = type(self).__name__
        check_alike(name, preds, target)
        wide = 1 if self.num_outputs == 1 else 2
        if (preds.ndim != wide and not (wide == 1 and preds.ndim == 2 and preds.shape[1] == 1)) or (
                wide == 2 and preds.shape[1] != self.num_outputs):
            shape = "(n,)" if wide == 1 else f"(n, {self.num_outputs})"
            raise ShapeError(f"{name}: expected {shape}, got {tuple(preds.shape)}; num_outputs "
                             "says how many columns there are")
        if not len(preds):
            return
        x, y = preds.to(float64), target.to(float64)
        x, y = (x.reshape(-1), y.reshape(-1)) if wide == 1 else (x, y)
        mean_x, mean_y = x.mean(0), y.mean(0)
        dx, dy = x - mean_x, y - mean_y
        self._join(self.count * 0 + len(x), mean_x, mean_y, dx.square().sum(0),
                   dy.square().sum(0), (dx * dy).sum(0))

    def _join(self, count: Tensor, mean_x: Tensor, mean_y: Tensor, xx: Tensor, yy: Tensor,
              xy: Tensor) -> None:
        total = self.count + count
        dx, dy, both = mean_x - self.mean_x, mean_y - self.mean_y, self.count * count / total
        self.mean_x = self.mean_x + dx * (count / total)
        self.mean_y = self.mean_y + dy * (count / total)
        self.xx = self.xx + xx + dx * dx * both
        self.yy = self.yy + yy + dy * dy * both
        self.xy = self.xy + xy + dx * dy * both
        self.count = total

    def _merge(self, other: Any) -> None:
        if int(other.count):
            self._join(other.count, other.mean_x, other.mean_y, other.xx, other.yy, other.xy)

    def _residual(self) -> Tensor:
        """The sum of squares of x - y."""
        spread = self.xx - 2 * self.xy + self.yy
        apart = self.mean_x - self.mean_y
        return spread + self.count * apart * apart


class _Explained(_Moments):
    """How much of the targets' variance is explained, over columns as `multioutput` says.

    "uniform_average", "raw_values", or "variance_weighted".
    """

    def __init__(self, num_outputs: int = 1, multioutput: str = "uniform_average") -> None:
        super().__init__(num_outputs)
        if multioutput not in ("uniform_average", "raw_values", "variance_weighted"):
            raise ShapeError(f"{type(self).__name__}: multioutput must be 'uniform_average', "
                             f"'raw_values' or 'variance_weighted', got {multioutput!r}")
        self.multioutput = multioutput

    def _share(self, unexplained: Tensor) -> Tensor:
        constant = self.yy == 0  # as in scikit-learn: 1 if met, else 0
        share = where(constant, (unexplained == 0).to(float64),
                      1 - unexplained / where(constant, 1.0, self.yy))
        if self.num_outputs == 1 or self.multioutput == "raw_values":
            return share
        if self.multioutput == "variance_weighted":
            return ratio((share * self.yy).sum(), self.yy.sum())
        return share.mean()


class R2Score(_Explained):
    """1 - sum of (preds - target)² / sum of (target - mean)²; `adjusted` by that many regressors.

    Inputs (n,) or (n, num_outputs).
    """

    def __init__(self, num_outputs: int = 1, adjusted: int = 0,
                 multioutput: str = "uniform_average") -> None:
        super().__init__(num_outputs, multioutput)
        if adjusted < 0:
            raise ShapeError(f"R2Score: adjusted must be at least 0, got {adjusted}")
        self.adjusted = adjusted

    def compute(self) -> Tensor:
        if float(self.count) < 2:
            raise ShapeError(f"R2Score.compute: needs at least two samples, got {int(self.count)}")
        score = self._share(self._residual())
        if self.adjusted == 0:
            return score
        return 1 - (1 - score) * (self.count - 1) / (self.count - self.adjusted - 1)


class ExplainedVariance(_Explained):
    """1 - variance of (target - preds) / variance of target: R² but for a constant offset."""

    def compute(self) -> Tensor:
        return self._share(self.xx - 2 * self.xy + self.yy)


class PearsonCorrCoef(_Moments):
    """The correlation of predictions and targets, (n,) or (n, num_outputs)."""

    def compute(self) -> Tensor:
        return ratio(self.xy, (self.xx * self.yy).sqrt()).clamp(-1, 1)


class ConcordanceCorrCoef(_Moments):
    """2 covariance / (variances + squared difference of means) (Lin 1989)."""

    def compute(self) -> Tensor:
        apart = self.mean_x - self.mean_y
        return ratio(2 * self.xy, self.xx + self.yy + self.count * apart * apart)


class SpearmanCorrCoef(Metric):
    """The correlation of ranks, (n,); equal values share the mean of their ranks.

    Keeps all values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("preds", [])
        self.add_state("target", [])

    preds: list[Tensor]
    target: list[Tensor]

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike("SpearmanCorrCoef", preds, target)
        if preds.ndim != 1:
            raise ShapeError(f"SpearmanCorrCoef: expected (n,), got {tuple(preds.shape)}")
        self.preds = [*self.preds, preds.to(float64)]
        self.target = [*self.target, target.to(float64)]

    def compute(self) -> Tensor:
        both = PearsonCorrCoef()
        both.update(ranks(self._all("preds")), ranks(self._all("target")))
        return both.compute()


def ranks(x: Tensor) -> Tensor:
    """Ranks from 1, float64; equal values get the mean of theirs."""
    found, place, count = x.unique(return_inverse=True, return_counts=True)
    del found
    ends = count.cumsum(0).to(float64)
    starts = cat([ends.new_zeros(1), ends[:-1]])
    middle: Tensor = (starts + 1 + ends) / 2
    return middle[place]
