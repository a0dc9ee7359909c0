"""New tensors of random numbers.

`generator` is the source (the process's own if None); what is drawn depends on its state, the
shape and the dtype, on no device and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import random as numbers
from mlgpu.cuda import random as cuda_numbers
from mlgpu.device import DeviceLike, resolve, runtime
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DeviceError, DTypeError, ShapeError
from mlgpu.op import on_tensors, run, wrap
from mlgpu.ops.random_discrete import multinomial, poisson
from mlgpu.ops.random_inplace import (
    Draw,
    Fill,
    bernoulli_each_fill,
    bernoulli_fill,
    bounds,
    floating,
    integer_fill,
    normal_fill,
    reserve,
    uniform_fill,
    whole,
)
from mlgpu.ops.view import size_arguments
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

__all__ = ["bernoulli", "multinomial", "normal", "poisson", "rand", "rand_like", "randint",
           "randint_like", "randn", "randn_like", "randperm"]


def _made(shape: Sequence[int], dtype: dtypes.dtype, device: Any, requires_grad: bool,
          pin_memory: bool, fill: Fill) -> Tensor:
    """A new tensor that `fill` has filled."""
    for n in shape:
        if n < 0:
            raise ShapeError(f"a size cannot be negative, got {tuple(shape)}")
    place = resolve(device)
    if pin_memory and place.type != "cpu":
        raise DeviceError(f"pin_memory: only tensors on the CPU can be pinned, not on {place}")
    engine = runtime(place)
    array = engine.empty(shape, dtype.numpy, place)
    engine.call(fill.cpu if place.type == "cpu" else fill.cuda, (array,), place, 1)
    if pin_memory:
        array = engine.pin(array)
    tensor = wrap(array, place)
    return tensor.requires_grad_() if requires_grad else tensor


def _dtype(name: str, dtype: Any) -> dtypes.dtype:
    return floating(name, dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype))


def rand(*size: Any, generator: Generator | None = None, dtype: DTypeLike | None = None,
         device: DeviceLike | None = None, requires_grad: bool = False, pin_memory: bool = False
         ) -> Tensor:
    """Uniform in [0, 1), of the given size; both parts of complex numbers."""
    return _made(size_arguments("rand", size), _dtype("rand", dtype), device, requires_grad,
                 pin_memory, uniform_fill(generator, 0.0, 1.0))


def randn(*size: Any, generator: Generator | None = None, dtype: DTypeLike | None = None,
          device: DeviceLike | None = None, requires_grad: bool = False, pin_memory: bool = False
          ) -> Tensor:
    """Normal with mean 0 and variance 1, of the given size; complex ones in both parts together."""
    return _made(size_arguments("randn", size), _dtype("randn", dtype), device, requires_grad,
                 pin_memory, normal_fill("randn", generator, 0.0, 1.0))


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: DTypeLike | None = None,
              device: DeviceLike | None = None, requires_grad: bool = False,
              memory_format: Any = None) -> Tensor:
    """`rand` with the shape, dtype and device of `input`, unless given."""
    return rand(input.shape, generator=generator, dtype=input.dtype if dtype is None else dtype,
                device=input.device if device is None else device, requires_grad=requires_grad)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: DTypeLike | None = None,
               device: DeviceLike | None = None, requires_grad: bool = False,
               memory_format: Any = None) -> Tensor:
    """`randn` with the shape, dtype and device of `input`, unless given."""
    return randn(input.shape, generator=generator, dtype=input.dtype if dtype is None else dtype,
                 device=input.device if device is None else device, requires_grad=requires_grad)


def randint(low: Any = None, high: Any = None, size: Any = None, *,
            generator: Generator | None = None, dtype: DTypeLike | None = None,
            device: DeviceLike | None = None, requires_grad: bool = False, pin_memory: bool = False
            ) -> Tensor:
    """`randint(high, size)`, `randint(low, high, size)`: integers from [low, high), int64.

    Each is within 2**-32 of its share.  ShapeError for an empty range, DTypeError for bounds that
    the dtype cannot hold.
    """
    if size is None:
        low, high, size = None, low, high
    elif high is None:
        low, high = None, low
    if isinstance(size, int) or size is None or high is None:
        raise TypeError("randint: expected (high, size) or (low, high, size), with the size as a "
                        "tuple of ints")
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    first, n = bounds("randint", 0 if low is None else whole("randint", low),
                      whole("randint", high) - 1, kind)
    return _made(size_arguments("randint", (size,)), kind, device, requires_grad, pin_memory,
                 integer_fill(generator, first, n))


def randint_like(input: Tensor, low: Any = None, high: Any = None, *,
                 generator: Generator | None = None, dtype: DTypeLike | None = None,
                 device: DeviceLike | None = None, requires_grad: bool = False,
                 memory_format: Any = None) -> Tensor:
    """`randint` with the shape, dtype and device of `input`: `(input, high)` or low and high."""
    if high is None:
        low, high = 0, low
    return randint(low, high, tuple(input.shape), generator=generator,
                   dtype=input.dtype if dtype is None else dtype,
                   device=input.device if device is None else device, requires_grad=requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: DTypeLike | None = None,
             device: DeviceLike | None = None, requires_grad: bool = False, pin_memory: bool = False
             ) -> Tensor:
    """0 ... n-1 in random order, int64.  DTypeError where the dtype cannot hold them all."""
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    if kind.kind not in ("int", "float"):
        raise DTypeError(f"randperm: not available for {kind!r}; use an integer or floating dtype")
    count = whole("randperm", n)
    largest = dtypes.iinfo(kind).max if kind.kind == "int" else round(2 / dtypes.finfo(kind).eps)
    if count - 1 > largest:
        raise DTypeError(f"randperm: {kind!r} cannot hold all integers below {count}")

    def fill(out: Any) -> None:
        out[...] = numbers.permutation(reserve(generator, count), count)

    def fill_cuda(out: Any) -> None:
        cuda_numbers.permutation(out, reserve(generator, count))

    return _made((count,), kind, device, requires_grad, pin_memory, Fill(fill, fill_cuda))


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
           dtype: DTypeLike | None = None, device: DeviceLike | None = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """Normal numbers: of a mean and a standard deviation that are tensors, or of a given size.

    With tensors, which broadcast, the result has the dtype of the mean (of std if the mean is a
    number) and its gradient is zero.  ShapeError for a negative std.
    """
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None:
            raise TypeError("normal: a mean and a std that are numbers need a size")
        return _made(size_arguments("normal", (size,)), _dtype("normal", dtype), device,
                     requires_grad, pin_memory, normal_fill("normal", generator, mean, std))
    for option, absent in ((size, None), (dtype, None), (device, None), (requires_grad, False)):
        if option is not absent:
            raise TypeError("normal: size, dtype, device and requires_grad are for a mean and a "
                            "std that are numbers; a tensor decides them")
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    floating("normal", tensors[0].dtype)
    if isinstance(std, Tensor) and std.dtype.is_complex:
        raise DTypeError(f"normal: std must be real, got {std.dtype!r}")
    try:
        np.broadcast_shapes(*[t.shape for t in tensors])
    except ValueError:
        raise ShapeError(f"normal: mean of shape {tuple(mean.shape)} and std of shape "
                         f"{tuple(std.shape)} do not broadcast") from None
    standard = normal_fill("normal", generator, 0.0, 1.0)
    if not isinstance(std, Tensor):
        normal_fill("normal", generator, 0.0, std)  # raises where std is negative

    problem = "normal: expects all elements of std >= 0"

    def given(arrays: Sequence[Any]) -> list[Any]:
        rest = iter(arrays)
        return [next(rest) if isinstance(p, Tensor) else p for p in (mean, std)]

    def fill(out: Any, *arrays: Any) -> None:
        center, spread = given(arrays)
        if not np.all(np.asarray(spread) >= 0):
            raise ShapeError(problem)
        standard.cpu(out)
        np.multiply(out, spread, out=out, casting="unsafe")
        np.add(out, center, out=out, casting="unsafe")

    def fill_cuda(out: Any, *arrays: Any) -> None:
        if isinstance(std, Tensor):
            cuda_numbers.check(arrays[-1], 0.0, math.inf, problem)
        standard.cuda(out)

        def placed(out: Tensor, *parameters: Tensor) -> None:
            center, spread = given(parameters)
            out.mul_(spread).add_(center)

        on_tensors(placed, out, *arrays)

    return run(Draw("normal", Fill(fill, fill_cuda)), *tensors)  # type: ignore[no-any-return]


def bernoulli(input: Tensor, p: float | None = None, *,
              generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` says (or `p`, for its shape), else 0; its dtype.

    The gradient is zero.  ShapeError for probabilities outside [0, 1].
    """
    if p is not None:
        if input.dtype.is_complex:
            raise DTypeError(f"bernoulli: not available for {input.dtype!r}; use a real dtype")
        fill = bernoulli_fill("bernoulli", generator, p)
    else:
        floating("bernoulli", input.dtype, complex_too=False)
        fill = bernoulli_each_fill("bernoulli", generator)
    return run(Draw("bernoulli", fill), input)  # type: ignore[no-any-return]
