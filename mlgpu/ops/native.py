"""Functions by the names and arguments of PyTorch's own layers, as its tools for graphs write them:
norms with the statistics they used, sampling with modes by number, padding with a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlgpu import dtypes
from mlgpu.errors import ShapeError
from mlgpu.ops.batch_norm import batch_norm
from mlgpu.ops.exponential import rsqrt
from mlgpu.ops.grid_sample import MODES, PADDINGS, grid_sample
from mlgpu.ops.norm import group_norm, layer_norm
from mlgpu.ops.pad import pad as padded
from mlgpu.ops.variance import var_mean
from mlgpu.tensor import Tensor

__all__ = ["constant_pad_nd", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d",
           "native_batch_norm", "native_group_norm", "native_layer_norm"]

Norm = tuple[Tensor, Tensor, Tensor]


def _statistics(x: Tensor, dims: Sequence[int], eps: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The mean and 1 / sqrt(variance + eps) over dimensions; of half types in float32."""
    var, mean = var_mean(x.to(dtypes.compute_dtype(x.dtype)), tuple(dims), correction=0,
                         keepdim=keepdim)
    return mean, rsqrt(var + eps)


def native_layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None,
                      bias: Tensor | None, eps: float) -> Norm:
    """`layer_norm`, and the mean and 1 / sqrt(variance + eps) of each row, with 1 for its sizes."""
    shape = tuple(normalized_shape)
    out = layer_norm(input, shape, weight, bias, eps)
    dims = range(input.ndim - len(shape), input.ndim)
    mean, rstd = _statistics(input, dims, eps, True)
    return out, mean.to(input.dtype), rstd.to(input.dtype)


def native_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int,
                      HxW: int, group: int, eps: float) -> Norm:
    """`group_norm` of N * C * HxW elements, with each group's mean and 1 / sqrt(variance + eps).

    input: (N, C, ...); the statistics are (N, group).
    """
    if input.ndim < 2 or tuple(input.shape[:2]) != (N, C) or input.numel() != N * C * HxW:
        raise ShapeError(f"native_group_norm: expected N={N}, C={C} and {HxW} positions, got input "
                         f"{tuple(input.shape)}")
    out = group_norm(input, group, weight, bias, eps)
    mean, rstd = _statistics(input.reshape(N, group, C // group * HxW), (-1,), eps, False)
    return out, mean.to(input.dtype), rstd.to(input.dtype)


def native_batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                      running_mean: Tensor | None, running_var: Tensor | None, training: bool,
                      momentum: float, eps: float) -> Norm:
    """`batch_norm`, and each channel's mean and 1 / sqrt(variance + eps); empty when not training.

    input: (N, C, ...); running statistics are updated as by `batch_norm`.
    """
    out = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    kind = input.dtype if weight is None else weight.dtype
    if not training:
        return out, input.new_empty(0, dtype=kind), input.new_empty(0, dtype=kind)
    dims = [d for d in range(input.ndim) if d != 1]
    mean, rstd = _statistics(input, dims, eps, False)
    return out, mean.to(kind), rstd.to(kind)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: complex = 0) -> Tensor:
    """`nn.functional.pad` with a constant."""
    return padded(input, pad, "constant", value)


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                 align_corners: bool) -> Tensor:
    """`nn.functional.grid_sample`: modes are 0 bilinear, 1 nearest, 2 bicubic; paddings 0 zeros,
    1 border, 2 reflection.
    """
    for name, value in (("interpolation_mode", interpolation_mode), ("padding_mode", padding_mode)):
        if value not in (0, 1, 2):
            raise ShapeError(f"grid_sampler: {name} must be 0, 1 or 2, got {value!r}")
    return grid_sample(input, grid, MODES[interpolation_mode], PADDINGS[padding_mode],
                       align_corners)


def grid_sampler_2d(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                    align_corners: bool) -> Tensor:
    """`grid_sampler` of (N, C, H, W)."""
    if input.ndim != 4:
        raise ShapeError(f"grid_sampler_2d: expected 4 dimensions, got {tuple(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                    align_corners: bool) -> Tensor:
    """`grid_sampler` of (N, C, D, H, W)."""
    if input.ndim != 5:
        raise ShapeError(f"grid_sampler_3d: expected 5 dimensions, got {tuple(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)
