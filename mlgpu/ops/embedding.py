"""Table look-ups: embedding and one_hot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.cpu.gemm import contiguous, widen
from mlgpu.cpu.runtime import copy, empty, zeros
from mlgpu.cpu.segment import add_rows
from mlgpu.cuda import copy as cuda_copy
from mlgpu.cuda import embedding as cuda_embedding
from mlgpu.cuda import runtime as gpu
from mlgpu.errors import DerivativeError, DTypeError, PositionError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.tensor import Tensor

__all__ = ["embedding", "embedding_renorm_", "one_hot"]


def checked_rows(op: str, index: Any, bound: int) -> Any:
    """The index array as a vector.  IndexError where an index is outside 0 to bound - 1."""
    flat = contiguous(index).reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= bound):
        wrong = flat[(flat < 0) | (flat >= bound)][0]
        raise IndexError(f"{op}: index {wrong} is out of range for {bound} rows")
    return flat


class Embedding(Op):
    """Rows of the second input (a matrix) at the first input's indices.

    Gradients of row `padding` (-1: none) are left out; with `by_count` those of a row are divided
    by how often it was looked up.
    """

    saved_inputs = (0,)

    def __init__(self, padding: int = -1, by_count: bool = False) -> None:
        self.padding = padding
        self.by_count = by_count

    def forward(self, index: Any, weight: Any) -> Any:
        flat = checked_rows(self.name, index, weight.shape[0])
        out = empty((*index.shape, weight.shape[1]), weight.dtype)
        np.take(weight, flat, axis=0, out=out.reshape(len(flat), weight.shape[1]), mode="clip")
        return out

    def forward_cuda(self, index: Any, weight: Any) -> Any:
        return cuda_embedding.look_up(self.name, index, weight)

    def _accumulate(self) -> AddRows:
        return AddRows(self._inputs_meta[1][0][0], self.padding, self.by_count)

    def backward(self, dy: Tensor) -> tuple[None, Tensor]:
        return None, run(self._accumulate(), self.input(0), dy)

    def backward_cpu(self, dy: Any) -> tuple[None, Any]:
        return None, self._accumulate().forward(self.input_array(0), dy)

    def backward_cuda(self, dy: Any) -> tuple[None, Any]:
        return None, self._accumulate().forward_cuda(self.input_array(0), dy)


class AddRows(Op):
    """Zeros with the second input's rows added at the first's indices: `Embedding` transposed."""

    saved_inputs = (0,)

    def __init__(self, count: int, padding: int = -1, by_count: bool = False) -> None:
        self.count = count
        self.padding = padding
        self.by_count = by_count

    def forward(self, index: Any, rows: Any) -> Any:
        flat = contiguous(index).reshape(-1)
        rows = contiguous(rows).reshape(len(flat), rows.shape[-1])
        if self.by_count:
            counts = np.bincount(flat, minlength=self.count)[flat]
            rows = (widen(rows) / counts[:, None].astype(widen(rows).dtype)).astype(rows.dtype)
        out = add_rows(rows, flat, self.count)
        if self.padding >= 0:
            out[self.padding] = 0
        return out

    def forward_cuda(self, index: Any, rows: Any) -> Any:
        return cuda_embedding.add_rows(index, rows, self.count, self.padding, self.by_count)

    def backward(self, dy: Tensor) -> tuple[None, Tensor]:
        index = self.input(0)
        dx = run(Embedding(), index, dy)
        if self.padding >= 0:
            dx = dx * (index != self.padding).unsqueeze(-1)
        if self.by_count:
            ones = dx.new_ones((*index.shape, 1))
            dx = dx / run(Embedding(), index, run(AddRows(self.count), index, ones))
        return None, dx


class RenormRows(Op):
    """Rows whose p-norm exceeds `max_norm` scaled down to it, for the rows the index names."""

    name = "embedding_renorm"
    differentiable = False

    def __init__(self, max_norm: float, p: float) -> None:
        self.max_norm = max_norm
        self.p = p

    def forward(self, weight: Any, index: Any) -> Any:
        out = copy(weight)
        self.forward_into(out, weight, index)
        return out

    def forward_into(self, out: Any, weight: Any, index: Any) -> None:
        rows = np.unique(checked_rows(self.name, index, weight.shape[0]))
        picked = widen(weight[rows])
        norms = np.linalg.norm(picked, self.p, axis=1)
        long = norms > self.max_norm
        # PyTorch's 1e-7 keeps the scaled row strictly within the norm.
        scaled = picked[long] * (self.max_norm / (norms[long] + 1e-7))[:, None]
        out[rows[long]] = scaled.astype(out.dtype)

    def forward_cuda(self, weight: Any, index: Any) -> Any:
        out = gpu.copy(weight)
        self.forward_into_cuda(out, weight, index)
        return out

    def forward_into_cuda(self, out: Any, weight: Any, index: Any) -> None:
        scaled = gpu.contiguous(out)
        cuda_embedding.renorm(self.name, scaled, index, self.max_norm, self.p)
        if scaled is not out:
            cuda_copy.copy_into(out, scaled)


def check_table(op: str, index: Tensor, weight: Tensor) -> None:
    """Raise unless the index is int32 or int64 and the weight a matrix."""
    if index.dtype not in (dtypes.int64, dtypes.int32):
        raise DTypeError(f"{op}: the indices must be int64 or int32, got {index.dtype.name}")
    if weight.ndim != 2:
        raise ShapeError(f"{op}: weight must have 2 dimensions (rows, features), got "
                         f"{tuple(weight.shape)}")


def row_number(op: str, padding_idx: int | None, rows: int) -> int:
    """`padding_idx` counted from the front, -1 for None.  ShapeError out of range."""
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise ShapeError(f"{op}: padding_idx must be within the {rows} rows of weight, got "
                         f"{padding_idx}")
    return padding_idx % rows


def refuse_sparse(op: str, sparse: bool) -> None:
    """Raise DerivativeError for sparse=True."""
    if sparse:
        raise DerivativeError(f"{op}: gradients are dense here; leave sparse=True out")


def embedding_renorm_(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Scale the rows named by `indices`, in place, so that their norm is at most `max_norm`."""
    check_table("embedding_renorm_", indices, weight)
    return run_inplace(RenormRows(max_norm, norm_type), weight, indices)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """weight[input]: indices (...) into a table (rows, features) give (..., features).

    Row `padding_idx` gets no gradient.  `max_norm` first scales down, in place, the rows looked
    up; `scale_grad_by_freq` divides a row's gradient by the number of its look-ups.  Raises
    IndexError for an index out of range, DerivativeError for sparse=True.
    """
    refuse_sparse("embedding", sparse)
    check_table("embedding", input, weight)
    padding = row_number("embedding", padding_idx, weight.shape[0])
    if max_norm is not None:
        with no_grad():
            embedding_renorm_(weight, input, max_norm, norm_type)
    return run(Embedding(padding, scale_grad_by_freq), input, weight)  # type: ignore[no-any-return]


class OneHot(Op):
    """1 at each index along a new last dimension, 0 elsewhere."""

    differentiable = False

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def forward(self, index: Any) -> Any:
        classes = self.classes
        flat = contiguous(index).reshape(-1)
        if classes < 1 and not flat.size:
            raise ShapeError("one_hot: num_classes cannot be inferred from an empty tensor; pass "
                             "it")
        if classes == -1:
            classes = int(flat.max()) + 1
        if flat.size and flat.min() < 0:
            raise PositionError(f"one_hot: class {flat.min()} is negative; classes count from 0")
        if flat.size and flat.max() >= classes:
            raise PositionError(f"one_hot: class {flat.max()} is not below the {classes} classes")
        out = zeros((*index.shape, classes), np.int64)
        out.reshape(math.prod(index.shape), classes)[np.arange(len(flat)), flat] = 1
        return out

    def forward_cuda(self, index: Any) -> Any:
        return cuda_embedding.one_hot(index, self.classes)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 classes (...) as int64 vectors (..., num_classes) with a single 1.

    num_classes -1 is the largest class + 1.  Raises IndexError for a class out of range.
    """
    if tensor.dtype is not dtypes.int64:
        raise DTypeError(f"one_hot: classes must be int64, got {tensor.dtype.name}")
    if num_classes < -1:
        raise ShapeError(f"one_hot: num_classes must be positive, got {num_classes}")
    if tensor.device.type != "cpu" and num_classes < 1:
        if not tensor.numel():
            raise ShapeError("one_hot: num_classes cannot be inferred from an empty tensor; pass "
                             "it")
        num_classes = int(tensor.max()) + 1 if num_classes else 0
        num_classes = max(1, num_classes)  # a class that is not below it is found by the kernel
    return run(OneHot(num_classes), tensor)  # type: ignore[no-any-return]
