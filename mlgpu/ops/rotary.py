"""Rotary position embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import widen
from mlgpu.cpu.runtime import empty_like
from mlgpu.cuda import rope as cuda_rope
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.tensor import Tensor

__all__ = ["rotary_embedding"]


class RotaryEmbedding(Op):
    """Pairs (u, v) of each row become (u cos - v sin, v cos + u sin); or back, with -sin.

    Inputs: x (..., columns), then cos and sin (..., pairs), which broadcast.  The gradient of x is
    turned back.
    """

    def __init__(self, interleaved: bool, back: bool) -> None:
        self.interleaved = interleaved
        self.back = back

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0, 1, 2) if needs[1] or needs[2] else (1, 2)

    def _pair(self, x: Any, pairs: int) -> tuple[Any, Any]:
        """The first and the second numbers of all pairs, of an array or a Tensor."""
        if self.interleaved:
            return x[..., 0:2 * pairs:2], x[..., 1:2 * pairs:2]
        return x[..., :pairs], x[..., pairs:2 * pairs]

    def forward(self, x: Any, cos: Any, sin: Any) -> Any:
        pairs = cos.shape[-1]
        out = empty_like(x)
        u, v = map(widen, self._pair(x, pairs))
        cosine, sine = (widen(a).astype(u.dtype, copy=False) for a in (cos, sin))
        if self.back:
            sine = -sine
        first, second = self._pair(out, pairs)
        np.copyto(first, u * cosine - v * sine, casting="unsafe")
        np.copyto(second, v * cosine + u * sine, casting="unsafe")
        out[..., 2 * pairs:] = x[..., 2 * pairs:]
        return out

    def forward_cuda(self, x: Any, cos: Any, sin: Any) -> Any:
        return cuda_rope.rotate(x, cos, sin, self.interleaved, self.back)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = self.input(1), self.input(2)
        dx: Tensor = run(RotaryEmbedding(self.interleaved, not self.back), dy, cos, sin)
        if not (self.needs[1] or self.needs[2]):
            return dx, None, None
        compute, pairs = dtypes.compute_dtype(dy.dtype), cos.shape[-1]
        u, v = self._pair(self.input(0).to(compute), pairs)
        a, b = self._pair(dy.to(compute), pairs)
        dsin = b * u - a * v
        return dx, a * u + b * v, -dsin if self.back else dsin


def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False
                     ) -> Tensor:
    """`input` (..., columns) with pairs of columns turned by angles, as positions (Su et al. 2021).

    cos and sin (..., pairs) broadcast to the dimensions before: (positions, pairs) for queries
    (batch, heads, positions, columns).  Pair i is columns i and pairs + i, or, interleaved, 2i and
    2i + 1; columns after the pairs stay.  cos and sin are float32 or of the input's dtype.
    """
    name = "rotary_embedding"
    for what, x in (("input", input), ("cos", cos), ("sin", sin)):
        if not x.dtype.is_floating_point or not (
                x.dtype is input.dtype or x.dtype is dtypes.float32):
            raise DTypeError(f"{name}: expected a floating input, and cos and sin of its dtype or "
                             f"float32; {what} is {x.dtype.name}")
    if cos.dtype is not sin.dtype or cos.shape != sin.shape:
        raise ShapeError(f"{name}: cos and sin must have one shape and dtype, got "
                         f"{tuple(cos.shape)} of {cos.dtype.name} and {tuple(sin.shape)} of "
                         f"{sin.dtype.name}")
    shape = tuple(input.shape)
    try:
        fits = (input.ndim > 0 and cos.ndim > 0 and 2 * cos.shape[-1] <= shape[-1] and
                np.broadcast_shapes(shape[:-1], tuple(cos.shape[:-1])) == shape[:-1])
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"{name}: cos and sin must be (..., pairs), at most half as many pairs as "
                         f"the input has columns, and broadcast to {shape[:-1]}, got "
                         f"{tuple(cos.shape)} for an input of {shape}")
    turned: Tensor = run(RotaryEmbedding(interleaved, False), input, cos, sin)
    return turned
