"""The normal distribution of long vectors, whose covariance is a few factors and a diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlgpu import linalg
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import eye
from mlgpu.ops.random import randn
from mlgpu.ops.view import broadcast_shapes
from mlgpu.tensor import Tensor


class LowRankMultivariateNormal(Distribution):
    """Vectors with a mean (..., n) and the covariance W W^T + diag(d), W (..., n, k), d (..., n).

    The density takes k x k matrices only (Woodbury's formula).  ShapeError where shapes do not fit.
    """

    has_rsample = True
    arg_constraints = {"loc": constraints.real_vector,  # noqa: RUF012
                       "cov_factor": constraints.independent(constraints.real, 2),
                       "cov_diag": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor,
                 validate_args: bool | None = None) -> None:
        n = loc.shape[-1]
        if cov_factor.ndim < 2 or cov_factor.shape[-2] != n or cov_diag.shape[-1] != n:
            raise ShapeError(f"LowRankMultivariateNormal: a mean of {n} numbers, a factor of shape "
                             f"{tuple(cov_factor.shape)} and a diagonal of "
                             f"{tuple(cov_diag.shape)} do not fit")
        batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = loc.expand(*batch, n), cov_diag.expand(*batch, n)
        self.cov_factor = cov_factor.expand(*batch, *cov_factor.shape[-2:])
        super().__init__(batch, (n,))

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @property
    def covariance_matrix(self) -> Tensor:
        """W W^T + diag(d)."""
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + W e + sqrt(d) f for standard normal e and f."""
        shape = self._extended_shape(sample_shape)
        e = randn(*shape[:-1], self.cov_factor.shape[-1], dtype=self.loc.dtype,
                  device=self.loc.device)
        f = randn(*shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.cov_factor @ e[..., None])[..., 0] + self.cov_diag.sqrt() * f

    def _capacitance(self) -> Tensor:
        """The Cholesky factor of I + W^T D^-1 W."""
        w = self.cov_factor
        k = w.shape[-1]
        inner = w.mT @ (w / self.cov_diag[..., None])
        return linalg.cholesky(inner + eye(k, dtype=w.dtype, device=w.device))

    def _log_det(self) -> Tensor:
        return 2 * self._capacitance().diagonal(0, -2, -1).log().sum(-1) + self.cov_diag.log().sum(
            -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        apart = value - self.loc
        scaled = apart / self.cov_diag
        inner = (self.cov_factor.mT @ scaled[..., None])
        factor = self._capacitance()
        z = linalg.solve_triangular(factor.expand(*inner.shape[:-2], *factor.shape[-2:]), inner,
                                    upper=False)[..., 0]
        distance = (apart * scaled).sum(-1) - z.square().sum(-1)
        n = self._event_shape[0]
        return -0.5 * (n * math.log(2 * math.pi) + self._log_det() + distance)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return 0.5 * (self._event_shape[0] * (1 + math.log(2 * math.pi)) + self._log_det())
