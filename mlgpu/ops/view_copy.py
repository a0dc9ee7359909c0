"""What views show, in memory of its own and in order: PyTorch's functions that end in _copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.op import run
from mlgpu.ops import complex as numbers
from mlgpu.ops import fold, part, strided, view
from mlgpu.ops.cast import Copy
from mlgpu.tensor import Tensor

__all__ = ["alias_copy", "as_strided_copy", "detach_copy", "diagonal_copy", "expand_copy",
           "narrow_copy", "permute_copy", "select_copy", "slice_copy", "split_copy",
           "split_with_sizes_copy", "squeeze_copy", "t_copy", "transpose_copy", "unbind_copy",
           "unfold_copy", "unsqueeze_copy", "view_as_complex_copy", "view_as_real_copy",
           "view_copy"]


def alias_copy(input: Tensor) -> Tensor:
    """The tensor itself, copied in order."""
    return run(Copy(True), input)  # type: ignore[no-any-return]


def _each(views: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(map(alias_copy, views))


def as_strided_copy(input: Tensor, size: Sequence[int], stride: Sequence[int],
                    storage_offset: int | None = None) -> Tensor:
    """`as_strided`, copied."""
    return alias_copy(strided.as_strided(input, size, stride, storage_offset))


def detach_copy(input: Tensor) -> Tensor:
    """`detach`, copied."""
    return alias_copy(input.detach())


def diagonal_copy(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """`diagonal`, copied."""
    return alias_copy(part.diagonal(input, offset, dim1, dim2))


def expand_copy(input: Tensor, size: Sequence[int], *, implicit: bool = False) -> Tensor:
    """`expand`, copied: each element as often as it is seen."""
    return alias_copy(view.expand(input, size))


def narrow_copy(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """`narrow`, copied."""
    return alias_copy(part.narrow(input, dim, start, length))


def permute_copy(input: Tensor, dims: Sequence[int]) -> Tensor:
    """`permute`, copied."""
    return alias_copy(view.permute(input, dims))


def select_copy(input: Tensor, dim: int, index: int) -> Tensor:
    """`select`, copied."""
    return alias_copy(part.select(input, dim, index))


def slice_copy(input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
               step: int = 1) -> Tensor:
    """input[start:end:step] along a dimension, copied."""
    at = view.dim_index("slice_copy", dim, input.ndim)
    return alias_copy(input[(slice(None),) * at + (slice(start, end, step),)])


def split_copy(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`split`, each copied."""
    return _each(part.split(input, split_size, dim))


def split_with_sizes_copy(input: Tensor, split_sizes: Sequence[int], dim: int = 0
                          ) -> tuple[Tensor, ...]:
    """`split_with_sizes`, each copied."""
    return _each(part.split_with_sizes(input, split_sizes, dim))


def squeeze_copy(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """`squeeze`, copied."""
    return alias_copy(view.squeeze(input, dim))


def t_copy(input: Tensor) -> Tensor:
    """`t`, copied."""
    return alias_copy(view.t(input))


def transpose_copy(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose`, copied."""
    return alias_copy(view.transpose(input, dim0, dim1))


def unbind_copy(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """`unbind`, each copied."""
    return _each(part.unbind(input, dim))


def unfold_copy(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """`Tensor.unfold`, copied: windows that overlap no longer share memory."""
    return alias_copy(fold.unfold_view(input, dimension, size, step))


def unsqueeze_copy(input: Tensor, dim: int) -> Tensor:
    """`unsqueeze`, copied."""
    return alias_copy(view.unsqueeze(input, dim))


def view_as_complex_copy(input: Tensor) -> Tensor:
    """`view_as_complex`, copied."""
    return alias_copy(numbers.view_as_complex(input))


def view_as_real_copy(input: Tensor) -> Tensor:
    """`view_as_real`, copied."""
    return alias_copy(numbers.view_as_real(input))


def view_copy(input: Tensor, size: Sequence[int] | dtypes.dtype) -> Tensor:
    """`view` as another shape or dtype, copied."""
    shape: Any = size
    return alias_copy(view.view(input, shape))
