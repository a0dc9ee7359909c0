"""Sums, means and maxima of bags of table rows, without the rows themselves in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.cpu.gemm import widen
from mlgpu.cpu.rows import BLOCK
from mlgpu.cpu.runtime import copy, empty
from mlgpu.cpu.segment import add_rows, largest_rows
from mlgpu.cuda import embedding as cuda_embedding
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.cast import cast
from mlgpu.ops.embedding import (
    check_table,
    checked_rows,
    embedding_renorm_,
    refuse_sparse,
    row_number,
)
from mlgpu.ops.scatter import gather
from mlgpu.ops.search import bincount
from mlgpu.tensor import Tensor

__all__ = ["embedding_bag"]


class CombineRows(Op):
    """`count` rows of zeros to which row source[i] of the third input is added at target[i].

    Inputs: source (n,), target (n,), rows (k, features), then a factor for each of the n if there
    is one.  `average` divides by the number of rows added.  With `by_count` the gradient of a row
    is divided by how often it is in `source`.  `ordered` says that targets do not decrease.
    """

    name = "embedding_bag"

    def __init__(self, count: int, average: bool = False, by_count: bool = False,
                 ordered: bool = False) -> None:
        self.count = count
        self.average = average
        self.by_count = by_count
        self.ordered = ordered

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        scaled = len(needs) > 3
        return (0, 1, *(2,) * (scaled and needs[3]), *(3,) * (scaled and needs[2]))

    def forward(self, source: Any, target: Any, rows: Any, scale: Any = None) -> Any:
        checked_rows(self.name, source, len(rows))
        return add_rows(rows, target, self.count, source, scale, self.average)

    def forward_cuda(self, source: Any, target: Any, rows: Any, scale: Any = None) -> Any:
        return cuda_embedding.combine_rows(self.name, source, target, rows, scale, self.count,
                                           self.average, self.ordered)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        source, target = self.input(0), self.input(1)
        scaled = len(self.needs) > 3
        drows = dscale = None
        if self.needs[2]:
            factors = [self.input(3)] if scaled else []
            factors += [_shares(target, dy)] * self.average + [_shares(source, dy)] * self.by_count
            if len(factors) == 2:
                factors = [factors[0] * factors[1]]
            drows = run(CombineRows(self._inputs_meta[2][0][0]), target, source, dy, *factors)
        if scaled and self.needs[3]:
            dscale = run(RowDots(), source, target, self.input(2), dy)
        return None, None, drows, *(dscale,) * scaled


def _shares(index: Tensor, like: Tensor) -> Tensor:
    """1 / how often its value occurs, for each element; in the dtype arithmetic on `like` has."""
    counts = cast(bincount(index), dtypes.compute_dtype(like.dtype))
    return counts.reciprocal()[index]


class RowDots(Op):
    """The inner products of rows source[i] of the third and target[i] of the fourth input."""

    saved_inputs = (0, 1, 2, 3)

    def forward(self, source: Any, target: Any, a: Any, b: Any) -> Any:
        out = empty(source.shape, a.dtype)
        step = max(1, BLOCK // max(1, a.shape[1]))
        for start in range(0, len(source), step):
            place = slice(start, start + step)
            out[place] = np.vecdot(widen(a[source[place]]), widen(b[target[place]]))
        return out

    def forward_cuda(self, source: Any, target: Any, a: Any, b: Any) -> Any:
        return cuda_embedding.row_dots(source, target, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        source, target, a, b = (self.input(i) for i in range(4))
        da = run(CombineRows(len(a)), target, source, b, dy) if self.needs[2] else None
        db = run(CombineRows(len(b)), source, target, a, dy) if self.needs[3] else None
        return None, None, da, db


class LargestRows(Op):
    """Which of the rows source[i] that go to a target is the largest, per target and feature."""

    name = "embedding_bag"
    differentiable = False

    def __init__(self, count: int) -> None:
        self.count = count

    def forward(self, source: Any, target: Any, rows: Any) -> Any:
        checked_rows(self.name, source, len(rows))
        return largest_rows(rows, target, self.count, source)

    def forward_cuda(self, source: Any, target: Any, rows: Any) -> Any:
        return cuda_embedding.largest_rows(self.name, source, target, rows, self.count)


class BagNumbers(Op):
    """The bag of each of `elements` elements, from the bags' beginnings (and end with `closed`)."""

    name = "embedding_bag"
    differentiable = False

    def __init__(self, elements: int, closed: bool) -> None:
        self.elements = elements
        self.closed = closed

    def forward(self, offsets: Any) -> Any:
        elements = self.elements
        if offsets[:1].any() or (not offsets.size and (elements or self.closed)):
            raise ShapeError("embedding_bag: offsets must begin with 0, got "
                             f"{offsets[0] if offsets.size else 'none'}")
        if offsets.size and offsets[-1] > elements:
            raise ShapeError(f"embedding_bag: offsets must end within the {elements} elements of "
                             f"input, got {offsets[-1]}")
        lengths = np.diff(offsets) if self.closed else np.diff(offsets, append=elements)
        if (lengths < 0).any():
            raise ShapeError("embedding_bag: offsets must not decrease")
        return copy(np.repeat(np.arange(len(lengths)), lengths))

    def forward_cuda(self, offsets: Any) -> Any:
        from mlgpu.cuda.transfer import to_host

        if not offsets.size and (self.elements or self.closed):
            raise ShapeError("embedding_bag: offsets must begin with 0, got none")
        elements = self.elements
        if self.closed:  # the result ends where the last bag does
            elements = min(elements, max(0, int(to_host(offsets[-1:], False)[0][0])))
        return cuda_embedding.stretch_numbers(
            offsets, elements, "embedding_bag: offsets must begin with 0, not decrease, and end "
            "within the {bound} elements of input, got {value}")


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None,
                  max_norm: float | None = None, norm_type: float = 2,
                  scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """The sum, mean or largest of the rows of `weight` (rows, features) that each bag names.

    Bags are the rows of `input` (bags, n), or lie one after another in `input` (n,) from the
    positions `offsets` (bags,) on; with `include_last_offset` offsets has one more, the end of the
    last bag.  An empty bag gives 0.  `per_sample_weights` has input's shape and multiplies the
    rows (mode "sum").  Row `padding_idx` is left out of bags and counts.  For `max_norm`, and
    `scale_grad_by_freq` (not in mode "max"), see `embedding`.  Raises IndexError for an index out
    of range, ShapeError for offsets that do not begin with 0 or decrease.
    """
    _check(input, weight, offsets, mode, scale_grad_by_freq, per_sample_weights)
    refuse_sparse("embedding_bag", sparse)
    padding = row_number("embedding_bag", padding_idx, weight.shape[0])
    if max_norm is not None:
        with no_grad():
            embedding_renorm_(weight, input, max_norm, norm_type)
    source, target, bags = _elements(input, offsets, include_last_offset)
    scale = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    if target.shape != source.shape:  # the last bag ends before the input does
        source = source[:len(target)]
        scale = None if scale is None else scale[:len(target)]
    if padding >= 0:
        kept = source != padding
        source, target = source[kept], target[kept]
        scale = None if scale is None else scale[kept]
    if mode == "max" and weight.shape[0]:
        which = run(LargestRows(bags), source, target, weight)
        empty_bags = bincount(target, minlength=bags) == 0
        return gather(weight, 0, which).masked_fill(empty_bags.unsqueeze(1), 0)
    op = CombineRows(bags, mode == "mean", scale_grad_by_freq, ordered=True)
    inputs = (source, target, weight) if scale is None else (source, target, weight, scale)
    return run(op, *inputs)  # type: ignore[no-any-return]


def _elements(input: Tensor, offsets: Tensor | None, closed: bool) -> tuple[Tensor, Tensor, int]:
    """The row number and the bag number of each element, and the number of bags."""
    from mlgpu.ops.creation import arange

    source = cast(input, dtypes.int64).reshape(-1)
    if offsets is None:
        bags, length = input.shape
        target = arange(bags, device=input.device).repeat_interleave(length)
        return source, target, bags
    target = run(BagNumbers(len(source), closed), offsets)
    return source, target, len(offsets) - closed


def _check(input: Tensor, weight: Tensor, offsets: Tensor | None, mode: str, by_count: bool,
           per_sample_weights: Tensor | None) -> None:
    name = "embedding_bag"
    check_table(name, input, weight)
    if not weight.dtype.is_floating_point:
        raise DTypeError(f"{name}: weight must be floating, got {weight.dtype.name}")
    if mode not in ("sum", "mean", "max"):
        raise ShapeError(f"{name}: mode must be 'sum', 'mean' or 'max', got {mode!r}")
    if by_count and mode == "max":
        raise ShapeError(f"{name}: scale_grad_by_freq does not go with mode='max'")
    if input.ndim not in (1, 2) or (input.ndim == 2) != (offsets is None):
        raise ShapeError(f"{name}: expected input (bags, n), or input (n,) with offsets (bags,), "
                         f"got input {tuple(input.shape)} and offsets "
                         f"{None if offsets is None else tuple(offsets.shape)}")
    if offsets is not None and offsets.ndim != 1:
        raise ShapeError(f"{name}: offsets must have 1 dimension, got {tuple(offsets.shape)}")
    if offsets is not None and offsets.dtype not in (dtypes.int64, dtypes.int32):
        raise DTypeError(f"{name}: offsets must be int64 or int32, got {offsets.dtype.name}")
    if per_sample_weights is None:
        return
    if per_sample_weights.shape != input.shape:
        raise ShapeError(f"{name}: per_sample_weights must have the shape of input "
                         f"{tuple(input.shape)}, got {tuple(per_sample_weights.shape)}")
    if per_sample_weights.dtype is not weight.dtype:
        raise DTypeError(f"{name}: per_sample_weights must be {weight.dtype.name} as weight, got "
                         f"{per_sample_weights.dtype.name}")
    if mode != "sum":
        raise NotImplementedError(f"{name}: per_sample_weights needs mode='sum', got {mode!r}")
