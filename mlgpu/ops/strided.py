"""as_strided: a view of a tensor's memory by strides and an offset given as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.errors import DerivativeError, GraphError, ShapeError
from mlgpu.op import ViewOp, run
from mlgpu.ops.creation import tensor
from mlgpu.ops.index import index_select
from mlgpu.ops.scatter import index_add
from mlgpu.ops.view import reshape
from mlgpu.storage import as_strided as strided_array
from mlgpu.tensor import Tensor

__all__ = ["as_strided"]


class AsStrided(ViewOp):
    """Elements at `first` + the products of positions and strides, counted from the input's first.

    Two elements may be one place in memory: their gradients are added up.
    """

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], first: int) -> None:
        self.size, self.stride, self.first = size, stride, first
        self.laid_out: tuple[int, ...] | None = None  # the strides of the input

    def forward(self, x: Any) -> Any:
        if self.laid_out not in (None, x.strides):
            raise GraphError("as_strided: a change in place of such a view needs a tensor of the "
                             "same strides again; clone() the view first")
        self.laid_out = x.strides
        item = x.itemsize
        strides = tuple(n * item for n in self.stride)
        if not isinstance(x, np.ndarray):
            return type(x)(self.size, x.dtype, memptr=x.data + self.first * item, strides=strides)
        step = item if self.first >= 0 else -item
        line = strided_array(x, (abs(self.first) + 1,), (step,))
        return strided_array(line[-1:], self.size, strides)

    def _positions(self, shape: Sequence[int], stride: Sequence[int]) -> Any:
        places = np.zeros((1,) * len(shape), np.int64)
        for d, (n, s) in enumerate(zip(shape, stride, strict=True)):
            places = places + (np.arange(n) * s).reshape([-1 if k == d else 1
                                                          for k in range(len(shape))])
        return places.reshape(-1)

    def backward(self, dy: Tensor) -> Tensor:
        shape, dtype = self._inputs_meta[0]
        assert self.laid_out is not None
        taken = self._positions(shape, [s // np.dtype(dtype).itemsize for s in self.laid_out])
        if len(np.unique(taken)) != len(taken):
            raise DerivativeError("as_strided: the input's own elements share memory (it was "
                                  "expanded); clone() it first")
        given = self._positions(self.size, self.stride) + self.first
        low = min(taken.min(initial=0), given.min(initial=0))
        length = max(taken.max(initial=0), given.max(initial=0)) - low + 1
        device = dy.device
        memory = index_add(dy.new_zeros(int(length)), 0, tensor(given - low, device=device),
                           reshape(dy, -1) if dy.numel() else reshape(dy, 0))
        return reshape(index_select(memory, 0, tensor(taken - low, device=device)), shape)


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int],
               storage_offset: int | None = None) -> Tensor:
    """The memory of `input` seen with this shape and these strides, both in elements.

    `storage_offset` counts from the start of the memory; None is where `input` starts.  Raises
    ShapeError where an element would lie outside the memory.
    """
    shape, steps = tuple(size), tuple(stride)
    if len(shape) != len(steps) or any(n < 0 for n in (*shape, *steps)):
        raise ShapeError(f"as_strided: expected as many strides as sizes, none below 0, got "
                         f"{shape} and {steps}")
    start = input.storage_offset()
    offset = start if storage_offset is None else storage_offset
    reach = offset + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    whole = input.untyped_storage().nbytes() // input.itemsize
    if offset < 0 or (0 not in shape and reach >= whole):
        raise ShapeError(f"as_strided: size {shape} with strides {steps} from {offset} on reaches "
                         f"beyond the {whole} elements of the memory")
    return run(AsStrided(shape, steps, offset - start), input)  # type: ignore[no-any-return]
