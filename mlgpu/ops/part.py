"""Views of a part of a tensor: select, narrow, split, diagonal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from mlgpu.autograd.mode import mode
from mlgpu.cpu import runtime as cpu
from mlgpu.cpu.pieces import joined
from mlgpu.cuda import copy as cuda_copy
from mlgpu.cuda import runtime as gpu
from mlgpu.errors import PositionError, ShapeError
from mlgpu.op import Op, ViewOp, run, start
from mlgpu.ops.view import dim_index
from mlgpu.storage import as_strided
from mlgpu.tensor import Tensor

__all__ = ["chunk", "diagonal", "dsplit", "hsplit", "narrow", "select", "split",
           "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split",
           "unsafe_split_with_sizes", "vsplit"]


class Part(ViewOp):
    """Basic indexing: ints, slices with positive steps, None and `...` already expanded."""

    name = "slice"

    def __init__(self, index: tuple[Any, ...]) -> None:
        self.index = index

    def forward(self, x: Any) -> Any:
        # The trailing Ellipsis makes NumPy return a 0-d view instead of a scalar.
        return x[(*self.index, ...)]

    def backward(self, dy: Tensor) -> Tensor:
        return run(Place(self._inputs_meta[0][0], self), dy)  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Any) -> Any:
        out = cpu.zeros(self._inputs_meta[0][0], dy.dtype)
        self.forward(out)[...] = dy
        return out

    def backward_cuda(self, dy: Any) -> Any:
        out = gpu.zeros(self._inputs_meta[0][0], dy.dtype)
        cuda_copy.copy_into(self.forward(out), dy)
        return out


class Place(Op):
    """The input placed into zeros where a view operation would find it: that view's transpose."""

    def __init__(self, shape: tuple[int, ...], view: ViewOp) -> None:
        self.shape = shape
        self.view = view.again()

    def forward(self, x: Any) -> Any:
        out = cpu.zeros(self.shape, x.dtype)
        self.view.forward(out)[...] = x
        return out

    def forward_cuda(self, x: Any) -> Any:
        out = gpu.zeros(self.shape, x.dtype)
        cuda_copy.copy_into(self.view.forward_cuda(out), x)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return run(self.view.again(), dy)  # type: ignore[no-any-return]


class Pieces(Op):
    """What cut a dimension into views, as one node: their gradients are put into one.

    Each part apart would put its own into zeros of the whole, which would then be added up.
    """

    materialize = False

    def __init__(self, name: str, dim: int, parts: Sequence[Part]) -> None:
        self.name = name
        self.dim = dim
        self.parts = parts

    def backward(self, *grads: Tensor | None) -> Tensor:
        from mlgpu.ops.join import cat  # which builds on this file

        known = next(g for g in grads if g is not None)
        whole = [known.new_zeros(shape) if g is None else g
                 for g, (shape, *_) in zip(grads, self._outputs_meta, strict=True)]
        if known.ndim < len(self._inputs_meta[0][0]):
            whole = [g.unsqueeze(self.dim) for g in whole]
        return cat(whole, self.dim)

    def backward_cpu(self, *grads: Any) -> Any:
        known = next(g for g in grads if g is not None)
        shape = self._inputs_meta[0][0]
        if all(g is not None for g in grads):
            whole = joined(grads, shape, [part.forward for part in self.parts], self.dim)
            if whole is not None:
                return whole
        out = cpu.empty(shape, known.dtype)
        for part, grad in zip(self.parts, grads, strict=True):
            part.forward(out)[...] = 0 if grad is None else grad
        return out

    def backward_cuda(self, *grads: Any) -> Any:
        known = next(g for g in grads if g is not None)
        out = gpu.empty(self._inputs_meta[0][0], known.dtype)
        for part, grad in zip(self.parts, grads, strict=True):
            view = part.forward(out)
            cuda_copy.copy_into(view, gpu.zeros(view.shape, view.dtype) if grad is None else grad)
        return out


def _cut(name: str, input: Tensor, dim: int, places: Sequence[Any]) -> tuple[Tensor, ...]:
    """Views at places of a dimension that together are the whole."""
    parts = [Part((slice(None),) * dim + (place,)) for place in places]
    if len(parts) < 2 or not (mode.grad and input.requires_grad):
        return tuple([run(part, input) for part in parts])
    op = Pieces(name, dim, [part.again() for part in parts])  # type: ignore[misc]
    start(op, (input,))
    mode.grad = False
    try:
        views = tuple([run(part, input) for part in parts])
    finally:
        mode.grad = True
    if mode.rematerializer is not None:
        op.recipes = mode.rematerializer.views(parts, input)
    op.record_inputs((input,))
    op.record_outputs(views)
    return views


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One position of a dimension, which disappears.  IndexError out of range."""
    if input.ndim == 0:
        raise IndexError("select: a 0-d tensor has no dimension to select from")
    at = dim_index("select", dim, input.ndim)
    n = input.shape[at]
    if not -n <= index < n:
        raise IndexError(f"select: index {index} is out of range for dimension {at} of length {n}")
    return run(Part((slice(None),) * at + (index,)), input)  # type: ignore[no-any-return]


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """`length` positions of a dimension from `start` on."""
    if input.ndim == 0:
        raise ShapeError("narrow: a 0-d tensor has no dimension to narrow")
    at = dim_index("narrow", dim, input.ndim)
    if isinstance(start, Tensor) and (start.ndim or start.dtype.kind != "int"):
        raise ShapeError("narrow: start must be a number or a 0-d tensor of integers, got "
                         f"{start.dtype.name} of shape {tuple(start.shape)}")
    first, n = int(start), input.shape[at]
    if not -n <= first <= n:
        raise IndexError(f"narrow: start {first} is out of range for length {n}")
    first = first + n if first < 0 else first
    if length < 0 or first + length > n:
        raise ShapeError(f"narrow: start {first} + length {length} exceeds length {n} of "
                         f"dimension {at}")
    return _slice(input, at, first, first + length)


def _slice(input: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Tensor:
    index = (slice(None),) * dim + (slice(start, stop, step),)
    return run(Part(index), input)  # type: ignore[no-any-return]


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0
          ) -> tuple[Tensor, ...]:
    """Views of `split_size` positions each (the last may be shorter), or of the sizes listed."""
    if not isinstance(split_size_or_sections, int):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    if tensor.ndim == 0:
        raise ShapeError("split: a 0-d tensor has no dimension to split")
    at = dim_index("split", dim, tensor.ndim)
    size, n = split_size_or_sections, tensor.shape[at]
    if size < 0 or (size == 0 and n != 0):
        raise ShapeError(f"split: split_size must be positive, got {size}")
    if n == 0:
        return (_slice(tensor, at, 0, 0),)
    return _cut("split", tensor, at, [slice(i, min(i + size, n)) for i in range(0, n, size)])


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0
                     ) -> tuple[Tensor, ...]:
    """Views of the sizes listed, which must add up to the dimension's length."""
    at = dim_index("split_with_sizes", dim, input.ndim)
    sizes = tuple(int(n) for n in split_sizes)
    if sum(sizes) != input.shape[at] or min(sizes, default=0) < 0:
        raise ShapeError(f"split: sizes {sizes} must be >= 0 and add up to {input.shape[at]}, the "
                         f"length of dimension {at}")
    ends = [*itertools.accumulate(sizes)]
    return _cut("split", input, at, [slice(end - n, end) for n, end in zip(sizes, ends,
                                                                            strict=True)])


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal length (the last may be shorter)."""
    if chunks <= 0:
        raise ShapeError(f"chunk: chunks must be positive, got {chunks}")
    if input.ndim == 0:
        raise ShapeError("chunk: a 0-d tensor has no dimension to divide")
    n = input.shape[dim_index("chunk", dim, input.ndim)]
    if n == 0:
        return split_with_sizes(input, (0,) * chunks, dim)
    return split(input, -(-n // chunks), dim)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0
                 ) -> tuple[Tensor, ...]:
    """Views cut at the indices given, or `sections` views of nearly equal length."""
    if input.ndim == 0:
        raise ShapeError("tensor_split: a 0-d tensor has no dimension to split")
    at = dim_index("tensor_split", dim, input.ndim)
    n = input.shape[at]
    given: Any = indices_or_sections
    if isinstance(given, Tensor):
        given = given.tolist()
    if isinstance(given, int):
        if given <= 0:
            raise ShapeError(f"tensor_split: the number of sections must be positive, got {given}")
        small, extra = divmod(n, given)
        ends = [(i + 1) * small + min(i + 1, extra) for i in range(given)]
        starts = [0, *ends[:-1]]
    else:
        cuts = [slice(None, i).indices(n)[1] for i in given]
        starts, ends = [0, *cuts], [*cuts, n]
    return tuple(_slice(input, at, a, max(a, b)) for a, b in zip(starts, ends, strict=True))


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the columns (dimension 1, or 0 of a vector)."""
    if input.ndim == 0:
        raise ShapeError("hsplit: expected at least 1 dimension, got 0")
    return _even_split("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the rows of a tensor with at least 2 dimensions."""
    if input.ndim < 2:
        raise ShapeError(f"vsplit: expected at least 2 dimensions, got {input.ndim}")
    return _even_split("vsplit", input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 2 of a tensor with at least 3."""
    if input.ndim < 3:
        raise ShapeError(f"dsplit: expected at least 3 dimensions, got {input.ndim}")
    return _even_split("dsplit", input, indices_or_sections, 2)


def _even_split(name: str, input: Tensor, given: Any, dim: int) -> tuple[Tensor, ...]:
    if isinstance(given, int) and (given <= 0 or input.shape[dim] % given):
        raise ShapeError(f"{name}: length {input.shape[dim]} cannot be divided into {given} equal "
                         "parts")
    return tensor_split(input, given, dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A view of each position of a dimension."""
    if input.ndim == 0:
        raise PositionError("unbind: a 0-d tensor has no dimension to unbind")
    at = dim_index("unbind", dim, input.ndim)
    return _cut("unbind", input, at, range(input.shape[at]))


def iterate(self: Tensor) -> Iterator[Tensor]:
    """A view of each position of the first dimension.  TypeError for 0-d tensors."""
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self))


# PyTorch's forms whose results may be overwritten, which loses a gradient there and not here.
unsafe_chunk, unsafe_split, unsafe_split_with_sizes = chunk, split, split_with_sizes


class Diagonal(ViewOp):
    """The diagonal of two dimensions, as the last dimension."""

    def __init__(self, offset: int, dim1: int, dim2: int) -> None:
        self.offset, self.dim1, self.dim2 = offset, dim1, dim2

    def forward(self, x: Any) -> Any:
        view = x.diagonal(self.offset, self.dim1, self.dim2)
        if x.flags.writeable and not view.flags.writeable:
            view.flags.writeable = True  # NumPy hands diagonals out read-only
        return view

    def forward_cuda(self, x: Any) -> Any:
        view = x.diagonal(self.offset, self.dim1, self.dim2)
        if not view.size:  # CuPy makes it of other memory
            return as_strided(x, view.shape, view.strides)
        return view

    def backward(self, dy: Tensor) -> Tensor:
        return run(Place(self._inputs_meta[0][0], self), dy)  # type: ignore[no-any-return]


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions as a view; it becomes the last dimension."""
    a, b = dim_index("diagonal", dim1, input.ndim), dim_index("diagonal", dim2, input.ndim)
    if a == b:
        raise ShapeError(f"diagonal: dim1 and dim2 must differ, both are {a}")
    return run(Diagonal(offset, a, b), input)  # type: ignore[no-any-return]
