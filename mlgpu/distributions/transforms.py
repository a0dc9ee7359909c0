"""Smooth maps with inverses and known determinants, as torch.distributions.transforms."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

from mlgpu.distributions import constraints
from mlgpu.distributions.independent import summed
from mlgpu.errors import ShapeError
from mlgpu.nn.functional import logsigmoid, pad, softplus
from mlgpu.ops.arrange import tril_indices
from mlgpu.ops.creation import eye
from mlgpu.ops.join import cat, stack
from mlgpu.tensor import Tensor

__all__ = ["AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform",
           "CorrCholeskyTransform", "CumulativeDistributionTransform", "ExpTransform",
           "IndependentTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform",
           "PowerTransform", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform",
           "SoftplusTransform", "StackTransform", "StickBreakingTransform", "TanhTransform",
           "Transform", "identity_transform"]


class Transform:
    """y = t(x), with `inv` and log |dy/dx|; a subclass defines `_call`, `_inverse` and
    `log_abs_det_jacobian`.

    With `cache_size=1` the inverse of the last result is the x that it was made of, to the last
    bit.  Raises NotImplementedError for the inverse of a map that has none.
    """

    bijective = False
    domain: Any = constraints.real
    codomain: Any = constraints.real

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ShapeError(f"Transform: cache_size must be 0 or 1, got {cache_size}")
        self._cache_size = cache_size
        self._last: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def event_dim(self) -> int:
        """How many dimensions a value has, which must be as many before and after."""
        if self.domain.event_dim != self.codomain.event_dim:
            raise ShapeError(f"{type(self).__name__}: values have other numbers of dimensions "
                             "before and after; see domain.event_dim and codomain.event_dim")
        return int(self.domain.event_dim)

    @property
    def inv(self) -> Transform:
        """The inverse map."""
        return _Inverse(self)

    @property
    def sign(self) -> Any:
        """1 where the map increases, -1 where it decreases."""
        raise NotImplementedError(f"{type(self).__name__}: has no sign")

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same map with a cache, or without."""
        if self._cache_size == cache_size:
            return self
        import copy

        made = copy.copy(self)
        made._cache_size, made._last = cache_size, (None, None)
        return made

    def __call__(self, x: Tensor) -> Tensor:
        if self._cache_size and x is self._last[0]:
            return self._last[1]  # type: ignore[return-value]
        y = self._call(x)
        if self._cache_size:
            self._last = x, y
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and y is self._last[1]:
            return self._last[0]  # type: ignore[return-value]
        x = self._inverse(y)
        if self._cache_size:
            self._last = x, y
        return x

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}: has no forward map")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}: has no inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det dy/dx| for each value."""
        raise NotImplementedError(f"{type(self).__name__}: has no log_abs_det_jacobian")

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape of t(x) for that of x."""
        return shape

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape of x for that of t(x)."""
        return shape

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other)
                                 and self._settings() == other._settings())

    __hash__ = None  # type: ignore[assignment]

    def _settings(self) -> dict[str, Any]:
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in vars(self).items()
                if k not in ("_last", "_cache_size")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    """A map taken backward."""

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform._cache_size)
        self._inv = transform
        self.bijective = transform.bijective

    @property
    def domain(self) -> Any:
        return self._inv.codomain

    @property
    def codomain(self) -> Any:
        return self._inv.domain

    @property
    def inv(self) -> Transform:
        return self._inv

    @property
    def sign(self) -> Any:
        return self._inv.sign

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self._inv.with_cache(cache_size).inv

    def __call__(self, x: Tensor) -> Tensor:
        return self._inv._inv_call(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._inv.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        return self._inv.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        return self._inv.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{self._inv!r}.inv"


class ComposeTransform(Transform):
    """Maps one after the other, the first one first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [part.with_cache(cache_size) if cache_size else part for part in parts]
        self.bijective = all(part.bijective for part in self.parts)

    @property
    def domain(self) -> Any:
        """The first's, with as many dimensions as the widest of them needs."""
        if not self.parts:
            return constraints.real
        needed = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            needed = max(needed + part.domain.event_dim - part.codomain.event_dim,
                         part.domain.event_dim)
        return _widened(self.parts[0].domain, needed)

    @property
    def codomain(self) -> Any:
        """The last's, likewise."""
        if not self.parts:
            return constraints.real
        needed = self.parts[0].domain.event_dim
        for part in self.parts:
            needed = max(needed + part.codomain.event_dim - part.domain.event_dim,
                         part.codomain.event_dim)
        return _widened(self.parts[-1].codomain, needed)

    @property
    def sign(self) -> Any:
        """The product of theirs."""
        return reduce(operator.mul, [part.sign for part in self.parts], 1)

    @property
    def inv(self) -> Transform:
        """The inverses, the last one first."""
        return ComposeTransform([part.inv for part in reversed(self.parts)])

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same maps with caches, or without."""
        return self if self._cache_size == cache_size else ComposeTransform(
            [part.with_cache(cache_size) for part in self.parts], cache_size)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of theirs."""
        if not self.parts:
            return x.new_zeros(x.shape)
        values = [x]
        for part in self.parts[:-1]:
            values.append(part(values[-1]))
        values.append(y)
        dims = self.domain.event_dim
        terms = []
        for part, before, after in zip(self.parts, values, values[1:], strict=False):
            terms.append(summed(part.log_abs_det_jacobian(before, after),
                                dims - part.domain.event_dim))
            dims += part.codomain.event_dim - part.domain.event_dim
        return reduce(operator.add, terms)

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape after all of them."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape before all of them."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        return f"ComposeTransform({self.parts})"


identity_transform = ComposeTransform([])


def _widened(constraint: Any, dims: int) -> Any:
    more = dims - constraint.event_dim
    return constraints.independent(constraint, more) if more > 0 else constraint


class IndependentTransform(Transform):
    """A map whose last `reinterpreted_batch_ndims` further dimensions belong to one value."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int,
                 cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.base_transform = base_transform.with_cache(cache_size)
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.bijective = base_transform.bijective

    @property
    def domain(self) -> Any:
        """The base's, wider."""
        return constraints.independent(self.base_transform.domain, self.reinterpreted_batch_ndims)

    @property
    def codomain(self) -> Any:
        """The base's, wider."""
        return constraints.independent(self.base_transform.codomain,
                                       self.reinterpreted_batch_ndims)

    @property
    def sign(self) -> Any:
        """The base's."""
        return self.base_transform.sign

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over those dimensions."""
        return summed(self.base_transform.log_abs_det_jacobian(x, y),
                      self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """As the base's."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """As the base's."""
        return self.base_transform.inverse_shape(shape)


class ReshapeTransform(Transform):
    """Values of one shape as values of another, of as many elements."""

    bijective = True

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0
                 ) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ShapeError(f"ReshapeTransform: {self.in_shape} and {self.out_shape} differ in "
                             "their numbers of elements")

    @property
    def domain(self) -> Any:
        """All values of the first shape."""
        return constraints.independent(constraints.real, len(self.in_shape))

    @property
    def codomain(self) -> Any:
        """All values of the second shape."""
        return constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:x.ndim - len(self.in_shape)], *self.out_shape)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:y.ndim - len(self.out_shape)], *self.in_shape)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0."""
        return x.new_zeros(x.shape[:x.ndim - len(self.in_shape)])

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape with its end replaced.  ShapeError where that is not the first shape."""
        return _replaced(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """The shape with its end replaced.  ShapeError where that is not the second shape."""
        return _replaced(shape, self.out_shape, self.in_shape)


def _replaced(shape: Sequence[int], end: tuple[int, ...], other: tuple[int, ...]
              ) -> tuple[int, ...]:
    cut = len(shape) - len(end)
    if tuple(shape)[cut:] != end:
        raise ShapeError(f"ReshapeTransform: {tuple(shape)} does not end in {end}")
    return (*tuple(shape)[:cut], *other)


class _Increasing(Transform):
    bijective = True
    sign = 1


class ExpTransform(_Increasing):
    """exp(x)."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """x."""
        return x


class PowerTransform(Transform):
    """x ** exponent, for positive x."""

    bijective = True
    domain = codomain = constraints.positive

    def __init__(self, exponent: Tensor | float, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    @property
    def sign(self) -> Any:
        """That of the exponent."""
        return self.exponent.sign() if isinstance(self.exponent, Tensor) else (
            math.copysign(1, self.exponent))

    def _call(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |exponent y / x|."""
        return (self.exponent * y / x).abs().log()


class SigmoidTransform(_Increasing):
    """1 / (1 + exp(-x)); results are kept from 0 and 1 by the dtype's smallest steps."""

    codomain = constraints.unit_interval

    def _call(self, x: Tensor) -> Tensor:
        tiny, eps = (2.0**-1022, 2.0**-52) if x.itemsize == 8 else (2.0**-126, 2.0**-23)
        return x.sigmoid().clamp(tiny, 1 - eps)

    def _inverse(self, y: Tensor) -> Tensor:
        tiny, eps = (2.0**-1022, 2.0**-52) if y.itemsize == 8 else (2.0**-126, 2.0**-23)
        y = y.clamp(tiny, 1 - eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log sigmoid(x) + log sigmoid(-x)."""
        return logsigmoid(x) + logsigmoid(-x)


class SoftplusTransform(_Increasing):
    """log(1 + exp(x))."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log sigmoid(x)."""
        return logsigmoid(x)


class TanhTransform(_Increasing):
    """tanh(x)."""

    codomain = constraints.interval(-1.0, 1.0)

    def _call(self, x: Tensor) -> Tensor:
        return x.tanh()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """2 (log 2 - x - softplus(-2 x)), which keeps its digits where tanh has none left."""
        return 2 * (math.log(2) - x - softplus(-2 * x))


class AbsTransform(Transform):
    """|x|; its inverse is the positive one."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform):
    """loc + scale x, for values of `event_dim` dimensions."""

    bijective = True

    def __init__(self, loc: Tensor | float, scale: Tensor | float, event_dim: int = 0,
                 cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim

    @property
    def event_dim(self) -> int:
        """How many dimensions a value has."""
        return self._event_dim

    @property
    def domain(self) -> Any:
        """All values."""
        return constraints.independent(constraints.real, self._event_dim) if (
            self._event_dim) else constraints.real

    @property
    def codomain(self) -> Any:
        """All values."""
        return self.domain

    @property
    def sign(self) -> Any:
        """That of the scale."""
        return self.scale.sign() if isinstance(self.scale, Tensor) else (
            (self.scale > 0) - (self.scale < 0))

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |scale|, summed over a value."""
        each = self.scale.abs().log() if isinstance(self.scale, Tensor) else (
            x.new_full((), math.log(abs(self.scale))))
        return summed(each.expand(x.shape), self._event_dim)


class SoftmaxTransform(Transform):
    """exp(x), normalised: many x have the same result."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return x.softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()


class StickBreakingTransform(Transform):
    """n numbers as n + 1 that add up to 1: each takes its share of what is left of a stick."""

    bijective = True
    domain, codomain = constraints.real_vector, constraints.simplex

    def _offset(self, x: Tensor) -> Tensor:
        return (x.shape[-1] + 1 - x.new_ones(x.shape[-1]).cumsum(-1)).log()

    def _call(self, x: Tensor) -> Tensor:
        z = (x - self._offset(x)).sigmoid()
        return pad(z, [0, 1], value=1.0) * pad((1 - z).cumprod(-1), [1, 0], value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        cut = y[..., :-1]
        left = (1 - cut.cumsum(-1)).clamp(min=2.0**-1022 if y.itemsize == 8 else 2.0**-126)
        return cut.log() - left.log() + self._offset(cut)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over the breaks."""
        x = x - self._offset(x)
        return (-x + logsigmoid(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """One more in the last dimension."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """One less in the last dimension."""
        return (*shape[:-1], shape[-1] - 1)


class LowerCholeskyTransform(Transform):
    """A square matrix as a lower triangular one with a positive diagonal."""

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + x.diagonal(0, -2, -1).exp().diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + y.diagonal(0, -2, -1).log().diag_embed()


class PositiveDefiniteTransform(Transform):
    """A square matrix as L L^T of its lower triangular form with a positive diagonal."""

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        from mlgpu import linalg

        return LowerCholeskyTransform().inv(linalg.cholesky(y))


class CorrCholeskyTransform(Transform):
    """n (n - 1) / 2 numbers as the Cholesky factor of a matrix of correlations (n, n).

    Row by row, each number's tanh is what it takes of the row's length 1 that is left (Stan's
    reference manual, section on Cholesky factors of correlation matrices).
    """

    bijective = True
    domain, codomain = constraints.real_vector, constraints.corr_cholesky

    @staticmethod
    def _size(count: int) -> int:
        n = round((1 + math.sqrt(1 + 8 * count)) / 2)
        if n * (n - 1) // 2 != count:
            raise ShapeError(f"CorrCholeskyTransform: {count} numbers are not n (n - 1) / 2")
        return n

    def _call(self, x: Tensor) -> Tensor:
        x = x.tanh()
        eps = 2.0**-52 if x.itemsize == 8 else 2.0**-23
        x = x.clamp(-1 + eps, 1 - eps)
        n = self._size(x.shape[-1])
        rows, columns = tril_indices(n, n, -1, device=x.device)
        r = x.new_zeros((*x.shape[:-1], n, n))
        r[..., rows, columns] = x
        left = (1 - r.square()).sqrt().cumprod(-1)
        return (r + eye(n, dtype=x.dtype, device=x.device)) * pad(left[..., :-1], [1, 0], value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        n = y.shape[-1]
        left = pad((1 - y.square().cumsum(-1))[..., :-1], [1, 0], value=1.0)
        rows, columns = tril_indices(n, n, -1, device=y.device)
        return (y[..., rows, columns] / left[..., rows, columns].sqrt()).atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over the entries below the diagonal."""
        n = y.shape[-1]
        rows, columns = tril_indices(n, n, -2, device=y.device)
        left = (1 - y.square().cumsum(-1))[..., rows, columns]
        return 0.5 * left.log().sum(-1) - 2 * (x + softplus(-2 * x) - math.log(2)).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """(..., n, n)."""
        n = self._size(shape[-1])
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: Sequence[int]) -> Sequence[int]:
        """(..., n (n - 1) / 2)."""
        n = shape[-1]
        return (*shape[:-2], n * (n - 1) // 2)


class CumulativeDistributionTransform(_Increasing):
    """The cdf of a distribution over numbers."""

    codomain = constraints.unit_interval

    def __init__(self, distribution: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:
        """Where the distribution has values."""
        return self.distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the density."""
        return self.distribution.log_prob(x)  # type: ignore[no-any-return]


class _Joined(Transform):
    """Maps side by side along a dimension: each has its part of it."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms = [t.with_cache(cache_size) if cache_size else t for t in tseq]
        self.dim = dim
        self.bijective = all(t.bijective for t in tseq)

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        raise NotImplementedError

    def _together(self, parts: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def _call(self, x: Tensor) -> Tensor:
        return self._together([t(part) for t, part in zip(self.transforms, self._parts(x),
                                                          strict=True)])

    def _inverse(self, y: Tensor) -> Tensor:
        return self._together([t.inv(part) for t, part in zip(self.transforms, self._parts(y),
                                                              strict=True)])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Each part's."""
        return self._together([t.log_abs_det_jacobian(a, b) for t, a, b in zip(
            self.transforms, self._parts(x), self._parts(y), strict=True)])


class CatTransform(_Joined):
    """Maps of parts of these lengths along a dimension (default: 1 each)."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, lengths: Any = None,
                 cache_size: int = 0) -> None:
        super().__init__(tseq, dim, cache_size)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)

    @property
    def domain(self) -> Any:
        """Theirs, side by side."""
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self) -> Any:
        """Theirs, side by side."""
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        return x.split(self.lengths, self.dim)

    def _together(self, parts: list[Tensor]) -> Tensor:
        return cat(parts, self.dim)


class StackTransform(_Joined):
    """Maps of the entries along a dimension."""

    @property
    def domain(self) -> Any:
        """Theirs, side by side."""
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @property
    def codomain(self) -> Any:
        """Theirs, side by side."""
        return constraints.stack([t.codomain for t in self.transforms], self.dim)

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        return x.unbind(self.dim)

    def _together(self, parts: list[Tensor]) -> Tensor:
        return stack(parts, self.dim)
