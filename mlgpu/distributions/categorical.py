"""Distributions over a finite set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution, check, one_of
from mlgpu.dtypes import finfo
from mlgpu.errors import ShapeError
from mlgpu.nn.functional import one_hot
from mlgpu.ops.creation import arange
from mlgpu.ops.random import multinomial
from mlgpu.tensor import Size, Tensor


class Categorical(Distribution):
    """The numbers 0 to K - 1 by `probs` (normalised here) or `logits`, along the last dimension."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}  # noqa: RUF012

    @property
    def support(self) -> Any:
        """0 to K - 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    has_enumerate_support = True

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        one_of("Categorical", probs, logits)
        given = logits if probs is None else probs
        assert given is not None
        if given.ndim < 1:
            raise ShapeError("Categorical: the parameter needs at least one dimension")
        if probs is not None:
            check(self, validate_args, probs=(probs >= 0, "0 or positive"))
            self.probs = probs / probs.sum(-1, keepdim=True)
            eps = 2.0**-52 if probs.itemsize == 8 else 2.0**-23
            self.logits = self.probs.clamp(eps, 1 - eps).log()
        else:
            check(self, validate_args, logits=(given == given, "a number"))
            self.logits = given - given.logsumexp(-1, keepdim=True)
            self.probs = self.logits.softmax(-1)
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1])

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self.logits.shape

    @property
    def mode(self) -> Tensor:
        """The most probable number."""
        return self.probs.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """int64 numbers."""
        with no_grad():
            count = Size(sample_shape).numel()
            drawn = multinomial(self.probs.reshape(-1, self._num_events), count, True)
            return drawn.t().reshape((*sample_shape, *self._batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        value = value.long().unsqueeze(-1)
        shape = (*(value[..., 0] + self.logits[..., 0]).shape, self._num_events)
        return self.logits.expand(shape).gather(-1, value.expand(*shape[:-1], 1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats; a category of probability 0 adds nothing."""
        lowest = finfo(self.logits.dtype).min
        return -(self.logits.clamp(min=lowest) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All numbers, along a new first dimension."""
        values = arange(self._num_events, device=self.logits.device)
        values = values.view(-1, *[1] * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class OfCategories(Distribution):
    """What distributions over vectors, one number for each category, have in common."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}  # noqa: RUF012

    def __init__(self, probs: Tensor | None, logits: Tensor | None,
                 validate_args: bool | None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:])

    @property
    def probs(self) -> Tensor:
        """The categories' probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits


class OneHotCategorical(OfCategories):
    """As Categorical, its values written as vectors with a single 1."""

    support = constraints.one_hot

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p (1 - p) for each entry."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Vectors in the parameter's dtype."""
        drawn = self._categorical.sample(sample_shape)
        return one_hot(drawn, self._event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self._categorical.entropy()
