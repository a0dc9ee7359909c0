"""Draws from distributions over integers that tensors describe: multinomial, poisson."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu import random as numbers
from mlgpu.cpu.poisson import counts
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import random as cuda_numbers
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.random_inplace import Draw, Fill, floating, reserve
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

__all__ = ["multinomial", "poisson"]

Array = np.ndarray[Any, Any]


class Multinomial(Op):
    """Indices along the last axis, row by row."""

    differentiable = False

    def __init__(self, count: int, replacement: bool, generator: Generator | None) -> None:
        self.count = count
        self.replacement = replacement
        self.generator = generator

    def forward(self, weights: Array) -> Array:
        rows = weights.reshape(-1, weights.shape[-1])
        for row in rows:
            _check_weights(row)
        out = empty((*weights.shape[:-1], self.count), np.int64)
        words = self.count if self.replacement else weights.shape[-1]
        stream = reserve(self.generator, words * len(rows))
        for index, row in enumerate(rows):
            uniform = numbers.opened(stream.words(index * words, words))
            draw = _with_replacement if self.replacement else _without_replacement
            out.reshape(-1, self.count)[index] = draw(row.astype(np.float64), uniform, self.count)
        return out

    def forward_cuda(self, weights: Any) -> Any:
        out = cuda_runtime.empty((*weights.shape[:-1], self.count), np.dtype(np.int64))
        if out.size:
            n = weights.shape[-1]
            words = self.count if self.replacement else n
            stream = reserve(self.generator, words * (weights.size // n))
            cuda_numbers.multinomial(out, stream, weights, self.replacement,
                                     "multinomial: the weights of row {value} contain inf, NaN or "
                                     "an element < 0, or their sum is 0")
        return out


def _check_weights(row: Array) -> None:
    if not (np.isfinite(row) & (row >= 0)).all():
        raise ShapeError("multinomial: the weights contain inf, NaN or an element < 0")
    if not row.any():
        raise ShapeError("multinomial: the sum of the weights must be > 0")


def _with_replacement(weights: Array, uniform: Array, count: int) -> Array:
    """By inverting the cumulative distribution."""
    edges = np.cumsum(weights / weights.max())
    drawn = np.searchsorted(edges, (1 - uniform) * edges[-1], side="right")
    return np.asarray(np.minimum(drawn, np.flatnonzero(weights)[-1]))


def _without_replacement(weights: Array, uniform: Array, count: int) -> Array:
    """The first arrivals of a race of exponential times (Efraimidis and Spirakis, 2006)."""
    times = np.maximum(-np.log(uniform), 2.0 ** -54) / (weights / weights.max())
    return np.argsort(times, kind="stable")[:count]


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """int64 indices drawn in proportion to the weights in each row of (c,) or (rows, c).

    Without replacement an index is drawn once, those of weight 0 last.  ShapeError for weights that
    are negative, not finite or all zero, and for more samples than there are.
    """
    floating("multinomial", input.dtype, complex_too=False)
    if input.ndim not in (1, 2):
        raise ShapeError("multinomial: expected weights of 1 or 2 dimensions, got "
                         f"{tuple(input.shape)}")
    if num_samples <= 0:
        raise ShapeError(f"multinomial: cannot draw {num_samples} samples")
    if not replacement and num_samples > input.shape[-1]:
        raise ShapeError(f"multinomial: cannot draw {num_samples} samples from {input.shape[-1]} "
                         "without replacement")
    if input.shape[-1] == 0:
        raise ShapeError("multinomial: there is nothing to draw from")
    return run(Multinomial(num_samples, replacement, generator), input)  # type: ignore[no-any-return]


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Counts with the rates in `input`, in its dtype; the gradient is zero.

    ShapeError for rates that are negative or not finite.
    """
    floating("poisson", input.dtype, complex_too=False)

    problem = "poisson: expects rates that are finite and not negative"

    def fill(out: Array, rates: Array) -> None:
        if not (np.isfinite(rates) & (rates >= 0)).all():
            raise ShapeError(problem)
        flat = counts(rates.astype(np.float64).reshape(-1), reserve(generator, 1))
        out[...] = flat.reshape(out.shape)

    def fill_cuda(out: Any, rates: Any) -> None:
        cuda_numbers.poisson(out, reserve(generator, 1), rates, problem)

    return run(Draw("poisson", Fill(fill, fill_cuda)), input)  # type: ignore[no-any-return]
