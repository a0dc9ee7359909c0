"""Counts of successes among trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.categorical import OfCategories
from mlgpu.distributions.discrete import _Probability
from mlgpu.distributions.distribution import Distribution, check, parameters
from mlgpu.distributions.gamma import standard_gamma
from mlgpu.nn import functional as F
from mlgpu.nn.functional import logsigmoid
from mlgpu.ops.creation import arange
from mlgpu.ops.random import poisson, rand
from mlgpu.ops.view import broadcast_tensors
from mlgpu.tensor import Tensor


class Binomial(_Probability):
    """How many of `total_count` trials succeed."""

    has_enumerate_support = True
    arg_constraints = {"total_count": constraints.nonnegative_integer,  # noqa: RUF012
                       "probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, total_count: Tensor | int = 1, probs: Tensor | float | None = None,
                 logits: Tensor | float | None = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        count, = parameters(total_count) if isinstance(total_count, Tensor) else (
            self._parameter.new_full((), total_count),)
        self.total_count, self._parameter = broadcast_tensors(count.to(self._parameter.dtype),
                                                              self._parameter)
        check(self, validate_args, total_count=(self.total_count >= 0, "0 or positive"))
        Distribution.__init__(self, self._parameter.shape)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """0 to total_count."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """n p."""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """n p (1 - p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers in the parameter's dtype: the trials are made one by one."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            most = int(self.total_count.max()) if self.total_count.numel() else 0
            options: Any = {"dtype": self._parameter.dtype, "device": self._parameter.device}
            trial = arange(most, **options)
            hits = rand(*shape, most, **options) < self.probs[..., None]
            return (hits & (trial < self.total_count[..., None])).sum(-1).to(self._parameter.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        n, logits = self.total_count, self.logits
        ways = (n + 1).lgamma() - (value + 1).lgamma() - (n - value + 1).lgamma()
        return ways + value * logsigmoid(logits) + (n - value) * logsigmoid(-logits)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 to total_count, along a new first dimension; one count for the whole batch."""
        count = int(self.total_count.max())
        values = arange(count + 1, dtype=self._parameter.dtype, device=self._parameter.device)
        values = values.view(-1, *[1] * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class NegativeBinomial(_Probability):
    """How many trials succeed (with `probs`) before `total_count` have failed."""

    arg_constraints = {"total_count": constraints.greater_than_eq(0),  # noqa: RUF012
                       "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, total_count: Tensor | float, probs: Tensor | float | None = None,
                 logits: Tensor | float | None = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        count = total_count if isinstance(total_count, Tensor) else (
            self._parameter.new_full((), total_count))
        self.total_count, self._parameter = broadcast_tensors(count.to(self._parameter.dtype),
                                                              self._parameter)
        check(self, validate_args, total_count=(self.total_count >= 0, "0 or positive"))
        Distribution.__init__(self, self._parameter.shape)

    @property
    def mean(self) -> Tensor:
        """n exp(logits)."""
        return self.total_count * self.logits.exp()

    @property
    def variance(self) -> Tensor:
        """mean / sigmoid(-logits)."""
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Poisson numbers of gamma rates."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            rate = standard_gamma(self.total_count.expand(shape).contiguous()) * self.logits.exp()
            return poisson(rate)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        n, logits = self.total_count, self.logits
        ways = (n + value).lgamma() - (value + 1).lgamma() - n.lgamma()
        ways = ways.masked_fill(n + value == 0, 0)
        return n * logsigmoid(-logits) + value * logsigmoid(logits) + ways


class Multinomial(OfCategories):
    """How often each of K categories comes in `total_count` trials."""

    def __init__(self, total_count: int = 1, probs: Tensor | None = None,
                 logits: Tensor | None = None, validate_args: bool | None = None) -> None:
        self.total_count = total_count
        super().__init__(probs, logits, validate_args)

    @property
    def support(self) -> Any:
        """Vectors that add up to total_count."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        """n p."""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """n p (1 - p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors in the parameter's dtype."""
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return F.one_hot(drawn, self._event_shape[0]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        logits = self.logits.masked_fill((value == 0) & (self.logits == -float("inf")), 0)
        return ((value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
                + (logits * value).sum(-1))
