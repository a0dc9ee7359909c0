"""Positions of tokens: sinusoids that are added, and rotations."""

from __future__ import annotations

import math

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike, compute_dtype, float32, float64
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.module import Module
from mlgpu.ops.creation import arange
from mlgpu.ops.join import stack
from mlgpu.tensor import Tensor

__all__ = ["RotaryPositionalEmbedding", "SinusoidalPositionalEncoding"]


class SinusoidalPositionalEncoding(Module):
    """Adds sin and cos of position / 10000^(2 i / d_model), side by side (Vaswani et al. 2017).

    Inputs (..., tokens, d_model); `offset` is the first token's position.  Raises ShapeError beyond
    `max_len` positions.
    """

    pe: Tensor

    def __init__(self, d_model: int, max_len: int = 5000, base: float = 10000.0,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        if d_model < 2 or d_model % 2:
            raise ShapeError("SinusoidalPositionalEncoding: d_model must be even, got "
                             f"{d_model}")
        self.d_model = d_model
        self.max_len = max_len
        angles = _angles(arange(max_len, device=device), d_model, base)
        self.register_buffer("pe", stack([angles.sin(), angles.cos()], -1).reshape(
            max_len, d_model).to(dtype or float32), persistent=False)

    def forward(self, input: Tensor, offset: int = 0) -> Tensor:
        tokens = input.shape[-2] if input.ndim > 1 else 0
        if input.ndim < 2 or input.shape[-1] != self.d_model or offset + tokens > self.max_len:
            raise ShapeError(f"SinusoidalPositionalEncoding: expected (..., tokens, {self.d_model})"
                             f" with at most {self.max_len} positions, got {tuple(input.shape)} "
                             f"from {offset} on")
        return input + self.pe[offset:offset + tokens].to(input.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, max_len={self.max_len}"


class RotaryPositionalEmbedding(Module):
    """Turns pairs of features by position * base^(-2 i / dim) (RoPE, Su et al. 2021).

    Inputs (..., tokens, head_dim) with dim <= head_dim, of which the rest stays; queries and keys
    are to be turned alike.  Pairs are (i, i + dim / 2) or, `interleaved`, neighbours.  Positions
    are `offset`, offset + 1, ..., or those given: (tokens,), or (n, 1, tokens) for each sequence.
    """

    def __init__(self, dim: int, base: float = 10000.0, interleaved: bool = False) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ShapeError(f"RotaryPositionalEmbedding: dim must be even, got {dim}")
        self.dim = dim
        self.base = base
        self.interleaved = interleaved

    def forward(self, input: Tensor, offset: int = 0, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = arange(offset, offset + input.shape[-2], device=input.device)
        angles = _angles(positions, self.dim, self.base)  # in float64: positions may be large
        wide = compute_dtype(input.dtype)
        return F.rotary_embedding(input, angles.cos().to(wide), angles.sin().to(wide),
                                  interleaved=self.interleaved)

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}, interleaved={self.interleaved}"


def _angles(positions: Tensor, dim: int, base: float) -> Tensor:
    """position * base^(-2 i / dim), float64."""
    steps = arange(0, dim, 2, dtype=float64, device=positions.device)
    return positions.to(float64)[..., None] * (steps * (-math.log(base) / dim)).exp()
