"""What all distributions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.cuda.context import context
from mlgpu.dtypes import get_default_dtype
from mlgpu.errors import DerivativeError, ShapeError
from mlgpu.ops.creation import tensor
from mlgpu.ops.view import broadcast_tensors
from mlgpu.tensor import Size, Tensor


class Distribution:
    """A distribution over tensors of `event_shape`, one for each index of `batch_shape`.

    `sample(shape)` has the shape (*shape, *batch_shape, *event_shape) and no graph; `rsample` the
    same with gradients for the parameters, where `has_rsample`.
    """

    has_rsample = False
    has_enumerate_support = False

    def __init__(self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)

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

    Not asked where `validate_args=False`, and not while a CUDA graph is captured.
    """
    if validate is False or context.capture is not None:
        return
    for name, (good, rule) in valid.items():
        if not bool(good.all()):
            raise ShapeError(f"{type(owner).__name__}: {name} must be {rule} everywhere")


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Raise ShapeError unless exactly one of the two is given."""
    if (probs is None) == (logits is None):
        raise ShapeError(f"{name}: expected probs or logits, and not both")
