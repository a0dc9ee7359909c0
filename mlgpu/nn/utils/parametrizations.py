"""Weights with a norm of their own or a bounded one, as torch.nn.utils.parametrizations."""

from __future__ import annotations

import mlgpu
from mlgpu import linalg
from mlgpu.autograd import no_grad
from mlgpu.errors import GraphError, ShapeError
from mlgpu.nn.functional import normalize
from mlgpu.nn.module import Module
from mlgpu.nn.utils.parametrize import register_parametrization
from mlgpu.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def norm_except_dim(v: Tensor, dim: int | None) -> Tensor:
    """The 2-norm over all dimensions but one, which are kept with length 1; over all if None."""
    if dim is None or dim == -1:
        return v.norm()
    return linalg.vector_norm(v, 2, tuple(d for d in range(v.ndim) if d != dim % v.ndim),
                              keepdim=True)


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight.clone()


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """w = g v / ||v||, with a norm g for each entry of `dim` (Salimans and Kingma, 2016).

    `parametrizations.<name>.original0` is g, `original1` v; returns the module.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class PowerIteration:
    """Estimates of a matrix's first singular vectors, better with each step."""

    def __init__(self, dim: int, steps: int, eps: float, columns_first: bool = False) -> None:
        if steps < 1:
            raise ShapeError(f"spectral_norm: expected n_power_iterations >= 1, got {steps}")
        self.dim, self.steps, self.eps = dim, steps, eps
        self.columns_first = columns_first  # which vector a step improves first

    def matrix(self, weight: Tensor) -> Tensor:
        """`weight` with `dim` first and all other dimensions as one."""
        return weight.movedim(self.dim, 0).flatten(1)

    def start(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Random vectors of length 1, for rows and columns."""
        matrix = self.matrix(weight.detach())
        return tuple(normalize(mlgpu.randn(n, dtype=weight.dtype, device=weight.device), dim=0,
                               eps=self.eps) for n in matrix.shape)  # type: ignore[return-value]

    def step(self, weight: Tensor, u: Tensor, v: Tensor, steps: int | None = None) -> None:
        """Improve u and v in place."""
        with no_grad():
            matrix = self.matrix(weight.detach())
            if self.columns_first:
                matrix, u, v = matrix.mT, v, u
            for _ in range(self.steps if steps is None else steps):
                u.copy_(normalize(matrix @ v, dim=0, eps=self.eps))
                v.copy_(normalize(matrix.mT @ u, dim=0, eps=self.eps))

    def norm(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The spectral norm that they estimate; u and v count as constants."""
        return u.clone() @ (self.matrix(weight) @ v.clone())


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, steps: int, dim: int, eps: float) -> None:
        super().__init__()
        self.power = PowerIteration(dim, steps, eps)
        self.flat = weight.ndim <= 1
        if not self.flat:
            u, v = self.power.start(weight)
            self.power.step(weight, u, v, 15)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        if self.flat:
            return normalize(weight, dim=0, eps=self.power.eps)
        if self.training:
            self.power.step(weight, self._u, self._v)
        return weight / self.power.norm(weight, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


class _Orthogonal(Module):
    """Columns of length 1 at right angles (rows, where there are more columns than rows)."""

    base: Tensor | None

    def __init__(self, how: str, trivialization: bool) -> None:
        super().__init__()
        self.how, self.trivialization = how, trivialization
        if trivialization:
            self.register_buffer("base", None)

    def forward(self, free: Tensor) -> Tensor:
        wide = free.shape[-2] < free.shape[-1]
        tall = free.mT if wide else free
        if self.how == "householder":
            q = self._reflections(tall)
        else:
            q = self._rotation(tall)
        if self.trivialization and self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    @staticmethod
    def _reflections(tall: Tensor) -> Tensor:
        below = tall.tril(-1)
        tau = 2 / (1 + below.square().sum(-2))
        return linalg.householder_product(below, tau) * tall.detach().diagonal(0, -2, -1).sgn()[
            ..., None, :]

    def _rotation(self, tall: Tensor) -> Tensor:
        n, k = tall.shape[-2:]
        lower = tall.tril(-1)
        if n > k:
            lower = mlgpu.cat([lower, lower.new_zeros((*lower.shape[:-1], n - k))], -1)
        skew = lower - lower.mT
        if self.how == "matrix_exp":
            return mlgpu.matrix_exp(skew)[..., :k]
        eye = mlgpu.eye(n, dtype=tall.dtype, device=tall.device)
        return linalg.solve(eye - skew / 2, eye + skew / 2)[..., :k]

    @no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        wide = weight.shape[-2] < weight.shape[-1]
        tall = weight.mT if wide else weight
        free = mlgpu.zeros_like(tall)
        if self.trivialization:
            q, r = linalg.qr(tall, mode="complete")
            k = tall.shape[-1]
            signs = r.diagonal(0, -2, -1).sgn()
            self.base = mlgpu.cat([q[..., :k] * signs[..., None, :], q[..., k:]], -1)
            if self.how == "householder":
                free.diagonal(0, -2, -1).fill_(-1)
        elif self.how == "householder":
            free, tau = mlgpu.geqrf(tall)
            signs = free.diagonal(0, -2, -1).sgn()
            free.diagonal(0, -2, -1).copy_(mlgpu.where(tau == 0, -signs, signs))
        else:
            raise GraphError("orthogonal: without use_trivialization a weight cannot be assigned "
                             f"under {self.how!r}; use householder, or the default")
        return free.mT if wide else free


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *,
               use_trivialization: bool = True) -> Module:
    """The weight (n, k) with orthonormal columns, or rows where n < k; the module comes back.

    `orthogonal_map` makes it of free numbers: "matrix_exp" and "cayley" of a skew-symmetric matrix,
    "householder" of reflections (default: matrix_exp where n = k, else householder).
    `use_trivialization` multiplies by a fixed matrix, so that the free numbers start where the map
    is well behaved (Lezcano-Casado, 2019).  A weight that is not orthogonal is first made so by QR.
    """
    weight = getattr(module, name)
    if weight.ndim < 2:
        raise ShapeError(f"orthogonal: expected a matrix or a batch of them, got "
                         f"{tuple(weight.shape)}")
    how = orthogonal_map or (
        "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder")
    if how not in ("matrix_exp", "cayley", "householder"):
        raise ShapeError(f"orthogonal: orthogonal_map must be matrix_exp, cayley or householder, "
                         f"got {how!r}")
    return register_parametrization(module, name, _Orthogonal(how, use_trivialization),
                                    unsafe=True)


def default_dim(module: Module, dim: int | None) -> int:
    if dim is not None:
        return dim
    name = type(module).__name__.removeprefix("Parametrized")
    return 1 if name.startswith("ConvTranspose") else 0


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Module:
    """The weight divided by its spectral norm, which power iteration follows as it changes.

    Miyato et al., 2018.  `dim` is the output's (default: 0, 1 for transposed convolutions); returns
    the module.
    """
    weight = getattr(module, name)
    made = _SpectralNorm(weight, n_power_iterations, default_dim(module, dim), eps)
    return register_parametrization(module, name, made)
