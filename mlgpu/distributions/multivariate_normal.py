"""The normal distribution of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlgpu import linalg
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution
from mlgpu.errors import ShapeError
from mlgpu.ops.random import randn
from mlgpu.ops.view import broadcast_shapes
from mlgpu.tensor import Tensor


class MultivariateNormal(Distribution):
    """Vectors with a mean (..., n) and a covariance, a precision, or the covariance's factor L L^T.

    Raises ShapeError unless exactly one of the three is given; LinAlgError where a matrix is not
    positive definite.
    """

    arg_constraints = {"loc": constraints.real_vector,  # noqa: RUF012
                       "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite,
                       "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector

    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None,
                 precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1 or loc.ndim < 1:
            raise ShapeError("MultivariateNormal: expected a mean with at least one dimension, and "
                             "one of covariance_matrix, precision_matrix and scale_tril")
        n = loc.shape[-1]
        batch = broadcast_shapes(given[0].shape[:-2], loc.shape[:-1])
        if scale_tril is not None:
            factor = scale_tril
        elif covariance_matrix is not None:
            factor = linalg.cholesky(covariance_matrix)
        else:
            factor = linalg.cholesky(linalg.inv(given[0]))
        self.loc = loc.expand(*batch, n)
        self.scale_tril = factor.expand(*batch, n, n)
        super().__init__(batch, (n,))

    @property
    def covariance_matrix(self) -> Tensor:
        """L L^T."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return linalg.inv(self.covariance_matrix)

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return self.scale_tril.square().sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + L * standard normal vectors."""
        noise = randn(*self._extended_shape(sample_shape), dtype=self.loc.dtype,
                      device=self.loc.device)
        return self.loc + (self.scale_tril @ noise[..., None])[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        apart = (value - self.loc)[..., None]
        z = linalg.solve_triangular(
            self.scale_tril.expand(*apart.shape[:-2], *self.scale_tril.shape[-2:]), apart,
            upper=False)[..., 0]
        n = self._event_shape[0]
        return -0.5 * (n * math.log(2 * math.pi) + z.square().sum(-1)) - self._half_log_det()

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(0, -2, -1).log().sum(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 0.5 * self._event_shape[0] * (1 + math.log(2 * math.pi)) + self._half_log_det()
