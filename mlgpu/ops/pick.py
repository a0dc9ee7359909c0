"""What sorts, selections and running extremes share: values taken along one dimension."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import index as cuda_index
from mlgpu.op import Op, run
from mlgpu.tensor import Tensor

Array = np.ndarray[Any, Any]


class Picked(NamedTuple):
    """Values taken along a dimension, and the int64 indices they were taken from."""

    values: Tensor
    indices: Tensor


def flat_places(indices: Array, dim: int, length: int) -> Array:
    """Positions in the flattened source of the elements that `indices` name along axis `dim`.

    The source has `length` elements along that axis and the shape of `indices` elsewhere.
    """
    inner = math.prod(indices.shape[dim + 1:])
    outer = math.prod(indices.shape[:dim])
    if outer <= 1 and inner <= 1:
        return contiguous(indices).reshape(-1)
    source = contiguous(indices).reshape(outer, -1, inner)
    flat = empty(source.shape, np.int64)
    np.multiply(source, inner, out=flat)
    flat += np.arange(inner)
    flat += (np.arange(outer) * (length * inner))[:, None, None]
    return flat.reshape(-1)


def take(x: Array, indices: Array, dim: int) -> Array:
    """x at `indices` along axis `dim`; a 0-d array counts as one element."""
    out = empty(indices.shape, x.dtype)
    length = x.shape[dim] if x.ndim else 1
    # The indices are in range by construction; "clip" spares NumPy a buffered copy.
    np.take(contiguous(x).reshape(-1), flat_places(indices, dim, length), mode="clip",
            out=out.reshape(-1))
    return out


def spread(values: Array, indices: Array, shape: tuple[int, ...], dim: int,
           repeats: bool) -> Array:
    """Zeros with `values` put (with `repeats`, added) where `take` would find them."""
    places = flat_places(indices, dim, shape[dim] if shape else 1)
    source = contiguous(values).reshape(-1)
    if not repeats:
        out = zeros(shape, values.dtype)
        out.reshape(-1)[places] = source
        return out
    compute = wide(values.dtype)
    total = zeros(shape, compute)
    np.add.at(total.reshape(-1), places, source.astype(compute, copy=False))
    if compute == values.dtype:
        return total
    out = empty(shape, values.dtype)
    np.copyto(out, total, casting="unsafe")
    return out


class TakeAlong(Op):
    """The elements at an index array along a dimension."""

    def __init__(self, indices: Array, dim: int, repeats: bool) -> None:
        self.indices, self.dim, self.repeats = indices, dim, repeats

    def forward(self, x: Any) -> Any:
        return take(x, self.indices, self.dim)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_index.take_along(x, self.indices, self.dim)

    def backward(self, dy: Tensor) -> Tensor:
        shape = self._inputs_meta[0][0]
        return run(Spread(self.indices, shape, self.dim, self.repeats), dy)  # type: ignore[no-any-return]


class Spread(Op):
    """The transpose of `TakeAlong`; `repeats` says that an index may occur twice."""

    def __init__(self, indices: Array, shape: tuple[int, ...], dim: int, repeats: bool) -> None:
        self.indices, self.shape, self.dim, self.repeats = indices, shape, dim, repeats

    def forward(self, dy: Any) -> Any:
        return spread(dy, self.indices, self.shape, self.dim, self.repeats)

    def forward_cuda(self, dy: Any) -> Any:
        return cuda_index.spread(dy, self.indices, self.shape, self.dim, self.repeats)

    def backward(self, dx: Tensor) -> Tensor:
        return run(TakeAlong(self.indices, self.dim, self.repeats), dx)  # type: ignore[no-any-return]


class Pick(Op):
    """An operation that gives values of its input along `dim` and their indices.

    The gradient of the values goes back to the elements they came from; indices have none.
    """

    saved_outputs = (1,)
    nondifferentiable_outputs = (1,)
    materialize = False
    repeats = False
    dim: int

    def backward(self, dy: Tensor, _: None) -> Tensor:
        shape = self._inputs_meta[0][0]
        return run(Spread(self._kept(dy.ndim, len(shape)), shape, self.dim, self.repeats),  # type: ignore[no-any-return]
                   self._lifted(dy, len(shape)))

    def backward_cpu(self, dy: Any, _: None) -> Any:
        shape = self._inputs_meta[0][0]
        indices = self._kept(dy.ndim, len(shape))
        return spread(dy, indices, shape, self.dim, self.repeats)

    def backward_cuda(self, dy: Any, _: None) -> Any:
        shape = self._inputs_meta[0][0]
        indices = self._kept(dy.ndim, len(shape))
        dy = dy.reshape(indices.shape)
        return cuda_index.spread(dy, indices, shape, self.dim, self.repeats)

    def _kept(self, have: int, want: int) -> Array:
        """The indices, with the dimension that the selection dropped put back."""
        indices: Array = self.output_array(1)
        if have == want:
            return indices
        shape = list(indices.shape)
        shape.insert(self.dim, 1)
        return indices.reshape(shape)

    def _lifted(self, dy: Tensor, want: int) -> Tensor:
        from mlgpu.ops.view import unsqueeze

        return dy if dy.ndim == want else unsqueeze(dy, self.dim)


def pick(op: Pick, input: Tensor) -> Picked:
    """Apply `op`."""
    return Picked(*run(op, input))
