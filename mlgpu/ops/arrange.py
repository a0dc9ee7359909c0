"""Copies with the elements arranged anew: repeat, flip, roll, triangles, diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import arrange as cuda_arrange
from mlgpu.cuda import copy as cuda_copy
from mlgpu.cuda import embedding as cuda_embedding
from mlgpu.cuda import runtime as gpu
from mlgpu.device import DeviceLike, runtime
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run, wrap
from mlgpu.ops.cast import Copy, clone
from mlgpu.ops.part import Diagonal, Place
from mlgpu.ops.view import dim_index, expand, permute, reshape, size_arguments
from mlgpu.tensor import Tensor

__all__ = ["diag", "diag_embed", "diagflat", "flip", "fliplr", "flipud", "repeat",
           "repeat_interleave", "roll", "rot90", "tile", "tril", "tril_indices", "triu",
           "triu_indices"]


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor copied `repeats[d]` times along each dimension; new ones come first."""
    times = size_arguments("repeat", repeats)
    lead = len(times) - input.ndim
    if lead < 0:
        raise ShapeError(f"repeat: {len(times)} counts for a tensor with {input.ndim} dimensions")
    if min(times, default=0) < 0:
        raise ShapeError(f"repeat: counts must be >= 0, got {times}")
    shape = (1,) * lead + tuple(input.shape)
    pairs = [n if i else 1 for n in shape for i in (0, 1)]
    wide = [n if i else m for n, m in zip(shape, times, strict=True) for i in (0, 1)]
    result = tuple(n * m for n, m in zip(shape, times, strict=True))
    return reshape(run(Copy(True), expand(reshape(input, pairs), wide)), result)


def tile(input: Tensor, *dims: Any) -> Tensor:
    """`repeat` with counts for the last dimensions; missing ones are 1."""
    times = size_arguments("tile", dims)
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Each element repeated in place: `repeats` times, or as often as a vector says.

    With one argument, a vector of counts, the index that would do it.
    """
    from mlgpu.ops.creation import tensor
    from mlgpu.ops.index import index_select

    if repeats is None:
        if input.device.type != "cpu":
            return _stretches(input)
        counts = input.detach()._host()
        return wrap(np.repeat(np.arange(len(counts)), counts), input.device)
    if dim is None:
        input, dim = reshape(input, -1), 0
    n = input.shape[dim_index("repeat_interleave", dim, input.ndim)]
    if isinstance(repeats, Tensor) and repeats.device.type != "cpu" and repeats.numel() == n:
        return index_select(input, dim, _stretches(repeats))
    counts = repeats.detach()._host() if isinstance(repeats, Tensor) else np.asarray(repeats)
    if counts.dtype.kind not in "iu":
        raise DTypeError(f"repeat_interleave: repeats must be integers, got {counts.dtype}")
    if counts.size and counts.min() < 0:
        raise ShapeError(f"repeat_interleave: repeats must be >= 0, got {counts.min()}")
    if counts.ndim > 1 or counts.size not in (1, n):
        raise ShapeError(f"repeat_interleave: repeats must be a number or have {n} elements, got "
                         f"shape {counts.shape}")
    places = np.repeat(np.arange(n), counts if counts.ndim and counts.size != 1 else int(
        counts.reshape(())))
    return index_select(input, dim, tensor(places, device=input.device))


def _stretches(counts: Tensor) -> Tensor:
    """0 to n - 1, each as often as a vector of counts on a device says."""
    if counts.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"repeat_interleave: repeats must be integers, got {counts.dtype!r}")
    ends = counts.reshape(-1).cumsum(0)
    total = max(0, int(ends[-1])) if ends.numel() else 0
    numbers = runtime(counts.device).call(
        lambda starts: cuda_embedding.stretch_numbers(
            starts, total, "repeat_interleave: repeats must be >= 0; a stretch would begin at "
            "{value}"), ((ends - counts.reshape(-1))._array,), counts.device)
    return wrap(numbers, counts.device)


class Flip(Op):
    """Dimensions in reverse."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def forward(self, x: Any) -> Any:
        out = cpu.empty(x.shape, x.dtype)
        np.copyto(out, np.flip(x, self.dims))
        return out

    def forward_cuda(self, x: Any) -> Any:
        return cuda_arrange.flip(x, self.dims)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Flip(self.dims), dy)  # type: ignore[no-any-return]


def flip(input: Tensor, *dims: Any) -> Tensor:
    """A copy with the dimensions named in reverse."""
    named = size_arguments("flip", dims)
    order = tuple(dim_index("flip", d, input.ndim) for d in named)
    if len(set(order)) != len(order):
        raise ShapeError(f"flip: a dimension appears twice in {named}")
    return run(Flip(order if input.ndim else ()), input)  # type: ignore[no-any-return]


def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse."""
    if input.ndim < 2:
        raise ShapeError(f"fliplr: expected at least 2 dimensions, got {input.ndim}")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Rows in reverse."""
    if input.ndim < 1:
        raise ShapeError("flipud: expected at least 1 dimension, got 0")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated by `k` quarter turns from the first of two dimensions towards the second."""
    if len(dims) != 2 or input.ndim < 2:
        raise ShapeError("rot90: expected two dimensions to rotate in, and a tensor with them")
    a, b = (dim_index("rot90", d, input.ndim) for d in dims)
    if a == b:
        raise ShapeError(f"rot90: the two dimensions must differ, both are {a}")
    order = list(range(input.ndim))
    order[a], order[b] = b, a
    if k % 4 == 1:
        return permute(flip(input, b), order)
    if k % 4 == 2:
        return flip(input, a, b)
    if k % 4 == 3:
        return flip(permute(input, order), b)
    return clone(input)


class Roll(Op):
    """Elements moved along dimensions, around the end."""

    def __init__(self, shifts: tuple[int, ...], dims: tuple[int, ...]) -> None:
        self.shifts, self.dims = shifts, dims

    def forward(self, x: Any) -> Any:
        out = cpu.empty(x.shape, x.dtype)
        np.copyto(out, np.roll(x, self.shifts, self.dims))
        return out

    def forward_cuda(self, x: Any) -> Any:
        return cuda_arrange.roll(x, self.shifts, self.dims)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Roll(tuple(-s for s in self.shifts), self.dims), dy)  # type: ignore[no-any-return]


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
         ) -> Tensor:
    """Elements moved by `shifts` along `dims`, around the end; flattened if no dims are given."""
    steps = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        if len(steps) != 1:
            raise ShapeError(f"roll: {len(steps)} shifts but no dims")
        return reshape(roll(reshape(input, -1), steps, 0), tuple(input.shape))
    axes = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(axes) != len(steps):
        raise ShapeError(f"roll: {len(steps)} shifts but {len(axes)} dims")
    at = tuple(dim_index("roll", d, input.ndim) for d in axes)
    return run(Roll(steps, at), input)  # type: ignore[no-any-return]


class Triangle(Op):
    """A matrix with the part below (or above) a diagonal kept and zeros elsewhere."""

    def __init__(self, offset: int, lower: bool) -> None:
        self.offset, self.lower = offset, lower
        self.name = "tril" if lower else "triu"

    def forward(self, x: Any) -> Any:
        out = cpu.empty(x.shape, x.dtype)
        self.forward_into(out, x)
        return out

    def forward_into(self, out: Any, x: Any) -> None:
        rows, columns = x.shape[-2:]
        if self.lower:
            keep = np.tri(rows, columns, self.offset, dtype=np.bool_)
        else:
            keep = ~np.tri(rows, columns, self.offset - 1, dtype=np.bool_)
        np.copyto(out, x, where=keep)
        np.copyto(out, np.zeros((), out.dtype), where=~keep)

    def forward_cuda(self, x: Any) -> Any:
        out = gpu.empty(x.shape, x.dtype)
        cuda_arrange.triangle(out, x, self.offset, self.lower)
        return out

    def forward_into_cuda(self, out: Any, x: Any) -> None:
        if out.flags.c_contiguous:
            cuda_arrange.triangle(out, x, self.offset, self.lower)
        else:
            cuda_copy.copy_into(out, self.forward_cuda(x))

    def backward(self, dy: Tensor) -> Tensor:
        return run(Triangle(self.offset, self.lower), dy)  # type: ignore[no-any-return]


def _triangle(name: str, input: Tensor, diagonal: int, inplace: bool) -> Tensor:
    if input.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 dimensions, got {input.ndim}")
    op = Triangle(diagonal, name.startswith("tril"))
    return run_inplace(op, input) if inplace else run(op, input)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions; `diagonal` moves its edge to the right."""
    return _triangle("tril", input, diagonal, False)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions; `diagonal` moves its edge to the right."""
    return _triangle("triu", input, diagonal, False)


def tril_(self: Tensor, diagonal: int = 0) -> Tensor:
    """`tril` in place."""
    return _triangle("tril_", self, diagonal, True)


def triu_(self: Tensor, diagonal: int = 0) -> Tensor:
    """`triu` in place."""
    return _triangle("triu_", self, diagonal, True)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike | None = dtypes.int64,
                 device: DeviceLike | None = None) -> Tensor:
    """(2, n) rows and columns of the lower triangle of a row x col matrix."""
    from mlgpu.ops.creation import tensor

    return tensor(np.stack(np.tril_indices(row, offset, col)), dtype=dtype, device=device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike | None = dtypes.int64,
                 device: DeviceLike | None = None) -> Tensor:
    """(2, n) rows and columns of the upper triangle of a row x col matrix."""
    from mlgpu.ops.creation import tensor

    return tensor(np.stack(np.triu_indices(row, offset, col)), dtype=dtype, device=device)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with a vector as its diagonal, or a copy of a matrix's diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise ShapeError(f"diag: expected a vector or a matrix, got {input.ndim} dimensions")
    return clone(run(Diagonal(diagonal, 0, 1), input))


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices whose diagonal is the last dimension of `input`, in dimensions dim1 and dim2."""
    ndim = input.ndim + 1
    a, b = dim_index("diag_embed", dim1, ndim), dim_index("diag_embed", dim2, ndim)
    if a == b:
        raise ShapeError(f"diag_embed: dim1 and dim2 must differ, both are {a}")
    side = input.shape[-1] + abs(offset)
    rest = iter(input.shape[:-1])
    shape = tuple(side if d in (a, b) else next(rest) for d in range(ndim))
    return run(Place(shape, Diagonal(offset, a, b)), input)  # type: ignore[no-any-return]


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of `input` on its diagonal."""
    return diag_embed(reshape(input, -1), offset)

