"""A mixture of distributions of one family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions.categorical import Categorical
from mlgpu.distributions.distribution import Distribution
from mlgpu.errors import ShapeError
from mlgpu.tensor import Tensor


class MixtureSameFamily(Distribution):
    """One of K components, the last dimension of the batch of `component_distribution`.

    `mixture_distribution` is a Categorical over them.  ShapeError where the two do not fit.
    """

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None) -> None:
        batch = component_distribution.batch_shape
        count = mixture_distribution.param_shape[-1]
        if not batch or batch[-1] != count:
            raise ShapeError(f"MixtureSameFamily: {count} weights, and components of the batch "
                             f"{tuple(batch)}, whose last dimension must be as long")
        self._mixture_distribution = mixture_distribution.expand(batch[:-1])
        self._component_distribution = component_distribution
        super().__init__(batch[:-1], component_distribution.event_shape)

    @property
    def mixture_distribution(self) -> Categorical:
        """How probable each component is."""
        return self._mixture_distribution  # type: ignore[no-any-return]

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    @property
    def support(self) -> Any:
        """As the components'."""
        return self._component_distribution.support

    def _weights(self) -> Tensor:
        probs = self._mixture_distribution.probs
        return probs.reshape(*probs.shape, *[1] * len(self._event_shape))  # type: ignore[no-any-return]

    @property
    def _dim(self) -> int:
        return -1 - len(self._event_shape)

    @property
    def mean(self) -> Tensor:
        """The components', weighted."""
        return (self._weights() * self._component_distribution.mean).sum(self._dim)

    @property
    def variance(self) -> Tensor:
        """Within the components and between them."""
        means, weights = self._component_distribution.mean, self._weights()
        apart = (means - self.mean.unsqueeze(self._dim)).square()
        return (weights * (self._component_distribution.variance + apart)).sum(self._dim)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A value of the component that is drawn."""
        with no_grad():
            chosen = self._mixture_distribution.sample(sample_shape)
            values = self._component_distribution.sample(sample_shape)
            index = chosen.reshape(*chosen.shape, 1, *[1] * len(self._event_shape))
            index = index.expand(*chosen.shape, 1, *self._event_shape)
            return values.gather(len(chosen.shape), index).squeeze(len(chosen.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        inner = self._component_distribution.log_prob(value.unsqueeze(self._dim))
        return (inner + self._mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        inner = self._component_distribution.cdf(value.unsqueeze(self._dim))
        return (inner * self._mixture_distribution.probs).sum(-1)  # type: ignore[no-any-return]
