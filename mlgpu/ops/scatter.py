"""gather and scatter along one dimension, and their relatives with a vector of indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import runtime as gpu
from mlgpu.cuda.index import Along
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops import choice
from mlgpu.ops.index import Gather, Index, Put, index_array, take, vector_index, wrong_index
from mlgpu.ops.part import Part, Place
from mlgpu.ops.view import dim_index, expand, reshape
from mlgpu.storage import may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["gather", "index_add", "index_fill", "index_reduce", "scatter", "scatter_add",
           "scatter_reduce", "take_along_dim"]


def _index_arrays(name: str, x: Tensor, dim: int, index: Tensor) -> Index:
    """Index arrays that address `index`'s elements along `dim` and their own place elsewhere."""
    index = index if index.ndim else reshape(index, 1)
    array = index_array(name, x, index, x.shape[dim] if x.ndim else 1)
    if x.device.type != "cpu":
        return Along(dim, array, wrong_index(name))
    array = array.astype(np.int64, copy=False)
    places: list[Any] = list(np.ix_(*[np.arange(n) for n in array.shape]))
    places[dim] = array
    return tuple(places)


def _region(index: Any) -> tuple[slice, ...]:
    """The part of a source that the indices cover."""
    shape = index.shape if isinstance(index, Along) else np.broadcast_shapes(
        *[a.shape for a in index])
    return tuple(slice(n) for n in shape)


def _check(name: str, x: Tensor, dim: int, index: Tensor, limits: tuple[int, ...] | None) -> int:
    if max(index.ndim, 1) != max(x.ndim, 1):
        raise ShapeError(f"{name}: index must have as many dimensions as the tensor "
                         f"({x.ndim}), got {index.ndim}")
    at = dim_index(name, dim, x.ndim)
    for d, n in enumerate(index.shape if index.numel() else ()):
        if x.ndim and d != at and n > x.shape[d]:
            raise ShapeError(f"{name}: index of shape {tuple(index.shape)} is longer than the "
                             f"tensor {tuple(x.shape)} in dimension {d}")
        if limits is not None and limits and n > limits[d]:
            raise ShapeError(f"{name}: index of shape {tuple(index.shape)} is longer than src "
                             f"{limits} in dimension {d}")
    return at


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on; the result has index's shape."""
    if not index.numel():  # of any integer dtype and shape, as in PyTorch
        return reshape(take(input, index.to(dtypes.int64)), tuple(index.shape))
    at = _check("gather", input, dim, index, None)
    source = input if input.ndim else reshape(input, 1)
    arrays = _index_arrays("gather", source, at, index)
    return reshape(run(Gather(arrays), source), tuple(index.shape))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting between input and indices; all flattened if dim is None."""
    if indices.dtype is not dtypes.int64:
        raise DTypeError(f"take_along_dim: indices must be int64, got {indices.dtype!r}")
    if dim is None:
        return gather(reshape(input, -1), 0, reshape(indices, -1))
    if input.ndim != indices.ndim:
        raise ShapeError(f"take_along_dim: input has {input.ndim} dimensions, indices "
                         f"{indices.ndim}; they must agree")
    at = dim_index("take_along_dim", dim, input.ndim)
    common = [max(a, b) if 0 not in (a, b) else 0
              for a, b in zip(input.shape, indices.shape, strict=True)]
    common[at] = length = input.shape[at]
    wide = expand(input, common)
    common[at] = indices.shape[at]
    indices = choice.where(indices < 0, indices + length, indices)  # unlike gather's
    return gather(wide, at, expand(indices, common))


class ScatterReduce(Op):
    """The first input with elements of the second combined into it at index arrays."""

    saved_inputs = (0, 1)
    saved_outputs = (0,)

    def __init__(self, arrays: Index, reduce: str, include_self: bool) -> None:
        self.arrays: Any = arrays
        self.reduce = reduce
        self.include_self = include_self

    def forward(self, x: Any, src: Any) -> Any:
        compute = dtypes.compute_dtype(dtypes.from_numpy(x.dtype)).numpy
        out = cpu.empty(x.shape, compute)
        np.copyto(out, x, casting="unsafe")
        src = src.astype(compute, copy=False)
        src = src[_region(self.arrays)]
        if not self.include_self:
            out[self.arrays] = _identity(self.reduce, out.dtype)
        _COMBINE[self.reduce].at(out, self.arrays, src)
        if self.reduce == "mean":
            count = np.full(x.shape, 1 if self.include_self else 0, compute)
            np.add.at(count, self.arrays, 1)
            touched = count > 0
            if out.dtype.kind in "iu":
                np.floor_divide(out, count, out=out, where=touched)
            else:
                np.divide(out, count, out=out, where=touched)
        if compute == x.dtype:
            return out
        half = cpu.empty(x.shape, x.dtype)
        np.copyto(half, out, casting="unsafe")
        return half

    def forward_cuda(self, x: Any, src: Any) -> Any:
        out = gpu.copy(x)
        self.forward_into_cuda(out, x, src)
        return out

    def forward_into_cuda(self, out: Any, x: Any, src: Any) -> None:
        if self.recording:
            self.arrays = self.arrays.kept()
        if may_share_memory(out, src):
            src = gpu.copy(src)
        self.arrays.reduce(out, src[_region(self.arrays)], self.reduce, self.include_self)

    def _counts(self, dy: Tensor) -> Tensor:
        """How many values each element was combined from, at least 1."""
        counts = dy.new_full(self._inputs_meta[0][0], 1 if self.include_self else 0,
                             dtype=dtypes.float64)
        counts = run(Put(self.arrays, True), counts, counts.new_ones(()))
        return counts.clamp_min(1)  # type: ignore[no-any-return]

    def _touched(self, dy: Tensor) -> Tensor:
        mask = dy.new_zeros(self._inputs_meta[0][0], dtype=dtypes.bool_)
        return run(Put(self.arrays, False), mask, mask.new_ones(()))  # type: ignore[no-any-return]

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        from mlgpu.ops.choice import where

        x, src, result = self.input(0), self.input(1), self.output(0)
        zero = dy.new_zeros(())
        part = src[_region(self.arrays)]
        if self.reduce == "sum":
            dx, dpart = dy, run(Gather(self.arrays), dy)
        elif self.reduce == "mean":
            dy = dy / self._counts(dy).to(dy.dtype)
            dx, dpart = dy, run(Gather(self.arrays), dy)
        elif self.reduce == "prod":
            dx, dpart = self._product_gradients(dy, x, part, result)
        else:
            at_self = (x == result) if self.include_self else (
                (x == result) & ~self._touched(dy))
            at_part = part == run(Gather(self.arrays), result)
            ties = cast_like(at_self, dy)
            ties = run(Put(self.arrays, True), ties, cast_like(at_part, dy))
            share = dy / ties
            dx = where(at_self, share, zero)
            dpart = where(at_part, run(Gather(self.arrays), share), zero)
        if not self.include_self:
            dx = where(self._touched(dy), zero, dx)
        return dx, _placed(dpart, self._inputs_meta[1][0])

    def _product_gradients(self, dy: Tensor, x: Tensor, part: Tensor, result: Tensor
                           ) -> tuple[Tensor, Tensor]:
        """d prod = product of the others: exact also where one factor is zero."""
        from mlgpu.ops.choice import where

        one = x.new_ones(())
        own = x if self.include_self else where(self._touched(dy), one, x)
        zeros = cast_like(own == 0, dy)
        zeros = run(Put(self.arrays, True), zeros, cast_like(part == 0, dy))
        safe_own, safe_part = where(own == 0, one, own), where(part == 0, one, part)
        others = run(ScatterReduce(self.arrays, "prod", True), safe_own, safe_part)

        def factor(value: Tensor, safe: Tensor, count: Tensor, product: Tensor) -> Tensor:
            single = count == cast_like(value == 0, dy)  # every zero, if any, is this factor
            return where(single, product / safe, product * 0)

        dx = dy * factor(own, safe_own, zeros, others)
        gathered = [run(Gather(self.arrays), t) for t in (dy, zeros, others)]
        dpart = gathered[0] * factor(part, safe_part, gathered[1], gathered[2])
        return dx, dpart


def _placed(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of src from that of the part of it that the index covers."""
    if tuple(part.shape) == shape:
        return part
    region = Part(tuple(slice(n) for n in part.shape))
    return run(Place(shape, region), part)  # type: ignore[no-any-return]


def cast_like(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as zeros and ones of another tensor's dtype."""
    from mlgpu.ops.cast import cast

    return cast(mask, like.dtype)


_COMBINE = {"sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum,
            "amin": np.minimum}


def _identity(reduce: str, dtype: Any) -> Any:
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if dtype.kind in "fc":
        return -np.inf if reduce == "amax" else np.inf
    if dtype.kind == "b":
        return reduce == "amin"
    info = np.iinfo(dtype)
    return info.min if reduce == "amax" else info.max


def _prepare(name: str, x: Tensor, dim: int, index: Tensor, src: Any) -> tuple[Tensor, Any]:
    from mlgpu.ops.creation import full

    if not isinstance(src, Tensor):
        src = full(tuple(index.shape), src, dtype=x.dtype, device=x.device)
    if src.dtype is not x.dtype:
        raise DTypeError(f"{name}: self is {x.dtype!r} but src is {src.dtype!r}; cast one")
    at = _check(name, x, dim, index, tuple(src.shape))
    arrays = _index_arrays(name, x, at, index)
    return src, arrays


def _scatter(name: str, x: Tensor, dim: int, index: Tensor, src: Any, op: Any,
             inplace: bool) -> Tensor:
    """Run `op(arrays)` on x and the part of src that index covers; 0-d tensors count as 1-d."""
    source, arrays = _prepare(name, x, dim, index, src)
    if not index.numel():
        from mlgpu.ops.cast import clone

        return x if inplace else clone(x)
    if x.ndim == 0:
        result = run(op(arrays), reshape(x, 1), reshape(source, -1))
        return x.copy_(reshape(result, ())) if inplace else reshape(result, ())
    if source.ndim == 0:
        source = reshape(source, 1)
    if inplace:
        return run_inplace(op(arrays), x, source)
    return run(op(arrays), x, source)  # type: ignore[no-any-return]


class Scatter(Put):
    """The first input with the part of the second that the index covers written into it."""

    name = "scatter"

    def forward_into(self, out: Any, x: Any, values: Any) -> None:
        super().forward_into(out, x, values[_region(self.index)])

    def forward_into_cuda(self, out: Any, x: Any, values: Any) -> None:
        super().forward_into_cuda(out, x, values[_region(self.index)])

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dx, dpart = super().backward(dy)
        return dx, None if dpart is None else _placed(dpart, self._inputs_meta[1][0])


def _reduction(reduce: str | None) -> Any:
    if reduce is None:
        return lambda arrays: Scatter(arrays, False)
    if reduce == "add":
        return lambda arrays: Scatter(arrays, True)
    if reduce == "multiply":
        return lambda arrays: ScatterReduce(arrays, "prod", True)
    raise ShapeError(f"scatter: reduce must be 'add' or 'multiply', got {reduce!r}")


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy of `input` with out[index[i][j]][j] = src[i][j] for dim 0, and so on.

    `src` is a tensor or a number; where indices repeat, one of the values wins.
    """
    return _scatter("scatter", input, dim, index, value if src is None else src,
                    _reduction(reduce), False)


def scatter_(self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
             reduce: str | None = None) -> Tensor:
    """`scatter` in place."""
    return _scatter("scatter_", self, dim, index, value if src is None else src,
                    _reduction(reduce), True)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of `input` with src added at index along a dimension; repeats add up."""
    return _scatter("scatter_add", input, dim, index, src, _reduction("add"), False)


def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`scatter_add` in place."""
    return _scatter("scatter_add_", self, dim, index, src, _reduction("add"), True)


def _reducer(name: str, reduce: str, include_self: bool) -> Any:
    if reduce not in _COMBINE:
        raise ShapeError(f"{name}: reduce must be one of {', '.join(_COMBINE)}, got {reduce!r}")
    return lambda arrays: ScatterReduce(arrays, reduce, include_self)


def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy of `input` with src combined in at index: sum, prod, mean, amax or amin."""
    return _scatter("scatter_reduce", input, dim, index, src,
                    _reducer("scatter_reduce", reduce, include_self), False)


def scatter_reduce_(self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                    include_self: bool = True) -> Tensor:
    """`scatter_reduce` in place."""
    return _scatter("scatter_reduce_", self, dim, index, src,
                    _reducer("scatter_reduce_", reduce, include_self), True)


# --- a vector of indices along one dimension ------------------------------------------------------


def _vector(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor
            ) -> tuple[Any, Tensor]:
    at, arrays = vector_index(name, input, dim, index)
    if source.dtype is not input.dtype:
        raise DTypeError(f"{name}: self is {input.dtype!r} but source is {source.dtype!r}")
    want = (*input.shape[:at], index.numel(), *input.shape[at + 1:]) if input.ndim else (
        index.numel(),)
    if input.ndim and tuple(source.shape) != want:
        raise ShapeError(f"{name}: source must have shape {want}, got {tuple(source.shape)}")
    return arrays, source


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy of `input` with alpha * source added at positions `index` of a dimension."""
    from mlgpu.ops.cast import clone

    return index_add_(clone(input), dim, index, source, alpha=alpha)


def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1
               ) -> Tensor:
    """`index_add` in place."""
    arrays, source = _vector("index_add_", self, dim, index, source)
    if alpha != 1:
        source = source * alpha
    if self.ndim == 0:
        return self.add_(source.sum())
    return run_inplace(Put(arrays, True), self, source)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of `input` with positions `index` of a dimension set to a value."""
    from mlgpu.ops.cast import clone

    return index_fill_(clone(input), dim, index, value)


def index_fill_(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`index_fill` in place; the value is a number or a 0-dim tensor."""
    from mlgpu.ops.cast import cast
    from mlgpu.ops.creation import full

    _, arrays = vector_index("index_fill_", self, dim, index)
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError("index_fill_: the value must have no dimensions, got "
                             f"{tuple(value.shape)}")
        value = cast(value, self.dtype)
    else:
        value = full((), value, dtype=self.dtype, device=self.device)
    if self.ndim == 0:
        return self.copy_(value) if index.numel() else self
    return run_inplace(Put(arrays, False), self, value)


def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """A copy of `input` with source combined in at positions `index`: prod, mean, amax, amin."""
    at, _ = vector_index("index_reduce", input, dim, index)
    if not source.ndim:
        source = reshape(source, 1)
    shape = [1] * source.ndim
    shape[at] = index.numel()
    wide = expand(reshape(index, shape), tuple(source.shape))
    return scatter_reduce(input, dim, wide, source, reduce, include_self=include_self)
