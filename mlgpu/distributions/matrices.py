"""Distributions over matrices: of correlations, and of covariances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu import linalg
from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution, check, parameters
from mlgpu.distributions.gamma import Beta, standard_gamma
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import arange
from mlgpu.ops.join import cat
from mlgpu.ops.random import randn
from mlgpu.ops.view import broadcast_shapes
from mlgpu.tensor import Tensor


def _log_gamma(a: Tensor, n: int) -> Tensor:
    """The logarithm of the gamma function of n dimensions."""
    steps = arange(n, dtype=a.dtype, device=a.device) / 2
    return n * (n - 1) / 4 * math.log(math.pi) + (a[..., None] - steps).lgamma().sum(-1)


class LKJCholesky(Distribution):
    """Cholesky factors of matrices of correlations (dim, dim); 1 makes all matrices alike.

    Lewandowski, Kurowicka and Joe, 2009; samples by their onion method, without gradients.  Raises
    ShapeError for dim < 2.
    """

    arg_constraints = {"concentration": constraints.positive}  # noqa: RUF012
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Tensor | float = 1.0,
                 validate_args: bool | None = None) -> None:
        if dim < 2:
            raise ShapeError(f"LKJCholesky: expected dim >= 2, got {dim}")
        self.dim = dim
        self.concentration, = parameters(concentration)
        check(self, validate_args, concentration=(self.concentration > 0, "positive"))
        super().__init__(self.concentration.shape, (dim, dim))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Row by row: a direction by normal numbers, and how far by a beta number."""
        with no_grad():
            options: Any = {"dtype": self.concentration.dtype, "device": self.concentration.device}
            row = arange(1, self.dim, **options)
            b = self.concentration[..., None] + (self.dim - 1 - row) / 2
            far = Beta((row / 2).expand(b.shape), b, validate_args=False).sample(sample_shape)
            direction = randn(*self._extended_shape(sample_shape), **options).tril(-1)[..., 1:, :]
            direction = direction / direction.norm(dim=-1, keepdim=True)
            below = far.sqrt()[..., None] * direction
            below = cat([below.new_zeros((*below.shape[:-2], 1, self.dim)), below], -2)
            tiny = 2.0**-1022 if below.itemsize == 8 else 2.0**-126
            left = (1 - below.square().sum(-1)).clamp(min=tiny).sqrt()
            return below + left.diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        n = self.dim - 1
        order = arange(2, self.dim + 1, dtype=value.dtype, device=value.device)
        powers = 2 * (self.concentration - 1)[..., None] + self.dim - order
        alpha = self.concentration + 0.5 * n
        constant = 0.5 * n * math.log(math.pi) + _log_gamma(alpha - 0.5, n) - n * alpha.lgamma()
        return (powers * value.diagonal(0, -2, -1)[..., 1:].log()).sum(-1) - constant


class Wishart(Distribution):
    """Sums of `df` outer products of normal vectors with a covariance (n, n).

    One of `covariance_matrix`, `precision_matrix` and `scale_tril` is given, else ShapeError; df
    must be greater than n - 1.  Samples (Bartlett's decomposition) have no gradients.
    """

    arg_constraints = {"df": constraints.greater_than(0),  # noqa: RUF012
                       "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite,
                       "scale_tril": constraints.lower_cholesky}
    support = constraints.positive_definite

    def __init__(self, df: Tensor | float, covariance_matrix: Tensor | None = None,
                 precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1:
            raise ShapeError("Wishart: expected one of covariance_matrix, precision_matrix and "
                             "scale_tril")
        matrix, n = given[0], given[0].shape[-1]
        count = df if isinstance(df, Tensor) else matrix.new_full((), df)
        batch = broadcast_shapes(matrix.shape[:-2], count.shape)
        if precision_matrix is not None:
            matrix = linalg.inv(matrix)
        factor = matrix if scale_tril is not None else linalg.cholesky(matrix)
        self.df = count.expand(batch)
        self.scale_tril = factor.expand(*batch, n, n)
        check(self, validate_args, df=(self.df > n - 1, f"greater than {n - 1}"))
        super().__init__(batch, (n, n))

    @property
    def covariance_matrix(self) -> Tensor:
        """L L^T."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def mean(self) -> Tensor:
        """df times the covariance."""
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        """df (v_ij^2 + v_ii v_jj)."""
        v = self.covariance_matrix
        d = v.diagonal(0, -2, -1)
        return self.df[..., None, None] * (v.square() + d[..., :, None] * d[..., None, :])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Positive definite matrices."""
        with no_grad():
            n = self._event_shape[0]
            shape = self._extended_shape(sample_shape)
            options: Any = {"dtype": self.df.dtype, "device": self.df.device}
            degrees = (self.df[..., None] - arange(n, **options)) / 2
            chi2 = 2 * standard_gamma(degrees.expand(shape[:-1]).contiguous())
            factor = self.scale_tril @ (randn(*shape, **options).tril(-1)
                                        + chi2.sqrt().diag_embed())
            return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        n = self._event_shape[0]
        whitened = linalg.solve(self.covariance_matrix, value)
        half_log_det = self.scale_tril.diagonal(0, -2, -1).log().sum(-1)
        return (-self.df * (n * math.log(2) / 2 + half_log_det) - _log_gamma(self.df / 2, n)
                + (self.df - n - 1) / 2 * linalg.slogdet(value).logabsdet
                - whitened.diagonal(0, -2, -1).sum(-1) / 2)
