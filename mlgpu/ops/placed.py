"""A copy of a tensor with a part replaced, and in-place forms of what makes views and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.ops import addmm as products
from mlgpu.ops import view as views
from mlgpu.ops.cast import clone
from mlgpu.ops.index import index_put, index_put_
from mlgpu.ops.linalg_norm import norm, vector_norm
from mlgpu.ops.strided import as_strided
from mlgpu.tensor import Tensor

__all__ = ["as_strided_scatter", "diagonal_scatter", "dist", "put", "renorm", "select_scatter",
           "slice_scatter", "unravel_index"]


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """`input` with `src` in the place of `input.select(dim, index)`."""
    out = clone(input)
    _fill(out.select(dim, index), src, "select_scatter")
    return out


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None,
                  end: int | None = None, step: int = 1) -> Tensor:
    """`input` with `src` in the place of `input[start:end:step]` along `dim`."""
    out = clone(input)
    at = views.dim_index("slice_scatter", dim, input.ndim)
    _fill(out[(slice(None),) * at + (slice(start, end, step),)], src, "slice_scatter")
    return out


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
                     ) -> Tensor:
    """`input` with `src` in the place of `input.diagonal(offset, dim1, dim2)`."""
    out = clone(input)
    _fill(out.diagonal(offset, dim1, dim2), src, "diagonal_scatter")
    return out


def as_strided_scatter(input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],
                       storage_offset: int | None = None) -> Tensor:
    """`input` with `src` in the place of `input.as_strided(size, stride, storage_offset)`.

    The copy keeps the input's strides, and its memory begins with its first element.
    """
    out = clone(input)
    _fill(as_strided(out, size, stride, storage_offset), src, "as_strided_scatter")
    return out


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of `input` with `source` at positions `index` of the flattened tensor, or added there.

    index: int64, from the end where negative, of any shape; source: as many elements, of input's
    dtype.  Without `accumulate` an index that repeats gets one of its values.  Raises IndexError,
    ShapeError, DTypeError.
    """
    places, values = _places("put", input, index, source)
    flat = index_put(views.reshape(input, -1), [places], values, accumulate)
    return views.reshape(flat, tuple(input.shape))


def _places(name: str, input: Tensor, index: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    if index.dtype is not dtypes.int64 or source.dtype is not input.dtype:
        raise DTypeError(f"{name}: index must be int64 and source {input.dtype.name}, got "
                         f"{index.dtype.name} and {source.dtype.name}")
    if index.numel() != source.numel():
        raise ShapeError(f"{name}: index and source must have as many elements, got "
                         f"{tuple(index.shape)} and {tuple(source.shape)}")
    return views.reshape(index, -1), views.reshape(source, -1)


def _fill(part: Tensor, src: Tensor, name: str) -> None:
    if part.shape != src.shape:
        raise ShapeError(f"{name}: expected a source of shape {tuple(part.shape)}, got "
                         f"{tuple(src.shape)}")
    part.copy_(src)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of `input` - `other`."""
    return norm(input - other, p)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each part along `dim` scaled down so that its p-norm is at most `maxnorm`."""
    if input.ndim < 2:
        raise ShapeError(f"renorm: expected at least 2 dimensions, got {tuple(input.shape)}")
    at = views.dim_index("renorm", dim, input.ndim)
    others = tuple(d for d in range(input.ndim) if d != at)
    sizes = vector_norm(input, p, others, keepdim=True)
    return input * (maxnorm / (sizes + 1e-7)).masked_fill(sizes <= maxnorm, 1.0)


def renorm_(self: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """`renorm` in place."""
    return self.copy_(renorm(self, p, dim, maxnorm))


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in a flattened tensor of that shape as positions along its dimensions."""
    found, indices = [], indices.to(dtypes.int64)
    for n in reversed((shape,) if isinstance(shape, int) else tuple(shape)):
        found.append(indices % n)
        indices = indices // n
    return tuple(reversed(found))


# --- in place ---------------------------------------------------------------------------------


def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`put` in place."""
    places, values = _places("put_", self, index, source)
    if self.is_contiguous():
        index_put_(views.view(self, -1), [places], values, accumulate)
        return self
    return self.copy_(put(self, index, source, accumulate))


def addmm_(self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addmm` in place."""
    return self.copy_(products.addmm(self, mat1, mat2, beta=beta, alpha=alpha))


def addmv_(self: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addmv` in place."""
    return self.copy_(products.addmv(self, mat, vec, beta=beta, alpha=alpha))


def addr_(self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addr` in place."""
    return self.copy_(products.addr(self, vec1, vec2, beta=beta, alpha=alpha))


def addbmm_(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
            ) -> Tensor:
    """`addbmm` in place."""
    return self.copy_(products.addbmm(self, batch1, batch2, beta=beta, alpha=alpha))


def baddbmm_(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
             ) -> Tensor:
    """`baddbmm` in place."""
    return self.copy_(products.baddbmm(self, batch1, batch2, beta=beta, alpha=alpha))


def _become(self: Tensor, view: Tensor, name: str) -> Tensor:
    """Make a tensor that view of itself, which keeps its history."""
    if self.requires_grad and self._node is None:
        raise GraphError(f"{name}: a leaf that requires grad cannot change its shape in place; use "
                         "no_grad() or the out-of-place form")
    self._array = view._array
    self._node, self._index = view._node, view._index
    self._base, self._chain, self._history = view._base, view._chain, view._history
    return self


def _twin(self: Tensor) -> Tensor:
    """The tensor as it is, as another object, of which it can become a view."""
    twin = Tensor._make(self._array, self._storage)
    twin._node, twin._index, twin._requires = self._node, self._index, self.requires_grad
    twin._base, twin._chain, twin._history = self._base, self._chain, self._history
    return twin


def squeeze_(self: Tensor, *dim: Any) -> Tensor:
    """`squeeze` in place: the tensor's own shape changes."""
    return _become(self, views.squeeze(_twin(self), *dim), "squeeze_")


def unsqueeze_(self: Tensor, dim: int) -> Tensor:
    """`unsqueeze` in place: the tensor's own shape changes."""
    return _become(self, views.unsqueeze(_twin(self), dim), "unsqueeze_")


def t_(self: Tensor) -> Tensor:
    """`t` in place: the tensor's own shape changes."""
    return _become(self, views.t(_twin(self)), "t_")


def transpose_(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose` in place: the tensor's own shape changes."""
    return _become(self, views.transpose(_twin(self), dim0, dim1), "transpose_")


swapaxes_ = swapdims_ = transpose_


def resize_(self: Tensor, *sizes: Any) -> Tensor:
    """Another shape for the same memory, or for new memory where that is too small.

    What new elements hold is undefined.  GraphError where the tensor has a graph.
    """
    if self.requires_grad:
        raise GraphError("resize_: a tensor that requires grad cannot be resized")
    shape = views.size_arguments("resize_", sizes)
    have, wanted = self.numel(), 1
    for n in shape:
        wanted *= n
    if wanted <= have and self.is_contiguous():
        self._array = self._array.reshape(-1)[:wanted].reshape(shape)
        return self
    made = self.new_zeros(shape)
    if have and wanted:
        count = min(have, wanted)
        made.view(-1)[:count].copy_(self.reshape(-1)[:count])
    self._array, self._storage = made._array, made._storage
    self._storage.join(self)
    return self


def resize_as_(self: Tensor, the_template: Tensor) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, the_template.shape)
