"""The gamma distribution and those made of it: beta, Dirichlet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import ExponentialFamily, check, parameters
from mlgpu.errors import ShapeError
from mlgpu.ops.choice import where
from mlgpu.ops.random import rand, randn
from mlgpu.tensor import Tensor


def standard_gamma(concentration: Tensor) -> Tensor:
    """Gamma numbers of rate 1 (Marsaglia and Tsang, 2000), drawn again until all are accepted.

    Each try looks at the host once whether any is left.
    """
    options: Any = {"dtype": concentration.dtype, "device": concentration.device}
    small = concentration < 1
    d = where(small, concentration + 1, concentration) - 1 / 3
    c = 1 / (9 * d).sqrt()
    drawn, left = concentration.new_zeros(concentration.shape), d > 0
    while bool(left.any()):
        x = randn(*d.shape, **options)
        v = (1 + c * x) ** 3
        u = 1 - rand(*d.shape, **options)  # in (0, 1]
        good = left & (v > 0) & (u.log() < 0.5 * x * x + d - d * v
                                 + d * v.clamp(min=1e-30).log())
        drawn = where(good, d * v, drawn)
        left = left & ~good
    boost = (1 - rand(*d.shape, **options)) ** (1 / concentration)
    return where(small, drawn * boost, drawn)


class Gamma(ExponentialFamily):
    """Positive numbers: how long it takes until `concentration` events of `rate` have come.

    Samples have no gradients (PyTorch's have); densities do.
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative

    def __init__(self, concentration: Tensor | float, rate: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.concentration, self.rate = parameters(concentration, rate)
        check(self, validate_args, concentration=(self.concentration > 0, "positive"),
              rate=(self.rate > 0, "positive"))
        super().__init__(self.concentration.shape)

    @property
    def mean(self) -> Tensor:
        """concentration / rate."""
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        """concentration / rate^2."""
        return self.concentration / self.rate.square()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Positive numbers."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            return standard_gamma(self.concentration.expand(shape).contiguous()) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        a = self.concentration
        return (a.xlogy(self.rate) + (a - 1).xlogy(value) - self.rate * value - a.lgamma())

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a = self.concentration
        return a - self.rate.log() + a.lgamma() + (1 - a) * a.digamma()


class Dirichlet(ExponentialFamily):
    """Vectors of positive numbers that add up to 1, along the last dimension.

    Samples have no gradients (PyTorch's have); densities do.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    support = constraints.simplex

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.ndim < 1:
            raise ShapeError("Dirichlet: the concentration needs at least one dimension")
        self.concentration = concentration
        check(self, validate_args, concentration=(concentration > 0, "positive"))
        super().__init__(concentration.shape[:-1], concentration.shape[-1:])

    @property
    def mean(self) -> Tensor:
        """The concentration, normalised."""
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        """m (1 - m) / (sum + 1) for each entry of the mean m."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.mean * (1 - self.mean) / (total + 1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Gamma numbers, normalised."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            drawn = standard_gamma(self.concentration.expand(shape).contiguous())
            return drawn / drawn.sum(-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        a = self.concentration
        return ((a - 1).xlogy(value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a = self.concentration
        total, n = a.sum(-1), a.shape[-1]
        return (a.lgamma().sum(-1) - total.lgamma() - (n - total) * total.digamma()
                - ((a - 1) * a.digamma()).sum(-1))


class Beta(ExponentialFamily):
    """Numbers between 0 and 1: the first entry of a Dirichlet distribution over two.

    Samples have no gradients (PyTorch's have); densities do.
    """

    arg_constraints = {"concentration1": constraints.positive,  # noqa: RUF012
                       "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Tensor | float, concentration0: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = parameters(concentration1, concentration0)
        check(self, validate_args, concentration1=(self.concentration1 > 0, "positive"),
              concentration0=(self.concentration0 > 0, "positive"))
        super().__init__(self.concentration1.shape)

    @property
    def mean(self) -> Tensor:
        """a / (a + b)."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        """m (1 - m) / (a + b + 1)."""
        return self.mean * (1 - self.mean) / (self.concentration1 + self.concentration0 + 1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Numbers between 0 and 1."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            a = standard_gamma(self.concentration1.expand(shape).contiguous())
            b = standard_gamma(self.concentration0.expand(shape).contiguous())
            return a / (a + b)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        a, b = self.concentration1, self.concentration0
        return ((a - 1).xlogy(value) + (b - 1).xlogy(1 - value)
                + (a + b).lgamma() - a.lgamma() - b.lgamma())

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        a, b = self.concentration1, self.concentration0
        return (a.lgamma() + b.lgamma() - (a + b).lgamma() - (a - 1) * a.digamma()
                - (b - 1) * b.digamma() + (a + b - 2) * (a + b).digamma())
