"""Random numbers over the elements of a tensor: uniform_, normal_, random_ and the like.

The elements are drawn in C order, whatever the tensor's strides.  The result does not depend on
what was there before or, differentiably, on the parameters: their gradients are zero.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import random as numbers
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import random as cuda_numbers
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op
from mlgpu.random import Generator, Stream, default_generator
from mlgpu.tensor import Tensor

__all__ = ["bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_",
           "random_", "uniform_"]


class Fill(NamedTuple):
    """What fills its first array, given the arrays of the parameters, on either device."""

    cpu: Callable[..., None]
    cuda: Callable[..., None]


def alike(name: str, generator: Generator | None, words: Callable[[Any], int], *args: Any) -> Fill:
    """A function that both devices have under this name, of `words(out)` words and `args`."""
    def on(functions: Any) -> Callable[..., None]:
        def fill(out: Any, *unused: Any) -> None:
            getattr(functions, name)(out, reserve(generator, words(out)), *args)

        return fill

    return Fill(on(numbers), on(cuda_numbers))


class Draw(Op):
    """Random numbers whose parameters, the inputs, have zero gradient."""

    def __init__(self, name: str, fill: Fill) -> None:
        self.name = name
        self.fill = fill

    def forward(self, *arrays: Any) -> Any:
        out = empty(np.broadcast_shapes(*[a.shape for a in arrays]), arrays[0].dtype)
        self.fill.cpu(out, *arrays)
        return out

    def forward_into(self, out: Any, target: Any, *arrays: Any) -> None:
        self.fill.cpu(out, *arrays)

    def forward_cuda(self, *arrays: Any) -> Any:
        shape = np.broadcast_shapes(*[a.shape for a in arrays])
        out = cuda_runtime.empty(shape, arrays[0].dtype)
        self.fill.cuda(out, *arrays)
        return out

    def forward_into_cuda(self, out: Any, target: Any, *arrays: Any) -> None:
        self.fill.cuda(out, *arrays)

    def backward(self, dy: Tensor) -> tuple[Tensor, ...]:
        return tuple(dy.new_zeros(shape) for shape, _ in self._inputs_meta)


def reserve(generator: Generator | None, words: int) -> Stream:
    """The stream of one draw, from the process's own generator where None is given."""
    if generator is None:
        return default_generator.reserve(words)
    if not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a Generator, got {type(generator).__name__}")
    return generator.reserve(words)


def real_count(out: Any) -> int:
    """Numbers that a real or complex array holds."""
    return out.size * (2 if out.dtype.kind == "c" else 1)  # type: ignore[no-any-return]


def floating(name: str, dtype: dtypes.dtype, complex_too: bool = True) -> dtypes.dtype:
    """The dtype.  DTypeError unless floating (or complex)."""
    if not (dtype.is_floating_point or (complex_too and dtype.is_complex)):
        raise DTypeError(f"{name}: not available for {dtype!r}; use a floating dtype")
    return dtype


# --- uniform and normal ---------------------------------------------------------------------------


def uniform_fill(generator: Generator | None, low: float, high: float) -> Fill:
    """What fills an array uniformly from [low, high)."""
    def words(out: Any) -> int:
        return numbers.words_for(real_count(out), numbers.width(out.real.dtype))

    return alike("uniform", generator, words, low, high)


def uniform_(self: Tensor, from_: float = 0.0, to: float = 1.0, *,
             generator: Generator | None = None) -> Tensor:
    """Uniform in [from_, to); parts of complex numbers each.  ShapeError for impossible bounds."""
    kind = floating("uniform_", self.dtype).to_real()
    low, high, limit = float(from_), float(to), dtypes.finfo(kind).max
    for name, bound in (("from_", low), ("to", high)):
        if not abs(bound) <= limit:
            raise ShapeError(f"uniform_: {name}={bound} is out of bounds for {kind!r}")
    if low > high:
        raise ShapeError(f"uniform_: expects a range [from_, to), but found from_={low} > "
                         f"to={high}")
    if high - low > limit:
        raise ShapeError(f"uniform_: to - from_ = {high - low} exceeds the largest {kind!r}")
    return run_inplace(Draw("uniform", uniform_fill(generator, low, high)), self)


def normal_fill(name: str, generator: Generator | None, mean: float, std: float) -> Fill:
    """What fills an array from a normal; complex numbers have half of the variance in each part."""
    if not std >= 0:
        raise ShapeError(f"{name}: expects std >= 0, but found std {std}")

    def on(functions: Any) -> Callable[..., None]:
        def fill(out: Any) -> None:
            spread = std / math.sqrt(2) if out.dtype.kind == "c" else std
            functions.normal(out, reserve(generator, normal_words(out)), mean, spread)

        return fill

    return Fill(on(numbers), on(cuda_numbers))


def normal_words(out: Any) -> int:
    """Words that as many normal numbers take."""
    count = real_count(out)
    return numbers.words_for(count + count % 2, numbers.pair_width(out.real.dtype))


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *,
            generator: Generator | None = None) -> Tensor:
    """Normal with this mean and standard deviation.  ShapeError for a negative std."""
    floating("normal_", self.dtype)
    return run_inplace(Draw("normal", normal_fill("normal_", generator, mean, std)), self)


# --- functions of one uniform number --------------------------------------------------------------


def _transform(self: Tensor, name: str, generator: Generator | None,
               function: Callable[[Any], Any], a: float, b: float = 0.0) -> Tensor:
    """`function` is what the kernel's function of that name is, with a and b."""
    def stream(out: Any) -> Stream:
        return reserve(generator, numbers.words_for(out.size, numbers.pair_width(out.dtype)))

    fill = Fill(lambda out: numbers.transformed(out, stream(out), function),
                lambda out: cuda_numbers.transformed(out, stream(out), name, a, b))
    return run_inplace(Draw(name, fill), self)


def exponential_(self: Tensor, lambd: float = 1.0, *,
                 generator: Generator | None = None) -> Tensor:
    """Exponential with rate lambd, always > 0.  ShapeError unless lambd > 0."""
    floating("exponential_", self.dtype, complex_too=False)
    if not lambd > 0:
        raise ShapeError(f"exponential_: expects lambd > 0, but found lambd={lambd}")

    def function(u: Any) -> Any:
        x = np.log(u, out=u)
        np.negative(x, out=x)
        np.maximum(x, x.dtype.type(np.finfo(x.dtype).eps / 2), out=x)
        return np.divide(x, x.dtype.type(lambd), out=x)

    return _transform(self, "exponential", generator, function, lambd)


def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *,
            generator: Generator | None = None) -> Tensor:
    """median + sigma * tan(pi * (u - 1/2)).  ShapeError unless sigma > 0."""
    floating("cauchy_", self.dtype, complex_too=False)
    if not sigma > 0:
        raise ShapeError(f"cauchy_: expects sigma > 0, but found sigma={sigma}")

    def function(u: Any) -> Any:
        # In float64: near the pole, the angle's rounding would show.
        return median + sigma * np.tan(math.pi * (u.astype(np.float64) - 0.5))

    return _transform(self, "cauchy", generator, function, median, sigma)


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Trials up to the first success: P(k) = (1 - p)**(k - 1) * p.  ShapeError unless 0 < p < 1."""
    if self.dtype.kind not in ("int", "float"):
        raise DTypeError(f"geometric_: not available for {self.dtype!r}; use an integer or "
                         "floating dtype")
    if not 0 < p < 1:
        raise ShapeError(f"geometric_: expects p to be in (0, 1), but got p={p}")
    rate = math.log1p(-p)

    def function(u: Any) -> Any:
        return np.maximum(np.ceil(np.log(u.astype(np.float64)) / rate), 1)

    return _transform(self, "geometric", generator, function, rate)


def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *,
                generator: Generator | None = None) -> Tensor:
    """exp of a normal with this mean and standard deviation.  ShapeError unless std > 0."""
    floating("log_normal_", self.dtype, complex_too=False)
    if not std > 0:
        raise ShapeError(f"log_normal_: expects std > 0, but found std={std}")
    draw = normal_fill("log_normal_", generator, mean, std)

    def fill(out: Any) -> None:
        normals = empty(out.shape, np.float32 if out.dtype.itemsize == 2 else out.dtype)
        draw.cpu(normals)
        out[...] = np.exp(normals, out=normals)

    def fill_cuda(out: Any) -> None:
        cuda_numbers.log_normal(out, reserve(generator, normal_words(out)), mean, std)

    return run_inplace(Draw("log_normal", Fill(fill, fill_cuda)), self)


# --- integers -------------------------------------------------------------------------------------


def integer_fill(generator: Generator | None, low: int, n: int) -> Fill:
    """What fills an array with integers from [low, low + n)."""
    return alike("integers", generator, lambda out: numbers.integer_words(out.size, n), low, n)


def whole(name: str, value: Any) -> int:
    """A bound given as an int or an integer tensor of one element."""
    try:
        return operator.index(value.item() if isinstance(value, Tensor) else value)
    except TypeError:
        raise TypeError(f"{name}: bounds must be ints, got {value!r}") from None


def bounds(name: str, low: int, high: int, dtype: dtypes.dtype) -> tuple[int, int]:
    """(lowest, count) of the integers in [low, high] that are drawn for this dtype.

    DTypeError where the dtype cannot hold a bound, ShapeError where the range is empty.  A floating
    dtype rounds large integers: the range is cut so that none is rounded out of it.
    """
    if low > high:
        raise ShapeError(f"{name}: expects 'from' to be less than 'to', but got from={low} >= "
                         f"to={high + 1}")
    least, most = _limits(name, dtype)
    for bound in (low, high):
        if not least <= bound <= most:
            raise DTypeError(f"{name}: {bound} is out of bounds for {dtype!r}")
    if dtype.is_floating_point:
        digits = _digits(dtype)
        if int(dtype.numpy.type(low)) < low:
            low += 1 << (abs(low).bit_length() - digits)
        if int(dtype.numpy.type(high)) > high:
            high -= 1 << (abs(high).bit_length() - digits)
        if low > high:
            raise DTypeError(f"{name}: {dtype!r} holds no integer between the bounds")
    return low, high - low + 1


def _digits(dtype: dtypes.dtype) -> int:
    return 1 - round(math.log2(dtypes.finfo(dtype).eps))


def _limits(name: str, dtype: dtypes.dtype) -> tuple[int, int]:
    if dtype.is_complex:
        raise DTypeError(f"{name}: not available for {dtype!r}; use a real dtype")
    if dtype.kind == "bool":
        return 0, 1
    if dtype.is_floating_point:
        largest = int(dtypes.finfo(dtype).max)
        return max(-largest, -2**63), min(largest, 2**63 - 1)
    info = dtypes.iinfo(dtype)
    return info.min, info.max


_ABSENT: Any = object()


def random_(self: Tensor, from_: Any = _ABSENT, to: Any = _ABSENT, *,
            generator: Generator | None = None) -> Tensor:
    """Integers: `random_(to)` from [0, to), `random_(from_, to)` from [from_, to).

    `random_()` and `random_(from_, None)` go up to the dtype's largest: for float32 and its kind
    the last with all integers below it exact, 2**24.
    """
    if to is _ABSENT and from_ is not _ABSENT:
        from_, to = 0, from_
    low = 0 if from_ is _ABSENT else whole("random_", from_)
    if to is None or to is _ABSENT:
        largest = _limits("random_", self.dtype)[1]
        high = 2 ** _digits(self.dtype) if self.dtype.is_floating_point else largest
    else:
        high = whole("random_", to) - 1
    low, n = bounds("random_", low, high, self.dtype)
    return run_inplace(Draw("random", integer_fill(generator, low, n)), self)


# --- bernoulli ------------------------------------------------------------------------------------


def bernoulli_fill(name: str, generator: Generator | None, p: float) -> Fill:
    """What fills an array with ones at probability p.  ShapeError unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise ShapeError(f"{name}: expects p to be in [0, 1], but got p={p}")

    return alike("bernoulli", generator, lambda out: numbers.words_for(out.size, 32), p)


def bernoulli_each_fill(name: str, generator: Generator | None) -> Fill:
    """What fills an array with ones at the probabilities in a second one."""
    problem = f"{name}: expects every p to be in [0, 1], but some are not"

    def stream(out: Any) -> Stream:
        return reserve(generator, numbers.words_for(out.size, 32))

    def fill(out: Any, p: Any) -> None:
        if not ((p >= 0) & (p <= 1)).all():
            raise ShapeError(problem)
        numbers.bernoulli_each(out, stream(out), np.broadcast_to(p, out.shape))

    return Fill(fill, lambda out, p: cuda_numbers.bernoulli_each(out, stream(out), p, problem))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """1 with probability p (a number, or a tensor that broadcasts to this one), else 0."""
    if self.dtype.is_complex:
        raise DTypeError(f"bernoulli_: not available for {self.dtype!r}; use a real dtype")
    if not isinstance(p, Tensor):
        return run_inplace(Draw("bernoulli", bernoulli_fill("bernoulli_", generator, p)), self)
    floating("bernoulli_", p.dtype, complex_too=False)
    try:
        fits = np.broadcast_shapes(p.shape, self.shape) == tuple(self.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"bernoulli_: p of shape {tuple(p.shape)} does not broadcast to "
                         f"{tuple(self.shape)}")
    return run_inplace(Draw("bernoulli", bernoulli_each_fill("bernoulli_", generator)), self, p)
