"""Dropout: elements or whole channels are dropped at random, and what is kept is scaled up.

The mask is never stored: it is a function of the words that the draw was given, and backward
computes it again from them.  A dropped element is multiplied by 0, so inf and NaN become NaN.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

from mlgpu.cpu import fast
from mlgpu.cpu import random as numbers
from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.rows import each_block, wide
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import parallel
from mlgpu.cuda import dropout as cuda_dropout
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.cuda.copy import copy_into
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops.random_inplace import reserve
from mlgpu.random import Stream
from mlgpu.tensor import Tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d",
           "feature_alpha_dropout"]

Array = np.ndarray[Any, Any]

_SELU_FLOOR = 1.7580993408473766  # SELU's alpha * scale: minus what it tends to


class Dropout(Op):
    """x * (keep * scale) + keep * lift + base, where `keep` is 0 with probability p, else 1.

    There is one `keep` per element, or, with `lead`, one per index into the first `lead` axes.
    """

    def __init__(self, name: str, stream: Stream, p: float, lead: int | None, scale: float,
                 lift: float = 0.0, base: float = 0.0) -> None:
        self.name = name
        self.stream, self.p, self.lead = stream, p, lead
        self.scale, self.lift, self.base = scale, lift, base

    def forward(self, x: Array) -> Array:
        out = empty(x.shape, x.dtype)
        self._fill(out, contiguous(x))
        return out

    def forward_into(self, out: Array, x: Array) -> None:
        if out.flags.c_contiguous:
            self._fill(out, x)
        else:
            np.copyto(out, self.forward(x))

    def _linear(self) -> Dropout:
        return Dropout(self.name, self.stream, self.p, self.lead, self.scale)

    def backward(self, dy: Tensor) -> Tensor:
        return run(self._linear(), dy)  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Array) -> Array:
        return self._linear().forward(dy)

    def forward_cuda(self, x: Any) -> Any:
        out = cuda_runtime.empty(x.shape, x.dtype)
        self._launch(out, cuda_runtime.contiguous(x))
        return out

    def forward_into_cuda(self, out: Any, x: Any) -> None:
        if out.flags.c_contiguous:
            self._launch(out, x)
        else:
            copy_into(out, self.forward_cuda(x))

    def backward_cuda(self, dy: Any) -> Any:
        return self._linear().forward_cuda(dy)

    def _launch(self, out: Any, x: Any) -> None:
        rows = None if self.lead is None else math.prod(out.shape[:self.lead])
        cuda_dropout.dropout(out, x, self.stream, self.p, rows, self.scale, self.lift, self.base)

    def _fill(self, out: Array, x: Array) -> None:
        if self.lead is None:
            self._fill_elements(out.reshape(-1), x.reshape(-1))
        else:
            rows = math.prod(out.shape[:self.lead])
            self._fill_channels(out.reshape(rows, -1), x.reshape(rows, -1))

    def _affine(self, keep: Array, compute: Any) -> tuple[Array, Array | None]:
        """(factor, summand) in the compute dtype; no summand where all are 0."""
        factor = np.multiply(keep, compute(self.scale), dtype=compute)
        if self.lift == 0:
            return factor, None
        summand = np.multiply(keep, compute(self.lift), dtype=compute)
        return factor, np.add(summand, compute(self.base), out=summand)

    def _fill_elements(self, out: Array, x: Array) -> None:
        loops = fast.load("random", out.size) if (
            self.lift == 0 and self.stream.countable and out.dtype == x.dtype
            and out.dtype.char in "fd" and x.flags.c_contiguous) else None
        fill = self._block if loops is None else functools.partial(self._compiled, loops.dropout)

        def body(task: int) -> None:
            first = task * numbers.BLOCK
            fill(out[first:first + numbers.BLOCK], x[first:first + numbers.BLOCK], first)

        parallel(-(-out.size // numbers.BLOCK), lambda: body, out.size)

    def _block(self, out: Array, x: Array, first: int) -> None:
        compute = wide(out.dtype).type
        keep = numbers.kept(self.stream, self.p, first, out.size)
        factor, summand = self._affine(keep, compute)
        y = np.multiply(x.astype(compute, copy=False), factor,
                        out=out if out.dtype == compute else factor)
        if summand is not None:
            np.add(y, summand, out=y)
        if y is not out:
            out[...] = y

    def _compiled(self, loop: Any, out: Array, x: Array, first: int) -> None:
        number = out.dtype.type
        loop(out, x, np.uint64(self.stream.seed), np.uint64(self.stream.offset + first // 8),
             np.uint32(numbers.limit(self.p)), number(0), number(self.scale))

    def _fill_channels(self, out: Array, x: Array) -> None:
        keep = numbers.kept(self.stream, self.p, 0, len(out))[:, None]
        factor, summand = self._affine(keep, wide(out.dtype).type)

        def block(y: Array, x: Array, factor: Array, *summand: Array) -> None:
            np.multiply(x, factor, out=y)
            for values in summand:
                np.add(y, values, out=y)

        each_block(block, out, x, factor, *([] if summand is None else [summand]))


def _drop(name: str, input: Tensor, p: float, training: bool, inplace: bool,
          lead: int | None = None, selu: bool = False) -> Tensor:
    if not 0 <= p <= 1:
        raise ShapeError(f"{name}: the dropout probability has to be between 0 and 1, but got {p}")
    if p == 0 or not training or input.numel() == 0:
        return input
    if lead is not None and input.ndim < lead:
        raise ShapeError(f"{name}: needs at least {lead} dimensions to drop channels, got "
                         f"{tuple(input.shape)}")
    if p == 1:
        return input.mul_(0) if inplace else input * 0
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{name}: not available for {input.dtype!r}; use a floating dtype")
    count = input.numel() if lead is None else math.prod(input.shape[:lead])
    stream = reserve(None, numbers.words_for(count, 32))
    if selu:
        scale = 1 / math.sqrt((_SELU_FLOOR ** 2 * p + 1) * (1 - p))
        lift = _SELU_FLOOR * scale
        op = Dropout(name, stream, p, lead, scale, lift, lift * (p - 1))
    else:
        op = Dropout(name, stream, p, lead, 1 / (1 - p))
    return run_inplace(op, input) if inplace else run(op, input)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element 0 with probability p, else times 1 / (1 - p); `input` itself unless training.

    ShapeError for a p outside [0, 1].
    """
    return _drop("dropout", input, p, training, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                  inplace: bool = False) -> Tensor:
    """Dropout to SELU's floor that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return _drop("alpha_dropout", input, p, training, inplace, selu=True)


def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True,
                    inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (n, c, ...).  ShapeError for less than 2 dimensions."""
    return _drop("feature_dropout", input, p, training, inplace, lead=2)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                          inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of (n, c, ...).  ShapeError for less than 2 dimensions."""
    return _drop("feature_alpha_dropout", input, p, training, inplace, lead=2, selu=True)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (n, c, l) or (c, l).  ShapeError for other dimensions."""
    if input.ndim not in (2, 3):
        raise ShapeError("dropout1d: expected (n, c, l) or (c, l), got a shape of "
                         f"{input.ndim} dimensions, {tuple(input.shape)}")
    return _drop("dropout1d", input, p, training, inplace, lead=input.ndim - 1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (n, c, h, w).

    As in PyTorch, 3 dimensions are (n, c, l), and other numbers than 4 give a warning.
    """
    if input.ndim != 4:
        warnings.warn(f"dropout2d: expected (n, c, h, w), got {input.ndim} dimensions, of which "
                      "the first two are taken as (n, c); use dropout1d or dropout to say what is "
                      "meant", stacklevel=2)
    return _drop("dropout2d", input, p, training, inplace, lead=2)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (n, c, d, h, w) or (c, d, h, w); a warning for others."""
    if input.ndim not in (4, 5):
        warnings.warn("dropout3d: expected (n, c, d, h, w) or (c, d, h, w), got "
                      f"{input.ndim} dimensions, of which the first is taken as c; use dropout to "
                      "say what is meant", stacklevel=2)
    return _drop("dropout3d", input, p, training, inplace, lead=2 if input.ndim == 5 else 1)
