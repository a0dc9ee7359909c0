"""Smooth stand-ins for zeros and ones (Maddison et al., 2017; Jang et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.distributions import constraints
from mlgpu.distributions.categorical import OfCategories, OneHotCategorical
from mlgpu.distributions.discrete import _Probability
from mlgpu.distributions.transformed import TransformedDistribution
from mlgpu.distributions.transforms import ExpTransform, SigmoidTransform
from mlgpu.ops.choice import where
from mlgpu.ops.creation import as_tensor
from mlgpu.ops.random import rand
from mlgpu.tensor import Tensor


def _uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers in (0, 1): both ends would be infinite."""
    return rand(*shape, dtype=like.dtype, device=like.device).clamp(2.0**-24, 1 - 2.0**-24)


class LogitRelaxedBernoulli(_Probability):
    """The logits of RelaxedBernoulli."""

    has_rsample = True
    support = constraints.real

    def __init__(self, temperature: Tensor | float, probs: Tensor | float | None = None,
                 logits: Tensor | float | None = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        self._temperature = [temperature]  # not a parameter of the batch

    @property
    def temperature(self) -> Any:
        """How smooth: towards 0 values come close to 0 and 1."""
        return self._temperature[0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Logistic numbers around the logits, over the temperature."""
        u = _uniform(self._extended_shape(sample_shape), self._parameter)
        return (u.log() - (-u).log1p() + self.logits) / self.temperature  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        t = as_tensor(self.temperature, dtype=value.dtype, device=value.device)
        apart = self.logits - value * t
        return t.log() + apart - 2 * apart.exp().log1p()


class _Relaxed(TransformedDistribution):
    """What it stands for is that of the distribution which is transformed."""

    @property
    def temperature(self) -> Any:
        """How smooth."""
        return self.base_dist.temperature  # type: ignore[attr-defined]

    @property
    def probs(self) -> Tensor:
        """The probabilities that it stands for."""
        return self.base_dist.probs  # type: ignore[attr-defined,no-any-return]

    @property
    def logits(self) -> Tensor:
        """Their logits, of categories their logarithms."""
        return self.base_dist.logits  # type: ignore[attr-defined,no-any-return]


class RelaxedBernoulli(_Relaxed):
    """Numbers between 0 and 1, most of them close to an end where `temperature` is low."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval

    def __init__(self, temperature: Tensor | float, probs: Tensor | float | None = None,
                 logits: Tensor | float | None = None, validate_args: bool | None = None) -> None:
        super().__init__(LogitRelaxedBernoulli(temperature, probs, logits, validate_args),
                         SigmoidTransform())


class ExpRelaxedCategorical(OfCategories):
    """The logarithms of RelaxedOneHotCategorical's values."""

    has_rsample = True
    support = constraints.real_vector

    def __init__(self, temperature: Tensor | float, probs: Tensor | None = None,
                 logits: Tensor | None = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        self._temperature = [temperature]

    @property
    def temperature(self) -> Any:
        """How smooth."""
        return self._temperature[0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Gumbel numbers added to the logits, over the temperature, normalised."""
        u = _uniform(self._extended_shape(sample_shape), self.logits)
        scores = (self.logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        k = self._event_shape[0]
        t = as_tensor(self.temperature, dtype=value.dtype, device=value.device)
        score = self.logits - value * t
        score = (score - score.logsumexp(-1, keepdim=True)).sum(-1)
        return score + (k - 1) * t.log() + math.lgamma(k)


class RelaxedOneHotCategorical(_Relaxed):
    """Vectors that add up to 1, most of them close to a corner where `temperature` is low."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}  # noqa: RUF012
    support = constraints.simplex

    def __init__(self, temperature: Tensor | float, probs: Tensor | None = None,
                 logits: Tensor | None = None, validate_args: bool | None = None) -> None:
        super().__init__(ExpRelaxedCategorical(temperature, probs, logits, validate_args),
                         ExpTransform())


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """As OneHotCategorical; `rsample` gives its vectors with the gradient of the probabilities."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors with a single 1."""
        drawn = self.sample(sample_shape)
        return drawn + (self.probs - self.probs.detach())


class ContinuousBernoulli(_Probability):
    """Numbers between 0 and 1 of density ~ p^x (1 - p)^(1 - x) (Loaiza-Ganem and Cunningham, 2019).

    Close to p = 0.5 the constant is a Taylor series.
    """

    has_rsample = True
    support = constraints.unit_interval

    def _apart(self) -> tuple[Tensor, Tensor]:
        """Where p is not close to 0.5, and p with another value where it is."""
        p = self.probs.clamp(2.0**-23, 1 - 2.0**-23)
        apart = (p < 0.499) | (p > 0.501)
        return apart, where(apart, p, 0.499)

    def _log_constant(self) -> Tensor:
        apart, p = self._apart()
        usual = ((-p).log1p() - p.log()).abs().log() - (1 - 2 * p).abs().log()
        x = (self.probs - 0.5).square()
        return where(apart, usual, math.log(2) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> Tensor:
        """The expected value, which is not p."""
        apart, p = self._apart()
        usual = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        x = self.probs - 0.5
        return where(apart, usual, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x)

    @property
    def variance(self) -> Tensor:
        """The expected square of the distance from the mean."""
        apart, p = self._apart()
        usual = p * (p - 1) / (1 - 2 * p).square() + 1 / ((-p).log1p() - p.log()).square()
        x = (self.probs - 0.5).square()
        return where(apart, usual, 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse of the cdf at uniform numbers."""
        return self.icdf(_uniform(self._extended_shape(sample_shape), self._parameter))

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        apart, p = self._apart()
        usual = ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return where(apart, usual, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        p = self.probs.clamp(2.0**-23, 1 - 2.0**-23)
        return value * p.log() + (1 - value) * (-p).log1p() + self._log_constant()
