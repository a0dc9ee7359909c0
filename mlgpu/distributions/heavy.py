"""Distributions made of normal, gamma and uniform numbers: ratios, powers, one side of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.continuous import Exponential, Normal, Uniform, _LocationScale
from mlgpu.distributions.distribution import Distribution, check, parameters
from mlgpu.distributions.gamma import Gamma
from mlgpu.distributions.transformed import TransformedDistribution
from mlgpu.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ExpTransform,
    PowerTransform,
    StickBreakingTransform,
)
from mlgpu.ops.choice import where
from mlgpu.ops.creation import full_like, ones_like
from mlgpu.ops.random import randn
from mlgpu.tensor import Tensor


class LogNormal(TransformedDistribution):
    """exp(x) for normal x."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.positive

    def __init__(self, loc: Tensor | float, scale: Tensor | float,
                 validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), ExpTransform())

    @property
    def loc(self) -> Tensor:
        """The mean of x."""
        return self.base_dist.loc  # type: ignore[attr-defined,no-any-return]

    @property
    def scale(self) -> Tensor:
        """The standard deviation of x."""
        return self.base_dist.scale  # type: ignore[attr-defined,no-any-return]

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Tensor:
        """Where the density is greatest."""
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        """The expected square of the distance from the mean."""
        s = self.scale.square()
        return s.expm1() * (2 * self.loc + s).exp()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.base_dist.entropy() + self.loc


class Cauchy(_LocationScale):
    """The ratio of two normal numbers: no moment is finite."""

    @property
    def mean(self) -> Tensor:
        """NaN."""
        return full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return full_like(self.loc, math.inf)

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse of the cdf at uniform numbers."""
        return self.icdf(self._uniform(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        z = (value - self.loc) / self.scale
        return -math.log(math.pi) - self.scale.log() - z.square().log1p()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return ((value - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return math.log(4 * math.pi) + self.scale.log()


class StudentT(Distribution):
    """A normal number over the root of a chi-squared one's mean; samples have no gradients."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real,  # noqa: RUF012
                       "scale": constraints.positive}
    support = constraints.real

    def __init__(self, df: Tensor | float, loc: Tensor | float = 0.0, scale: Tensor | float = 1.0,
                 validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = parameters(df, loc, scale)
        check(self, validate_args, df=(self.df > 0, "positive"),
              scale=(self.scale > 0, "positive"))
        super().__init__(self.df.shape)

    @property
    def mean(self) -> Tensor:
        """`loc`; NaN where df <= 1."""
        return self.loc.masked_fill(self.df <= 1, math.nan)

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2 df / (df - 2); infinite where df <= 2, NaN where df <= 1."""
        usual = self.scale.square() * self.df / (self.df - 2)
        return usual.masked_fill(self.df <= 2, math.inf).masked_fill(self.df <= 1, math.nan)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Real numbers."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            x = randn(*shape, dtype=self.df.dtype, device=self.df.device)
            chi2 = Chi2(self.df, validate_args=False).sample(sample_shape)
            return self.loc + self.scale * x * (self.df / chi2).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        y = (value - self.loc) / self.scale
        z = (self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
             + (0.5 * self.df).lgamma() - (0.5 * (self.df + 1)).lgamma())
        return -0.5 * (self.df + 1) * (y.square() / self.df).log1p() - z

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        half = 0.5 * self.df
        log_beta = half.lgamma() + math.lgamma(0.5) - (half + 0.5).lgamma()
        return (self.scale.log() + 0.5 * (self.df + 1) * ((half + 0.5).digamma() - half.digamma())
                + 0.5 * self.df.log() + log_beta)


class Chi2(Gamma):
    """The sum of the squares of `df` standard normal numbers."""

    arg_constraints = {"df": constraints.positive}  # noqa: RUF012

    def __init__(self, df: Tensor | float, validate_args: bool | None = None) -> None:
        half = parameters(df)[0] * 0.5
        super().__init__(half, half.new_full((), 0.5), validate_args)

    @property
    def df(self) -> Tensor:
        """The number of squares."""
        return self.concentration * 2


class FisherSnedecor(Distribution):
    """The ratio of the means of two chi-squared numbers; samples have no gradients."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}  # noqa: RUF012
    support = constraints.positive

    def __init__(self, df1: Tensor | float, df2: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.df1, self.df2 = parameters(df1, df2)
        check(self, validate_args, df1=(self.df1 > 0, "positive"), df2=(self.df2 > 0, "positive"))
        super().__init__(self.df1.shape)

    @property
    def mean(self) -> Tensor:
        """df2 / (df2 - 2); NaN where df2 <= 2."""
        return (self.df2 / (self.df2 - 2)).masked_fill(self.df2 <= 2, math.nan)

    @property
    def variance(self) -> Tensor:
        """NaN where df2 <= 4."""
        a, b = self.df1, self.df2
        usual = 2 * b.square() * (a + b - 2) / (a * (b - 2).square() * (b - 4))
        return usual.masked_fill(b <= 4, math.nan)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Positive numbers."""
        first = Gamma(self.df1 * 0.5, self.df1, validate_args=False).sample(sample_shape)
        second = Gamma(self.df2 * 0.5, self.df2, validate_args=False).sample(sample_shape)
        return first / second

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        a, b, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        return ((a + b).lgamma() - a.lgamma() - b.lgamma() + a * ratio.log()
                + (a - 1) * value.log() - (a + b) * (ratio * value).log1p())


class HalfNormal(TransformedDistribution):
    """|x| for normal x of mean 0."""

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(Normal(0.0, scale, validate_args), AbsTransform())

    @property
    def scale(self) -> Tensor:
        """The standard deviation of x."""
        return self.base_dist.scale  # type: ignore[attr-defined,no-any-return]

    @property
    def mean(self) -> Tensor:
        """scale sqrt(2 / pi)."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """scale^2 (1 - 2 / pi)."""
        return self.scale.square() * (1 - 2 / math.pi)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density; -inf below 0."""
        inner = self.base_dist.log_prob(value) + math.log(2)
        return where(value >= 0, inner, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.base_dist.entropy() - math.log(2)


class HalfCauchy(HalfNormal):
    """|x| for Cauchy x around 0."""

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        TransformedDistribution.__init__(self, Cauchy(0.0, scale, validate_args), AbsTransform())

    @property
    def mean(self) -> Tensor:
        """Infinity."""
        return full_like(self.scale, math.inf)

    @property
    def variance(self) -> Tensor:
        """Infinity."""
        return full_like(self.scale, math.inf)


class InverseGamma(TransformedDistribution):
    """1 / x for gamma x; samples have no gradients."""

    arg_constraints = {"concentration": constraints.positive,  # noqa: RUF012
                       "rate": constraints.positive}
    support = constraints.positive

    def __init__(self, concentration: Tensor | float, rate: Tensor | float,
                 validate_args: bool | None = None) -> None:
        super().__init__(Gamma(concentration, rate, validate_args), PowerTransform(-1.0))

    @property
    def concentration(self) -> Tensor:
        """That of x."""
        return self.base_dist.concentration  # type: ignore[attr-defined,no-any-return]

    @property
    def rate(self) -> Tensor:
        """That of x."""
        return self.base_dist.rate  # type: ignore[attr-defined,no-any-return]

    @property
    def mean(self) -> Tensor:
        """rate / (concentration - 1); infinite where concentration <= 1."""
        usual = self.rate / (self.concentration - 1)
        return usual.masked_fill(self.concentration <= 1, math.inf)

    @property
    def variance(self) -> Tensor:
        """Infinite where concentration <= 2."""
        a = self.concentration
        usual = self.rate.square() / ((a - 1).square() * (a - 2))
        return usual.masked_fill(a <= 2, math.inf)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a = self.concentration
        return a + self.rate.log() + a.lgamma() - (1 + a) * a.digamma()


class Pareto(TransformedDistribution):
    """Values from `scale` on whose density falls as a power."""

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}  # noqa: RUF012

    def __init__(self, scale: Tensor | float, alpha: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.scale, self.alpha = parameters(scale, alpha)
        super().__init__(Exponential(self.alpha, validate_args),
                         [ExpTransform(), AffineTransform(0.0, self.scale)])

    @property
    def support(self) -> Any:
        """From scale on."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """Infinite where alpha <= 1."""
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def variance(self) -> Tensor:
        """Infinite where alpha <= 2."""
        a = self.alpha.clamp(min=2)
        return self.scale.square() * a / ((a - 1).square() * (a - 2))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return (self.scale / self.alpha).log() + 1 + self.alpha.reciprocal()


class Weibull(TransformedDistribution):
    """scale x^(1 / concentration) for exponential x of rate 1."""

    arg_constraints = {"scale": constraints.positive,  # noqa: RUF012
                       "concentration": constraints.positive}
    support = constraints.positive

    def __init__(self, scale: Tensor | float, concentration: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.scale, self.concentration = parameters(scale, concentration)
        super().__init__(Exponential(ones_like(self.scale)),
                         [PowerTransform(self.concentration.reciprocal()),
                          AffineTransform(0.0, self.scale)])

    @property
    def mean(self) -> Tensor:
        """scale Gamma(1 + 1 / concentration)."""
        return self.scale * (1 + self.concentration.reciprocal()).lgamma().exp()

    @property
    def variance(self) -> Tensor:
        """The expected square of the distance from the mean."""
        r = self.concentration.reciprocal()
        return self.scale.square() * ((1 + 2 * r).lgamma().exp() - (2 * (1 + r).lgamma()).exp())

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        r = self.concentration.reciprocal()
        return 0.57721566490153286 * (1 - r) + (self.scale * r).log() + 1


class Kumaraswamy(TransformedDistribution):
    """(1 - (1 - u)^(1 / b))^(1 / a) for uniform u: close to a beta distribution (a, b)."""

    arg_constraints = {"concentration1": constraints.positive,  # noqa: RUF012
                       "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Tensor | float, concentration0: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = parameters(concentration1, concentration0)
        one = ones_like(self.concentration1)
        super().__init__(Uniform(one * 0, one), [
            PowerTransform(self.concentration0.reciprocal()), AffineTransform(1.0, -1.0),
            PowerTransform(self.concentration1.reciprocal())])

    def _moment(self, n: int) -> Tensor:
        a, b = 1 + n / self.concentration1, self.concentration0
        return (b.log() + a.lgamma() + b.lgamma() - (a + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        """b B(1 + 1 / a, b)."""
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        """The expected square of the distance from the mean."""
        return self._moment(2) - self.mean.square()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + 0.57721566490153286
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


class LogisticNormal(TransformedDistribution):
    """Normal vectors (..., n) as vectors (..., n + 1) that add up to 1, by stick breaking."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.simplex

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), StickBreakingTransform())
