"""Sets that parameters and values of distributions lie in, as torch.distributions.constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu import linalg
from mlgpu.errors import ShapeError
from mlgpu.tensor import Tensor

__all__ = ["Constraint", "boolean", "cat", "corr_cholesky", "dependent", "dependent_property",
           "greater_than", "greater_than_eq", "half_open_interval", "independent",
           "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky",
           "lower_triangular", "multinomial", "nonnegative", "nonnegative_integer", "one_hot",
           "positive", "positive_definite", "positive_integer", "positive_semidefinite", "real",
           "real_vector", "simplex", "square", "stack", "symmetric", "unit_interval"]


class Constraint:
    """A set of tensors of `event_dim` dimensions, of whole numbers if `is_discrete`."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        """Whether each event of `value` is in the set."""
        raise NotImplementedError(f"{type(self).__name__}: has no check")

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in vars(self).items()
                          if not k.startswith("_") and k not in ("event_dim", "is_discrete"))
        return f"{type(self).__name__.strip('_')}({given})"


class _Dependent(Constraint):
    """A set that depends on other parameters, or is not known."""

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, *, is_discrete: bool = False, event_dim: int = 0) -> _Dependent:
        """One of this kind with these attributes."""
        return _Dependent(is_discrete=is_discrete, event_dim=event_dim)

    def check(self, value: Tensor) -> Tensor:
        raise ShapeError("constraints.dependent: cannot be checked without the distribution")


def is_dependent(constraint: Any) -> bool:
    """Whether it is a set that only the distribution knows."""
    return isinstance(constraint, _Dependent)


class _DependentProperty(property, _Dependent):
    """A property of a distribution whose value is the set."""

    def __init__(self, fn: Callable[..., Any] | None = None, *, is_discrete: bool = False,
                 event_dim: int = 0) -> None:
        property.__init__(self, fn)
        _Dependent.__init__(self, is_discrete=is_discrete, event_dim=event_dim)

    def __call__(self, fn: Callable[..., Any]) -> _DependentProperty:  # type: ignore[override]
        return _DependentProperty(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def _set(name: str, holds: Callable[[Tensor], Tensor], event_dim: int = 0,
         is_discrete: bool = False) -> Constraint:
    """A set told by a function of values: the one object of a class of its own."""
    def check(self: Constraint, value: Tensor) -> Tensor:
        """Whether each event of `value` is in the set."""
        return holds(value)

    kind = type(f"_{name}", (Constraint,), {"check": check, "event_dim": event_dim,
                                            "is_discrete": is_discrete, "__module__": __name__})
    return kind()  # type: ignore[no-any-return]


class _Simplex(Constraint):
    """Numbers from 0 on that add up to 1, along the last dimension."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-6)


class _GreaterThan(Constraint):
    def __init__(self, lower_bound: Any) -> None:
        self.lower_bound = lower_bound

    def check(self, value: Tensor) -> Tensor:
        return value > self.lower_bound  # type: ignore[no-any-return]


class _GreaterThanEq(_GreaterThan):
    def check(self, value: Tensor) -> Tensor:
        return value >= self.lower_bound  # type: ignore[no-any-return]


class _LessThan(Constraint):
    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Tensor) -> Tensor:
        return value < self.upper_bound  # type: ignore[no-any-return]


class _Interval(Constraint):
    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    def check(self, value: Tensor) -> Tensor:
        return (self.lower_bound <= value) & (value <= self.upper_bound)  # type: ignore[no-any-return]


class _HalfOpenInterval(_Interval):
    def check(self, value: Tensor) -> Tensor:
        return (self.lower_bound <= value) & (value < self.upper_bound)  # type: ignore[no-any-return]


class _IntegerInterval(_Interval):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return super().check(value) & (value % 1 == 0)


class _IntegerGreaterThan(_GreaterThan):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value >= self.lower_bound) & (value % 1 == 0)  # type: ignore[no-any-return]


class _Multinomial(Constraint):
    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(-1) & (value.sum(-1) <= self.upper_bound)  # type: ignore[no-any-return]


class _Independent(Constraint):
    """A set of events side by side: the last `reinterpreted_batch_ndims` dimensions are one."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims

    def check(self, value: Tensor) -> Tensor:
        result = self.base_constraint.check(value)
        return result.flatten(-self.reinterpreted_batch_ndims).all(-1) if (
            self.reinterpreted_batch_ndims) else result


class _Joined(Constraint):
    """Sets side by side along a dimension."""

    def __init__(self, cseq: Any, dim: int = 0, lengths: Any = None) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq)

    def check(self, value: Tensor) -> Tensor:
        from mlgpu.ops.join import cat as joined

        parts = value.split(self.lengths, self.dim)
        return joined([c.check(part) for c, part in zip(self.cseq, parts, strict=True)], self.dim)


class _Stacked(_Joined):
    def check(self, value: Tensor) -> Tensor:
        from mlgpu.ops.join import stack as stacked

        parts = value.unbind(self.dim)
        return stacked([c.check(part) for c, part in zip(self.cseq, parts, strict=True)], self.dim)


def _diagonal(value: Tensor) -> Tensor:
    return value.diagonal(0, -2, -1)


def _whole(mask: Tensor) -> Tensor:
    return mask.flatten(-2).all(-1)


def _is_lower(value: Tensor) -> Tensor:
    return _whole(value.tril() == value)


def _is_symmetric(value: Tensor) -> Tensor:
    return _whole((value - value.mT).abs() <= 1e-6)


def _is_definite(value: Tensor) -> Tensor:
    return _is_symmetric(value) & (linalg.cholesky_ex(value).info == 0)


dependent = _Dependent()
dependent_property = _DependentProperty
independent = _Independent
cat, stack = _Joined, _Stacked
greater_than, greater_than_eq, less_than = _GreaterThan, _GreaterThanEq, _LessThan
interval, half_open_interval = _Interval, _HalfOpenInterval
integer_interval, multinomial = _IntegerInterval, _Multinomial
boolean = _set("Boolean", lambda v: (v == 0) | (v == 1), 0, True)
one_hot = _set("OneHot", lambda v: ((v == 0) | (v == 1)).all(-1) & (v.sum(-1) == 1), 1, True)
nonnegative_integer = _IntegerGreaterThan(0)
positive_integer = _IntegerGreaterThan(1)
real = _set("Real", lambda v: v == v)
real_vector = _Independent(real, 1)
positive, nonnegative = _GreaterThan(0.0), _GreaterThanEq(0.0)
unit_interval = _Interval(0.0, 1.0)
simplex = _Simplex()
lower_triangular = _set("LowerTriangular", _is_lower, 2)
lower_cholesky = _set("LowerCholesky", lambda v: _is_lower(v) & (_diagonal(v) > 0).all(-1), 2)
corr_cholesky = _set("CorrCholesky", lambda v: lower_cholesky.check(v) & (
    (v.square().sum(-1) - 1).abs() < 1e-4).all(-1), 2)
square = _set("Square", lambda v: v.new_ones(v.shape[:-2]).bool() if (
    v.shape[-2] == v.shape[-1]) else v.new_zeros(v.shape[:-2]).bool(), 2)
symmetric = _set("Symmetric", _is_symmetric, 2)
positive_definite = _set("PositiveDefinite", _is_definite, 2)
positive_semidefinite = _set("PositiveSemidefinite", lambda v: _is_symmetric(v) & (
    linalg.eigvalsh(v) >= 0).all(-1), 2)
