"""A distribution whose values are mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions.distribution import Distribution
from mlgpu.distributions.independent import Independent, summed
from mlgpu.distributions.transforms import ComposeTransform, Transform
from mlgpu.errors import ShapeError
from mlgpu.tensor import Size, Tensor


class TransformedDistribution(Distribution):
    """The distribution of t(x), for x of `base_distribution` and maps one after the other.

    Raises ShapeError where the base's values have fewer dimensions than the maps need.
    """

    def __init__(self, base_distribution: Distribution, transforms: Transform | Sequence[Transform],
                 validate_args: bool | None = None) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        whole = ComposeTransform(self.transforms)
        shape = (*base_distribution.batch_shape, *base_distribution.event_shape)
        if len(shape) < whole.domain.event_dim:
            raise ShapeError(f"TransformedDistribution: the transforms need values of "
                             f"{whole.domain.event_dim} dimensions, and the base has the shape "
                             f"{tuple(shape)}")
        mapped = tuple(whole.forward_shape(shape))
        wanted = tuple(whole.inverse_shape(mapped))
        if tuple(shape) != wanted:  # the maps' parameters are a larger batch
            cut = len(wanted) - len(base_distribution.event_shape)
            base_distribution = base_distribution.expand(wanted[:cut])
        more = whole.domain.event_dim - len(base_distribution.event_shape)
        if more > 0:
            base_distribution = Independent(base_distribution, more)
        self.base_dist = base_distribution
        dims = whole.codomain.event_dim + max(
            len(base_distribution.event_shape) - whole.domain.event_dim, 0)
        cut = len(mapped) - dims
        super().__init__(mapped[:cut], mapped[cut:])

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        """Where the last map leads."""
        if not self.transforms:
            return self.base_dist.support
        from mlgpu.distributions import constraints

        found = self.transforms[-1].codomain
        more = len(self.event_shape) - found.event_dim
        return constraints.independent(found, more) if more > 0 else found

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for each index of a larger batch."""
        shape = (*batch_shape, *self.event_shape)
        base = tuple(ComposeTransform(self.transforms).inverse_shape(shape))
        cut = len(base) - len(self.base_dist.event_shape)
        made = _instance if _instance is not None else type(self).__new__(type(self))
        made.__dict__.update(vars(self))
        made.base_dist = self.base_dist.expand(base[:cut])
        made._batch_shape = Size(batch_shape)
        return made

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values of the base, mapped."""
        with no_grad():
            x = self.base_dist.sample(sample_shape)
            for transform in self.transforms:
                x = transform(x)
            return x

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values of the base, mapped, with gradients."""
        x = self.base_dist.rsample(sample_shape)
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's at the value taken back, less the logarithm of the maps' determinants."""
        dims = len(self.event_shape)
        total: Any = 0.0
        y = value
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            dims += transform.domain.event_dim - transform.codomain.event_dim
            total = total - summed(transform.log_abs_det_jacobian(x, y),
                                   dims - transform.domain.event_dim)
            y = x
        return total + summed(self.base_dist.log_prob(y), dims - len(self.base_dist.event_shape))  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater, for maps that increase or decrease."""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self._turned(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        value = self.base_dist.icdf(self._turned(value))
        for transform in self.transforms:
            value = transform(value)
        return value

    def _turned(self, probability: Tensor) -> Tensor:
        sign: Any = 1
        for transform in self.transforms:
            sign = sign * transform.sign
        if isinstance(sign, int) and sign == 1:
            return probability
        return sign * (probability - 0.5) + 0.5  # type: ignore[no-any-return]
