"""Distributions over whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import ExponentialFamily, check, one_of, parameters
from mlgpu.nn import functional as F
from mlgpu.ops.random import bernoulli, poisson, rand
from mlgpu.tensor import Tensor


class _Probability(ExponentialFamily):
    """One parameter: a probability, or its logit."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}  # noqa: RUF012
    support = constraints.boolean

    has_enumerate_support = False

    def __init__(self, probs: Tensor | float | None = None, logits: Tensor | float | None = None,
                 validate_args: bool | None = None) -> None:
        one_of(type(self).__name__, probs, logits)
        self._given = "logits" if probs is None else "probs"
        self._parameter, = parameters(logits if probs is None else probs)  # type: ignore[arg-type]
        if self._given == "probs":
            p = self._parameter
            check(self, validate_args, probs=((p >= 0) & (p <= 1), "between 0 and 1"))
        super().__init__(self._parameter.shape)

    @property
    def probs(self) -> Tensor:
        """The probability."""
        return self._parameter if self._given == "probs" else self._parameter.sigmoid()

    @property
    def logits(self) -> Tensor:
        """log(probs / (1 - probs)); a given probability is kept from 0 and 1 by an epsilon."""
        if self._given == "logits":
            return self._parameter
        eps = 2.0**-52 if self._parameter.itemsize == 8 else 2.0**-23
        p = self._parameter.clamp(eps, 1 - eps)
        return p.log() - (-p).log1p()


class Bernoulli(_Probability):
    """1 with a probability, else 0."""

    @property
    def mean(self) -> Tensor:
        """The probability."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Zeros and ones in the parameter's dtype."""
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)).contiguous())

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        logits = self.logits
        return -F.binary_cross_entropy_with_logits(
            logits.expand((value + logits).shape), value.expand((value + logits).shape),
            reduction="none")

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


class Geometric(_Probability):
    """How often an event fails to come before it comes."""

    support = constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """1 / p - 1."""
        return 1 / self.probs - 1

    @property
    def variance(self) -> Tensor:
        """(1 / p - 1) / p."""
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers in the parameter's dtype."""
        with no_grad():
            drawn = rand(*self._extended_shape(sample_shape), dtype=self._parameter.dtype,
                         device=self._parameter.device)
            return ((-drawn).log1p() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        return value * (-self.probs).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return F.binary_cross_entropy_with_logits(
            self.logits, self.probs, reduction="none") / self.probs


class Poisson(ExponentialFamily):
    """How many events come in a unit of time, where `rate` come on average."""

    arg_constraints = {"rate": constraints.nonnegative}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None:
        self.rate, = parameters(rate)
        check(self, validate_args, rate=(self.rate >= 0, "0 or positive"))
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> Tensor:
        """The rate."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """The rate."""
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers in the parameter's dtype."""
        with no_grad():
            return poisson(self.rate.expand(self._extended_shape(sample_shape)).contiguous())

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        return value.xlogy(self.rate) - self.rate - (value + 1).lgamma()
