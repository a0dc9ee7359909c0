"""What all distributions have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.cuda.context import context
from mlgpu.distributions import constraints
from mlgpu.dtypes import get_default_dtype
from mlgpu.errors import DerivativeError, ShapeError
from mlgpu.ops.creation import tensor
from mlgpu.ops.view import broadcast_tensors
from mlgpu.tensor import Size, Tensor

_validate = True


class Distribution:
    """A distribution over tensors of `event_shape`, one for each index of `batch_shape`.

    `sample(shape)` has the shape (*shape, *batch_shape, *event_shape) and no graph; `rsample` the
    same with gradients for the parameters, where `has_rsample`.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 -- the set each parameter lies in
    support: Any = None  # the set its values lie in; None where it is not known
    _validate_args = False

    def __init__(self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for each index of a larger batch, without a copy."""
        made = copy.copy(self) if _instance is None else _instance
        shape, before = Size(batch_shape), len(self._batch_shape)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                made.__dict__[name] = value.expand(*shape, *value.shape[before:])
            elif isinstance(value, Distribution):
                made.__dict__[name] = value.expand((*shape, *value.batch_shape[before:]))
            else:
                made.__dict__[name] = value
        made._batch_shape = shape
        return made

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether parameters are checked where `validate_args` does not say (at first: yes)."""
        global _validate
        _validate = value

    def _validate_sample(self, value: Tensor) -> None:
        """Raise ShapeError (a ValueError) for a value outside the support."""
        support = self.support
        if support is not None and not constraints.is_dependent(support) and not bool(
                support.check(value).all()):
            raise ShapeError(f"{type(self).__name__}: a value is outside the support, {support!r}")

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """An object of the class without its `__init__`, for a subclass's own `expand`."""
        return type(self).__new__(type(self)) if _instance is None else _instance

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters: so many distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values without a graph."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Tensor:
        """`n` values."""
        return self.sample((n,))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values as functions of the parameters.  DerivativeError where there is no such form."""
        raise DerivativeError(f"{type(self).__name__}: has no rsample, as its values are no smooth "
                              "function of its parameters; use sample() and log_prob()")

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of density or probability, of the shape (*sample_shape, *batch_shape)."""
        raise NotImplementedError(f"{type(self).__name__}: has no log_prob")

    def entropy(self) -> Tensor:
        """The entropy in nats, of the shape batch_shape."""
        raise NotImplementedError(f"{type(self).__name__}: has no entropy")

    def icdf(self, value: Tensor) -> Tensor:
        """The value whose cdf is `value`."""
        raise NotImplementedError(f"{type(self).__name__}: has no icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, along a new first dimension, where there are finitely many."""
        raise NotImplementedError(f"{type(self).__name__}: has no enumerate_support")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value that is not greater."""
        raise NotImplementedError(f"{type(self).__name__}: has no cdf")

    @property
    def mean(self) -> Tensor:
        """The expected value."""
        raise NotImplementedError(f"{type(self).__name__}: has no mean")

    @property
    def variance(self) -> Tensor:
        """The expected square of the distance from the mean."""
        raise NotImplementedError(f"{type(self).__name__}: has no variance")

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise NotImplementedError(f"{type(self).__name__}: has no mode")

    @property
    def stddev(self) -> Tensor:
        """The root of the variance."""
        return self.variance.sqrt()

    def perplexity(self) -> Tensor:
        """e to the power of the entropy."""
        return self.entropy().exp()

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(batch_shape={tuple(self._batch_shape)}, "
                f"event_shape={tuple(self._event_shape)})")


class ExponentialFamily(Distribution):
    """A distribution of the exponential family; PyTorch's programs ask for the class."""


def parameters(*values: Tensor | float) -> tuple[Tensor, ...]:
    """Parameters as tensors of one shape, dtype and device."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    options: dict[str, Any] = ({"dtype": tensors[0].dtype, "device": tensors[0].device} if tensors
                               else {"dtype": get_default_dtype()})
    return broadcast_tensors(*[v if isinstance(v, Tensor) else tensor(v, **options)
                               for v in values])


def check(owner: Distribution, validate: bool | None, **valid: tuple[Tensor, str]) -> None:
    """Raise ShapeError, a ValueError, for a parameter of which some entry is not as it must be.

    Not asked where `validate_args=False` or `set_default_validate_args` says so, and not while a
    CUDA graph is captured.
    """
    if not (_validate if validate is None else validate) or context.capture is not None:
        return
    for name, (good, rule) in valid.items():
        if not bool(good.all()):
            raise ShapeError(f"{type(owner).__name__}: {name} must be {rule} everywhere")


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Raise ShapeError unless exactly one of the two is given."""
    if (probs is None) == (logits is None):
        raise ShapeError(f"{name}: expected probs or logits, and not both")
