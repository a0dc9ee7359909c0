"""What the linear algebra functions ask of their arguments."""

from __future__ import annotations

import numpy as np

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.tensor import Tensor


def check_floating(op: str, *tensors: Tensor, half: bool = False) -> None:
    """Raise DTypeError unless all are floating or complex, of one dtype; `half` allows float16."""
    first = tensors[0].dtype
    for tensor in tensors:
        dtype = tensor.dtype
        if dtype.kind in ("bool", "int"):
            raise DTypeError(f"{op}: expected a floating or complex tensor, got {dtype.name}; "
                             "convert with .to()")
        if not half and dtype in (dtypes.float16, dtypes.bfloat16):
            raise DTypeError(f"{op}: not defined for {dtype.name}; convert to float32 first")
        if dtype is not first:
            raise DTypeError(f"{op}: arguments must have one dtype, got {first.name} and "
                             f"{dtype.name}")


def check_matrix(op: str, *tensors: Tensor) -> None:
    """Raise ShapeError unless all have at least 2 dimensions."""
    for tensor in tensors:
        if tensor.ndim < 2:
            raise ShapeError(f"{op}: expected at least 2 dimensions, got shape "
                             f"{tuple(tensor.shape)}")


def check_square(op: str, a: Tensor) -> None:
    """Raise ShapeError unless `a` holds square matrices."""
    check_matrix(op, a)
    if a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{op}: expected square matrices, got shape {tuple(a.shape)}")


def batch_shape(op: str, a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The common batch shape of two arrays of matrices.  ShapeError where there is none."""
    try:
        return np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"{op}: batch dimensions must broadcast, got shapes {tuple(a.shape)} and "
                         f"{tuple(b.shape)}") from None
