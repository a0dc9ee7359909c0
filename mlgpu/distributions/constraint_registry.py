"""From all numbers into a set, as torch.distributions.constraint_registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.distributions import constraints, transforms

Factory = Callable[[Any], transforms.Transform]


class ConstraintRegistry:
    """A map for each kind of set: called with a set it gives the map whose results lie in it."""

    def __init__(self) -> None:
        self._by_class: dict[type, Factory] = {}

    def register(self, constraint: Any, factory: Factory | None = None) -> Any:
        """Give the map for a kind of set, a class or one set; also a decorator."""
        if factory is None:
            return lambda decorated: self.register(constraint, decorated)
        self._by_class[constraint if isinstance(constraint, type) else type(constraint)] = factory
        return factory

    def __call__(self, constraint: Any) -> transforms.Transform:
        """NotImplementedError where no map is known for the set, as for whole numbers."""
        if constraint.is_discrete:
            raise NotImplementedError(f"no smooth transform leads to {constraint!r}")
        for kind in type(constraint).__mro__:
            if kind in self._by_class:
                return self._by_class[kind](constraint)
        raise NotImplementedError(f"no transform is known for {constraint!r}; register() adds one")


biject_to = ConstraintRegistry()  # one value of the set for each of all numbers
transform_to = ConstraintRegistry()  # not always one to one, and easy to optimise through


def _both(constraint: Any) -> Callable[[Factory], Factory]:
    def register(factory: Factory) -> Factory:
        biject_to.register(constraint, factory)
        transform_to.register(constraint, factory)
        return factory

    return register


_both(constraints.real)(lambda c: transforms.identity_transform)
_both(constraints.positive)(lambda c: _shifted(transforms.ExpTransform(), c.lower_bound, 1))
_both(constraints.nonnegative)(lambda c: _shifted(transforms.ExpTransform(), c.lower_bound, 1))
_both(constraints.less_than)(lambda c: _shifted(transforms.ExpTransform(), c.upper_bound, -1))
_both(constraints.lower_cholesky)(lambda c: transforms.LowerCholeskyTransform())
_both(constraints.positive_definite)(lambda c: transforms.PositiveDefiniteTransform())
_both(constraints.positive_semidefinite)(lambda c: transforms.PositiveDefiniteTransform())
_both(constraints.corr_cholesky)(lambda c: transforms.CorrCholeskyTransform())
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())


def _shifted(first: transforms.Transform, loc: Any, scale: Any) -> transforms.Transform:
    if isinstance(loc, (int, float)) and (loc, scale) == (0, 1):
        return first
    return transforms.ComposeTransform([first, transforms.AffineTransform(loc, scale)])


@_both(constraints.interval)
@_both(constraints.half_open_interval)
def _between(c: Any) -> transforms.Transform:
    return _shifted(transforms.SigmoidTransform(), c.lower_bound, c.upper_bound - c.lower_bound)


def _independent(registry: ConstraintRegistry) -> Factory:
    return lambda c: transforms.IndependentTransform(registry(c.base_constraint),
                                                     c.reinterpreted_batch_ndims)


def _cat(registry: ConstraintRegistry) -> Factory:
    return lambda c: transforms.CatTransform([registry(part) for part in c.cseq], c.dim, c.lengths)


def _stack(registry: ConstraintRegistry) -> Factory:
    return lambda c: transforms.StackTransform([registry(part) for part in c.cseq], c.dim)


for _registry in (biject_to, transform_to):
    _registry.register(constraints.independent, _independent(_registry))
    _registry.register(constraints.cat, _cat(_registry))
    _registry.register(constraints.stack, _stack(_registry))
