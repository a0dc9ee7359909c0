"""Distributions side by side as one over vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution
from mlgpu.errors import ShapeError
from mlgpu.tensor import Tensor


def summed(value: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    return value.sum(tuple(range(-dims, 0))) if dims else value


class Independent(Distribution):
    """The last `reinterpreted_batch_ndims` dimensions of a batch as parts of one value.

    ShapeError where the batch has fewer.
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
                 validate_args: bool | None = None) -> None:
        batch = base_distribution.batch_shape
        if reinterpreted_batch_ndims > len(batch):
            raise ShapeError(f"Independent: {reinterpreted_batch_ndims} dimensions of a batch of "
                             f"shape {tuple(batch)}")
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        kept = len(batch) - reinterpreted_batch_ndims
        super().__init__(batch[:kept], (*batch[kept:], *base_distribution.event_shape))

    @property
    def support(self) -> Any:
        """The base's, wider."""
        inner = self.base_dist.support
        n = self.reinterpreted_batch_ndims
        return constraints.independent(inner, n) if n and inner is not None else inner

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base_dist.has_rsample

    @property
    def mean(self) -> Tensor:
        """As the base's."""
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        """As the base's."""
        return self.base_dist.variance

    @property
    def mode(self) -> Tensor:
        """As the base's."""
        return self.base_dist.mode

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As the base's."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As the base's."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the parts."""
        return summed(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        """The sum over the parts."""
        return summed(self.base_dist.entropy(), self.reinterpreted_batch_ndims)
