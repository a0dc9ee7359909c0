"""Operations that a bool mask steers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import mask as cuda_mask
from mlgpu.cuda import runtime as gpu
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops.view import common_shape, expand, reshape
from mlgpu.storage import may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["masked_fill", "masked_scatter", "masked_select"]


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.dtype is not dtypes.bool_:
        raise DTypeError(f"{name}: mask must be bool, got {mask.dtype!r}")


class MaskedFill(Op):
    """The first input with a 0-dim value where the mask is true."""

    def forward(self, x: Any, mask: Any, value: Any) -> Any:
        out = cpu.empty_like(x) if x.shape == mask.shape else cpu.empty(
            np.broadcast_shapes(x.shape, mask.shape), x.dtype)
        np.copyto(out, x)
        np.copyto(out, value, where=mask)
        return out

    def forward_into(self, out: Any, x: Any, mask: Any, value: Any) -> None:
        np.copyto(out, value, where=mask.copy() if np.may_share_memory(out, mask) else mask)

    def forward_cuda(self, x: Any, mask: Any, value: Any) -> Any:
        out = gpu.empty_like(x) if x.shape == mask.shape else gpu.empty(
            np.broadcast_shapes(x.shape, mask.shape), x.dtype)
        cuda_mask.fill(out, x, mask, value)
        return out

    def forward_into_cuda(self, out: Any, x: Any, mask: Any, value: Any) -> None:
        mask, value = [gpu.copy(a) if may_share_memory(out, a) else a for a in (mask, value)]
        cuda_mask.fill(out, out, mask, value)

    saved_inputs = (1,)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        from mlgpu.ops.choice import where

        mask = self.input(1)
        zero = dy.new_zeros(())
        return (where(mask, zero, dy) if self.needs[0] else None, None,
                where(mask, dy, zero) if self.needs[2] else None)


def _fill_value(name: str, input: Tensor, value: Any) -> Tensor:
    from mlgpu.ops.creation import full

    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(f"{name}: the value must have no dimensions, got "
                             f"{tuple(value.shape)}")
        from mlgpu.ops.cast import cast

        if value.dtype.is_complex and not input.dtype.is_complex:
            raise DTypeError(f"{name}: a value of {value.dtype!r} does not fit {input.dtype!r}")
        return cast(value, input.dtype)
    if isinstance(value, complex) and not input.dtype.is_complex:
        raise DTypeError(f"{name}: value {value!r} does not fit {input.dtype!r}")
    return full((), value, dtype=input.dtype, device=input.device)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`input` with `value` (a number or 0-dim tensor) where `mask` is true; both broadcast."""
    _check_mask("masked_fill", mask)
    common_shape("masked_fill", input, mask)
    return run(MaskedFill(), input, mask, _fill_value("masked_fill", input, value))  # type: ignore[no-any-return]


def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`masked_fill` in place."""
    _check_mask("masked_fill_", mask)
    if common_shape("masked_fill_", self, mask) != self.shape:
        raise ShapeError(f"masked_fill_: a mask of shape {tuple(mask.shape)} does not broadcast to "
                         f"{tuple(self.shape)}")
    return run_inplace(MaskedFill(), self, mask, _fill_value("masked_fill_", self, value))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` is true, in one dimension; both broadcast."""
    _check_mask("masked_select", mask)
    shape = common_shape("masked_select", input, mask)
    from mlgpu.ops.index import getitem

    return getitem(expand(input, shape), expand(mask, shape))


class MaskedScatter(Op):
    """The first input with the elements of the third, in order, where the mask is true."""

    saved_inputs = (1,)

    def forward(self, x: Any, mask: Any, source: Any) -> Any:
        out = cpu.copy(x)
        self.forward_into(out, x, mask, source)
        return out

    def forward_into(self, out: Any, x: Any, mask: Any, source: Any) -> None:
        mask = np.broadcast_to(mask, out.shape)
        count = int(np.count_nonzero(mask))
        out[mask] = source.reshape(-1)[:count].copy()

    def forward_cuda(self, x: Any, mask: Any, source: Any) -> Any:
        out = gpu.copy(x)
        self.forward_into_cuda(out, x, mask, source)
        return out

    def forward_into_cuda(self, out: Any, x: Any, mask: Any, source: Any) -> None:
        found = cuda_mask.scatter(out, mask, source)
        _check_count(self.name, found, source.size)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        from mlgpu.ops.choice import where
        from mlgpu.ops.creation import zeros
        from mlgpu.ops.join import cat

        mask = expand(self.input(1), dy.shape)
        dx = dsource = None
        if self.needs[0]:
            dx = where(mask, dy.new_zeros(()), dy)
        if self.needs[2]:
            taken = masked_select(dy, mask)
            shape = self._inputs_meta[2][0]
            rest = zeros(int(np.prod(shape)) - taken.numel(), dtype=dy.dtype, device=dy.device)
            dsource = reshape(cat((taken, rest)), shape)
        return dx, None, dsource


def _check_scatter(name: str, input: Tensor, mask: Tensor, source: Tensor) -> None:
    _check_mask(name, mask)
    if source.dtype is not input.dtype:
        raise DTypeError(f"{name}: self is {input.dtype!r} but source is {source.dtype!r}")
    if common_shape("_check_scatter", input, mask) != input.shape:
        raise ShapeError(f"{name}: a mask of shape {tuple(mask.shape)} does not broadcast to "
                         f"{tuple(input.shape)}")
    if input.device.type == "cpu":  # else counted where they are
        _check_count(name, int(np.count_nonzero(np.broadcast_to(
            mask.detach()._host(), tuple(input.shape)))), source.numel())


def _check_count(name: str, wanted: int, have: int) -> None:
    if have < wanted:
        raise ShapeError(f"{name}: the mask selects {wanted} elements but source has {have}")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements of `source`, in order, where `mask` is true."""
    shape = common_shape("masked_scatter", input, mask)
    input = expand(input, shape)
    _check_scatter("masked_scatter", input, mask, source)
    return run(MaskedScatter(), input, mask, source)  # type: ignore[no-any-return]


def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`masked_scatter` in place."""
    _check_scatter("masked_scatter_", self, mask, source)
    return run_inplace(MaskedScatter(), self, mask, source)
