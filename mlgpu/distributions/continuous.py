"""Distributions over real numbers whose values are smooth functions of their parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution, ExponentialFamily, check, parameters
from mlgpu.ops.random import rand, randn
from mlgpu.tensor import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_EULER = 0.57721566490153286


class _LocationScale(Distribution):
    """Two parameters that shift and stretch one curve."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real

    has_rsample = True

    def __init__(self, loc: Tensor | float, scale: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(loc, scale)
        check(self, validate_args, scale=(self.scale > 0, "positive"))
        super().__init__(self.loc.shape)

    def _uniform(self, sample_shape: Sequence[int]) -> Tensor:
        """Numbers in (0, 1): both ends would be infinite."""
        drawn = rand(*self._extended_shape(sample_shape), dtype=self.loc.dtype,
                     device=self.loc.device)
        return drawn.clamp(min=2.0**-24, max=1 - 2.0**-24)

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc


class Normal(_LocationScale, ExponentialFamily):
    """The normal distribution of mean `loc` and standard deviation `scale`."""

    @property
    def variance(self) -> Tensor:
        """`scale` squared."""
        return self.scale.square()

    @property
    def stddev(self) -> Tensor:
        """`scale`."""
        return self.scale

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + scale * standard normal numbers."""
        noise = randn(*self._extended_shape(sample_shape), dtype=self.loc.dtype,
                      device=self.loc.device)
        return self.loc + noise * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        z = (value - self.loc) / self.scale
        return -0.5 * z.square() - self.scale.log() - _HALF_LOG_2PI

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return 0.5 * (1 + ((value - self.loc) / (self.scale * math.sqrt(2))).erf())

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return self.loc + self.scale * (2 * value - 1).erfinv() * math.sqrt(2)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 0.5 + _HALF_LOG_2PI + self.scale.log()


class Laplace(_LocationScale):
    """Two exponential distributions back to back."""

    @property
    def variance(self) -> Tensor:
        """2 scale^2."""
        return 2 * self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse of the cdf at uniform numbers."""
        u = self._uniform(sample_shape) - 0.5
        return self.loc - self.scale * u.sign() * (-2 * u.abs()).log1p()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        z = (value - self.loc) / self.scale
        return 0.5 - 0.5 * z.sign() * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return self.loc - self.scale * (value - 0.5).sign() * (-2 * (value - 0.5).abs()).log1p()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 1 + (2 * self.scale).log()


class Gumbel(_LocationScale):
    """The distribution of the greatest of many values."""

    @property
    def mean(self) -> Tensor:
        """loc + 0.5772 scale."""
        return self.loc + self.scale * _EULER

    @property
    def variance(self) -> Tensor:
        """pi^2 / 6 scale^2."""
        return self.scale.square() * (math.pi**2 / 6)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse of the cdf at uniform numbers."""
        return self.loc - self.scale * (-self._uniform(sample_shape).log()).log()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        y = (self.loc - value) / self.scale
        return y - y.exp() - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return (-((self.loc - value) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.scale.log() + (1 + _EULER)


class Uniform(Distribution):
    """Every number in [low, high) alike; the density outside is 0."""

    arg_constraints = {"low": constraints.dependent, "high": constraints.dependent}  # noqa: RUF012

    @property
    def support(self) -> Any:
        """From low to high."""
        return constraints.interval(self.low, self.high)

    has_rsample = True

    def __init__(self, low: Tensor | float, high: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.low, self.high = parameters(low, high)
        check(self, validate_args, high=(self.high > self.low, "greater than low"))
        super().__init__(self.low.shape)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.high + self.low) / 2

    @property
    def variance(self) -> Tensor:
        """(high - low)^2 / 12."""
        return (self.high - self.low).square() / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """low + (high - low) * uniform numbers."""
        drawn = rand(*self._extended_shape(sample_shape), dtype=self.low.dtype,
                     device=self.low.device)
        return self.low + drawn * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        inside = (self.low <= value) & (value < self.high)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return self.low + value * (self.high - self.low)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return (self.high - self.low).log()


class Exponential(ExponentialFamily):
    """The time to the next of events that come `rate` times in a unit."""

    arg_constraints = {"rate": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative

    has_rsample = True

    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None:
        self.rate, = parameters(rate)
        check(self, validate_args, rate=(self.rate > 0, "positive"))
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> Tensor:
        """1 / rate."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        """1 / rate^2."""
        return self.rate.square().reciprocal()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse of the cdf at uniform numbers."""
        drawn = rand(*self._extended_shape(sample_shape), dtype=self.rate.dtype,
                     device=self.rate.device)
        return -(-drawn).log1p() / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return -(-self.rate * value).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return -(-value).log1p() / self.rate

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 1 - self.rate.log()
