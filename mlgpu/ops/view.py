"""Views: other shapes and orders of the same memory."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cuda import runtime as cuda
from mlgpu.errors import ShapeError
from mlgpu.op import ViewOp, run
from mlgpu.ops.cast import contiguous
from mlgpu.storage import as_strided
from mlgpu.tensor import Size, Tensor

__all__ = ["T", "adjoint", "broadcast_shapes", "broadcast_tensors", "broadcast_to", "expand",
           "expand_as", "flatten", "mT", "moveaxis", "movedim", "permute", "ravel", "reshape",
           "reshape_as", "squeeze", "swapaxes", "swapdims", "t", "transpose", "unflatten",
           "unsqueeze", "view", "view_as"]


def dim_index(name: str, dim: int, ndim: int) -> int:
    """`dim` counted from the front.  IndexError where it is out of range (0-d tensors have one)."""
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise IndexError(f"{name}: dimension out of range: {dim} (expected {-n} to {n - 1})")
    return dim % n


def size_arguments(name: str, sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence, as ints."""
    if len(sizes) == 1 and hasattr(sizes[0], "__iter__") and not hasattr(sizes[0], "__index__"):
        sizes = tuple(sizes[0])
    try:
        return tuple(operator.index(n) for n in sizes)
    except TypeError:
        raise TypeError(f"{name}: sizes must be ints, got {sizes}") from None


class View(ViewOp):
    """The same memory under another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Any) -> Any:
        return x.reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return reshape(dy, self._inputs_meta[0][0])

    def backward_cpu(self, dy: Any) -> Any:
        return dy.reshape(self._inputs_meta[0][0])

    def backward_cuda(self, dy: Any) -> Any:
        return cuda.reshaped(dy, self._inputs_meta[0][0])


def _view_possible(array: Any, shape: tuple[int, ...]) -> bool:
    if array.flags.c_contiguous:
        return True
    if not isinstance(array, np.ndarray):
        return cuda.view_possible(array, shape)
    try:
        array.reshape(shape, copy=False)
    except ValueError:
        return False
    return True


def _resolve(name: str, shape: Sequence[int], numel: int) -> tuple[int, ...]:
    """`shape` with its -1 worked out."""
    negative = [d for d, n in enumerate(shape) if n < 0]
    if len(negative) > 1 or any(shape[d] != -1 for d in negative):
        raise ShapeError(f"{name}: at most one size may be -1 and none less, got {tuple(shape)}")
    known = math.prod(n for n in shape if n >= 0)
    if negative:
        if known == 0 or numel % known:
            raise ShapeError(f"{name}: {tuple(shape)} does not fit {numel} elements")
        return tuple(numel // known if n == -1 else n for n in shape)
    if known != numel:
        raise ShapeError(f"{name}: {tuple(shape)} does not fit {numel} elements")
    return tuple(shape)


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """`input`'s elements under another shape: a view where possible, else a copy.

    One size may be -1.  Raises ShapeError where the number of elements differs.
    """
    sizes = _resolve("reshape", size_arguments("reshape", shape), input.numel())
    if not _view_possible(input._array, sizes):
        input = contiguous(input)
    return run(View(sizes), input)  # type: ignore[no-any-return]


def view(self: Tensor, *shape: Any) -> Tensor:
    """The same memory under another shape, or reinterpreted as a dtype of the same size.

    Raises ShapeError where no view can show it: use `reshape`.
    """
    if len(shape) == 1 and hasattr(shape[0], "numpy"):
        return _view_dtype(self, shape[0])
    sizes = _resolve("view", size_arguments("view", shape), self.numel())
    if not _view_possible(self._array, sizes):
        raise ShapeError(f"view: a tensor of shape {tuple(self.shape)} and strides "
                         f"{self.stride()} cannot be seen as {sizes}; use reshape()")
    return run(View(sizes), self)  # type: ignore[no-any-return]


class ViewDtype(ViewOp):
    """The same bytes as another dtype."""

    differentiable = False

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        return x.view(self.dtype)


def _view_dtype(self: Tensor, dtype: Any) -> Tensor:
    if self.dtype is dtype:
        return run(View(tuple(self.shape)), self)  # type: ignore[no-any-return]
    if dtype.itemsize != self.itemsize and (not self.ndim or self.stride(-1) != 1 or (
            self.shape[-1] * self.itemsize) % dtype.itemsize):
        raise ShapeError(f"view: a tensor of shape {tuple(self.shape)} and strides "
                         f"{self.stride()} cannot be seen as {dtype!r}")
    return run(ViewDtype(dtype.numpy), self)  # type: ignore[no-any-return]


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of `other`."""
    return view(self, other.shape)


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """`reshape` to the shape of `other`."""
    return reshape(self, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions `start_dim` to `end_dim` as one."""
    first = dim_index("flatten", start_dim, input.ndim)
    last = dim_index("flatten", end_dim, input.ndim)
    if input.ndim == 0:
        return reshape(input, 1)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if first == last:
        return input
    shape = tuple(input.shape)
    middle = math.prod(shape[first:last + 1])
    return reshape(input, (*shape[:first], middle, *shape[last + 1:]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return reshape(input, -1) if input.numel() else reshape(input, 0)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several; one of `sizes` may be -1."""
    at = dim_index("unflatten", dim, input.ndim)
    shape = tuple(input.shape)
    inner = _resolve("unflatten", tuple(sizes), shape[at])
    return view(input, (*shape[:at], *inner, *shape[at + 1:]))


class Permute(ViewOp):
    """The dimensions in another order."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def forward(self, x: Any) -> Any:
        return x.transpose(self.dims)

    def backward(self, dy: Tensor) -> Tensor:
        return permute(dy, *np.argsort(self.dims).tolist())

    def backward_cpu(self, dy: Any) -> Any:
        return dy.transpose(np.argsort(self.dims))

    backward_cuda = backward_cpu


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in the order `dims`, as a view."""
    order = size_arguments("permute", dims)
    if len(order) != input.ndim:
        raise ShapeError(f"permute: {len(order)} dimensions given for a tensor with {input.ndim}")
    order = tuple(dim_index("permute", d, input.ndim) for d in order)
    if len(set(order)) != len(order):
        raise ShapeError(f"permute: a dimension appears twice in {dims}")
    return run(Permute(order), input)  # type: ignore[no-any-return]


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped, as a view."""
    a = dim_index("transpose", dim0, input.ndim)
    b = dim_index("transpose", dim1, input.ndim)
    order = list(range(input.ndim))
    if order:
        order[a], order[b] = order[b], order[a]
    return run(Permute(tuple(order)), input)  # type: ignore[no-any-return]


swapaxes = swapdims = transpose


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are."""
    if input.ndim > 2:
        raise ShapeError(f"t: expected at most 2 dimensions, got {input.ndim}; use mT or permute")
    return transpose(input, 0, 1) if input.ndim == 2 else transpose(input, 0, 0)


def T(input: Tensor) -> Tensor:
    """All dimensions reversed."""
    return permute(input, *reversed(range(input.ndim)))


def H(input: Tensor) -> Tensor:
    """The conjugate transpose of a matrix; as `T` otherwise refuses."""
    if input.ndim not in (0, 2):
        raise ShapeError(f"H: expected a matrix, got {input.ndim} dimensions; use mH")
    return input if input.ndim == 0 else adjoint(input)


def mH(input: Tensor) -> Tensor:
    """The matrices in the last two dimensions, transposed and conjugated."""
    return adjoint(input)


def mT(input: Tensor) -> Tensor:
    """The last two dimensions swapped."""
    if input.ndim < 2:
        raise ShapeError(f"mT: expected at least 2 dimensions, got {input.ndim}")
    return transpose(input, -2, -1)


def adjoint(input: Tensor) -> Tensor:
    """The conjugate transpose of the last two dimensions."""
    from mlgpu.ops.complex import conj

    return conj(mT(input))


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions `source` moved to `destination`, the others kept in order."""
    sources = (source,) if isinstance(source, int) else tuple(source)
    targets = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(sources) != len(targets):
        raise ShapeError(f"movedim: {len(sources)} sources but {len(targets)} destinations")
    sources = tuple(dim_index("movedim", d, input.ndim) for d in sources)
    targets = tuple(dim_index("movedim", d, input.ndim) for d in targets)
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise ShapeError(f"movedim: a dimension is repeated in {source} or {destination}")
    order = [d for d in range(input.ndim) if d not in sources]
    for place, d in sorted(zip(targets, sources, strict=True)):
        order.insert(place, d)
    return permute(input, *order)


moveaxis = movedim


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of length 1 (those named, or all)."""
    if dim is None:
        drop = set(range(input.ndim))
    else:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        drop = {dim_index("squeeze", d, input.ndim) for d in dims}
    shape = tuple(n for d, n in enumerate(input.shape) if d not in drop or n != 1)
    return run(View(shape), input)  # type: ignore[no-any-return]


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of length 1 at `dim`."""
    at = dim_index("unsqueeze", dim, input.ndim + 1)
    shape = tuple(input.shape)
    return run(View((*shape[:at], 1, *shape[at:])), input)  # type: ignore[no-any-return]


class Expand(ViewOp):
    """Broadcast to a larger shape without copying."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Any) -> Any:
        strides = (0,) * (len(self.shape) - x.ndim) + tuple(
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(x.shape, self.shape[len(self.shape) - x.ndim:], x.strides,
                               strict=True))
        # Writable as PyTorch's: writing is refused where elements share a place (op.py).
        return as_strided(x, self.shape, strides)

    def backward(self, dy: Tensor) -> Tensor:
        return dy  # the engine sums it to the input's shape


def expand(input: Tensor, *size: Any) -> Tensor:
    """Broadcast to `size` (-1 keeps a length) without copying.

    Raises ShapeError where a length other than 1 would have to change.
    """
    shape = size_arguments("expand", size)
    lead = len(shape) - input.ndim
    if lead < 0:
        raise ShapeError(f"expand: {len(shape)} sizes for a tensor with {input.ndim} dimensions")
    full = []
    for d, n in enumerate(shape):
        have = input.shape[d - lead] if d >= lead else None
        if n == -1 and have is not None:
            n = have
        elif n < 0 or (have is not None and have not in (1, n)):
            raise ShapeError(f"expand: {shape} does not fit a tensor of shape "
                             f"{tuple(input.shape)} at dimension {d}")
        full.append(n)
    return run(Expand(tuple(full)), input)  # type: ignore[no-any-return]


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(self, other.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`expand` to `size`."""
    return expand(input, tuple(size))


def common_shape(name: str, *tensors: Tensor) -> tuple[int, ...]:
    """The shape that all tensors broadcast to.  Raises ShapeError where there is none."""
    try:
        return np.broadcast_shapes(*[tuple(t.shape) for t in tensors])
    except ValueError:
        listed = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ShapeError(f"{name}: shapes {listed} do not broadcast") from None


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that all of `shapes` broadcast to.  Raises ShapeError where there is none."""
    try:
        return Size(np.broadcast_shapes(*shapes))
    except ValueError:
        listed = ", ".join(str(tuple(s)) if not isinstance(s, int) else str(s) for s in shapes)
        raise ShapeError(f"broadcast: shapes {listed} do not fit each other") from None


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*[tuple(x.shape) for x in tensors])
    return tuple(expand(x, shape) for x in tensors)
