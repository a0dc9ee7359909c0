"""Initialisation of parameters in place, outside autograd; as torch.nn.init."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.tensor import Tensor

__all__ = ["calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_",
           "normal_", "ones_", "orthogonal_", "sparse_", "trunc_normal_", "uniform_",
           "xavier_normal_", "xavier_uniform_", "zeros_"]

_GAINS = {"sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75,
          "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0,
          "conv_transpose2d": 1.0, "conv_transpose3d": 1.0}


class _State(threading.local):
    skips = False


_state = _State()


@contextmanager
def skipped() -> Iterator[None]:
    """Within it the functions below leave the tensors of this thread as they are."""
    before, _state.skips = _state.skips, True
    try:
        yield
    finally:
        _state.skips = before


def _overwrites(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def wrapped(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        if _state.skips:
            return tensor
        with no_grad():
            return function(tensor, *args, **options)

    return wrapped


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights are scaled up before a nonlinearity.

    `param` is leaky_relu's negative slope (0.01).  ShapeError for an unknown name.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ShapeError(f"calculate_gain: the negative slope must be a number, got {slope!r}")
        return math.sqrt(2 / (1 + slope ** 2))
    if nonlinearity not in _GAINS:
        raise ShapeError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; known are "
                         f"leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ShapeError("init: fan in and fan out need at least 2 dimensions, got shape "
                         f"{tuple(tensor.shape)}")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def _fan(tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ShapeError(f"init: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


@_overwrites
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform between `a` and `b`."""
    return tensor.uniform_(a, b, generator=generator)


@_overwrites
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@_overwrites
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0,
                  b: float = 2.0, generator: Any = None) -> Tensor:
    """Normal, confined to a <= x <= b, by inverting the cumulative distribution.

    Raises ShapeError where that interval has no probability left in double precision.
    """
    low, high = (a - mean) / std, (b - mean) / std
    sign = 1.0
    if low > 0:  # the lower tail has the finer numbers: draw there and mirror
        low, high, sign = -high, -low, -1.0
    floor, ceiling = (math.erfc(-x / math.sqrt(2)) - 1 for x in (low, high))
    if not floor < ceiling:
        raise ShapeError(f"trunc_normal_: [{a}, {b}] is too far from a mean of {mean} with a "
                         f"standard deviation of {std}, or empty")
    draws = tensor.new_empty(tensor.shape, dtype=dtypes.float64)
    draws.uniform_(floor, ceiling, generator=generator).erfinv_()
    draws.mul_(sign * std * math.sqrt(2)).add_(mean).clamp_(a, b)
    return tensor.copy_(draws)


@_overwrites
def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


@_overwrites
def eye_(tensor: Tensor) -> Tensor:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: expected 2 dimensions, got {tuple(tensor.shape)}")
    return tensor.zero_().fill_diagonal_(1)


@_overwrites
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight that passes as many input channels through as it can.

    Raises ShapeError unless it has 3 to 5 dimensions, the first divisible by `groups`.
    """
    if not 3 <= tensor.ndim <= 5:
        raise ShapeError(f"dirac_: expected 3 to 5 dimensions, got {tuple(tensor.shape)}")
    if tensor.shape[0] % groups:
        raise ShapeError(f"dirac_: {tensor.shape[0]} output channels are not divisible by "
                         f"{groups} groups")
    per_group = tensor.shape[0] // groups
    centre = tuple(n // 2 for n in tensor.shape[2:])
    tensor.zero_()
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            tensor[(group * per_group + channel, channel, *centre)] = 1
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform within ±gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    std = gain * math.sqrt(2 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def _kaiming(draw: Callable[[Tensor, float], Tensor], tensor: Tensor, a: float, mode: str,
             nonlinearity: str) -> Tensor:
    if 0 in tensor.shape:
        return tensor
    gain = calculate_gain(nonlinearity, a)
    return draw(tensor, gain / math.sqrt(_fan(tensor, mode)))


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                     nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Uniform within ±gain sqrt(3 / fan) (He et al. 2015); `a` is leaky_relu's negative slope."""
    def draw(tensor: Tensor, std: float) -> Tensor:
        bound = math.sqrt(3) * std
        return uniform_(tensor, -bound, bound, generator)

    return _kaiming(draw, tensor, a, mode, nonlinearity)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                    nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan) (He et al. 2015)."""
    return _kaiming(lambda tensor, std: normal_(tensor, 0.0, std, generator), tensor, a, mode,
                    nonlinearity)


@_overwrites
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """`gain` times a random (semi-)orthogonal matrix, dimensions after the first flattened.

    By QR of a normal matrix with the signs fixed, which makes it uniform (Mezzadri 2007).
    """
    from mlgpu import linalg

    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected at least 2 dimensions, got {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    exact = dtypes.compute_dtype(tensor.dtype)
    draws = tensor.new_empty(rows, columns, dtype=exact).normal_(0, 1, generator=generator)
    q, r = linalg.qr(draws.T if rows < columns else draws)
    q = q * r.diagonal().sign()
    return tensor.copy_((gain * (q.T if rows < columns else q)).reshape(tensor.shape))


@_overwrites
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """A normal matrix in whose columns a fraction `sparsity` of the rows is zero (Martens 2010)."""
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_: expected 2 dimensions, got {tuple(tensor.shape)}")
    from mlgpu.ops.random import randperm

    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    for column in range(columns):
        tensor[randperm(rows, generator=generator, device=tensor.device)[:zeros], column] = 0
    return tensor
