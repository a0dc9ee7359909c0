"""What the backward pass itself computes: adding gradients up and fitting them to their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import graph
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import accumulate as cuda_accumulate
from mlgpu.cuda import reduce as cuda_reduce
from mlgpu.device import CPU, runtime
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run, wrap
from mlgpu.ops.cast import cast
from mlgpu.ops.view import expand
from mlgpu.tensor import Tensor


class SumTo(Op):
    """Sum over the dimensions along which `shape` was broadcast to the input's shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        lead = len(shape) - len(self.shape)
        return tuple(range(lead)) + tuple(
            lead + d for d, n in enumerate(self.shape) if n == 1 and shape[lead + d] != 1)

    def forward(self, x: Any) -> Any:
        axes = self.axes(x.shape)
        compute = dtypes.compute_dtype(dtypes.from_numpy(x.dtype)).numpy
        kept = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        out = cpu.empty(kept, compute)
        np.add.reduce(x, axis=axes, dtype=compute, out=out, keepdims=True)
        if compute != x.dtype:
            half = cpu.empty(kept, x.dtype)
            np.copyto(half, out, casting="unsafe")
            out = half
        return out.reshape(self.shape)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_reduce.reduce(x, self.axes(x.shape), "sum").reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return expand(dy, self._inputs_meta[0][0])


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Sum `input` down to `size`, which must broadcast to the input's shape; integers in int64."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
    if shape and shape == tuple(input.shape):
        return input
    if input.dtype.kind in ("bool", "int"):
        input = input.to(dtypes.int64)
    if shape == tuple(input.shape):
        return input
    lead = input.ndim - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, input.shape[lead:], strict=True)):
        raise ShapeError(f"sum_to_size: {shape} does not broadcast to {tuple(input.shape)}")
    return run(SumTo(shape), input)  # type: ignore[no-any-return]


class _Arithmetic(graph.Arithmetic):
    def accumulate(self, total: Tensor, new: Tensor) -> Tensor:
        have, more = total._array, new._array
        if (total._storage.exclusive and have.shape == more.shape and have.dtype == more.dtype
                and not new.requires_grad):
            _add_into(total, new)
            return total
        result = _add(total, new)
        result._storage.exclusive = not result.requires_grad
        return result

    def deposit(self, leaf: Tensor, new: Tensor, create_graph: bool) -> None:
        before = leaf._grad
        if create_graph:
            leaf._grad = new if before is None else _add(before, new)
        elif before is not None:
            if before.requires_grad:
                leaf._grad = _add(before, new).detach()
            else:
                _add_into(before, new)
        else:
            if not new._storage.exclusive or not new.is_contiguous():
                device = new._storage.device
                engine = runtime(device)
                copy = engine.empty(new._array.shape, new._array.dtype, device)
                engine.copy_into(copy, new._array)
                new = wrap(copy, device)
            new._storage.exclusive = False
            leaf._grad = new

    def one(self, tensor: Tensor) -> Tensor:
        device = tensor._storage.device
        engine = runtime(device)
        array = engine.empty(tensor._array.shape, tensor._array.dtype, device)
        engine.fill(array, 1)
        return wrap(array, device)

    def conform(self, grad: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
        wanted = dtypes.from_numpy(dtype)
        if grad.dtype.is_complex and not wanted.is_complex:
            from mlgpu.ops.complex import real

            grad = real(grad)
        if grad._array.shape != shape:
            grad = sum_to_size(grad, shape)
        return cast(grad, wanted)


def _add(a: Tensor, b: Tensor) -> Tensor:
    from mlgpu.ops.arithmetic import add  # which builds on this file

    return add(a, b)


def _add_into(total: Tensor, new: Tensor) -> None:
    storage = total._storage
    add = _add_arrays if storage.device is CPU else cuda_accumulate.add_into
    runtime(storage.device).call(add, (total._array, new._array), storage.device, 1)
    storage.version += 1


def _add_arrays(total: Any, new: Any) -> None:
    np.add(total, new, out=total)


graph.arithmetic = _Arithmetic()
