"""Self-attention among the thirds of one projection: no copies, and the gradient is one array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cpu import random as numbers
from mlgpu.cpu.runtime import empty as cpu_empty
from mlgpu.cuda import attention as cuda_attention
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.op import on_tensors, run
from mlgpu.ops.attention import ScaledDotProductAttention
from mlgpu.ops.join import cat
from mlgpu.ops.random_inplace import reserve
from mlgpu.random import Stream
from mlgpu.tensor import Tensor


class PackedAttention(ScaledDotProductAttention):
    """Attention in `heads` heads of (n, l, 3e), queries, keys and values side by side.

    (l, n, 3e) unless `batch_first`.  The result has e columns.  A mask may follow.
    """

    name = "self_attention"

    def __init__(self, heads: int, batch_first: bool, causal: bool, masked: bool, dropout: float,
                 stream: Stream | None, scale: float) -> None:
        super().__init__(scale, causal, masked, dropout, stream)
        self.heads, self.batch_first = heads, batch_first

    # --- between (n, l, 3e) and three times (n, heads, l, e / heads), arrays as tensors -----------

    def thirds(self, packed: Any) -> list[Any]:
        """Views of queries, keys and values."""
        parts = packed.reshape((*packed.shape[:2], 3, self.heads, -1))
        return [self._by_heads(parts[:, :, k]) for k in range(3)]

    def split(self, joined: Any) -> Any:
        """A view of (n, l, e) as (n, heads, l, e / heads)."""
        return self._by_heads(joined.reshape((*joined.shape[:2], self.heads, -1)))

    def _by_heads(self, x: Any) -> Any:
        return _ordered(x, (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))

    def join(self, x: Any) -> Any:
        """(n, heads, l, e / heads) as (n, l, e)."""
        x = _ordered(x, (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3))
        return x.reshape((*x.shape[:2], -1))

    # What the attention behind it reads.
    def input(self, index: int) -> Tensor:
        return (self.thirds(super().input(0))[index] if index < 3
                else super().input(1))

    def input_array(self, index: int) -> Any:
        return self.thirds(super().input_array(0))[index] if index < 3 else super().input_array(1)

    def output_array(self, index: int = 0) -> Any:
        return self.split(super().output_array())

    # --- CPU ------------------------------------------------------------------------------------

    def forward(self, packed: Any, mask: Any = None) -> Any:  # type: ignore[override]
        q, k, v = self.thirds(packed)
        return self.join(super().forward(q, k, v, mask))

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        grads = super().backward_cpu(self.split(dy))
        packed = cpu_empty(self._inputs_meta[0][0], dy.dtype)
        for part, grad in zip(self.thirds(packed), grads, strict=False):
            np.copyto(part, grad)
        return packed, *grads[3:]

    # --- CUDA -----------------------------------------------------------------------------------

    def forward_cuda(self, packed: Any, mask: Any = None) -> Any:  # type: ignore[override]
        q, k, v = self.thirds(packed)
        return contiguous(self.join(super().forward_cuda(q, k, v, mask)))

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        q, k, v = (self.input_array(i) for i in range(3))
        if not cuda_attention.fits(q, k, v):
            return on_tensors(self.backward, dy)  # type: ignore[no-any-return]
        packed = empty(self._inputs_meta[0][0], dy.dtype)
        mask = self.input_array(3) if self.masked else None
        *_, dmask = cuda_attention.backward(
            self.split(dy), q, k, v, mask, None, self.output_array(), self.lse, self._options(),
            self._wants_dmask(), self.thirds(packed))
        return packed, *((dmask,) if self.masked else ())

    # --- differentiable -------------------------------------------------------------------------

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        grads = super().backward(self.split(dy))
        joined = cat([self.join(g.to(dy.dtype)) for g in grads[:3] if g is not None], -1)
        return joined, *grads[3:]


def _ordered(x: Any, order: tuple[int, ...]) -> Any:
    return x.permute(order) if isinstance(x, Tensor) else x.transpose(order)


def packed_attention(packed: Tensor, heads: int, mask: Tensor | None, dropout: float,
                     is_causal: bool, batch_first: bool) -> Tensor:
    """`scaled_dot_product_attention` of a projection (n, l, 3e), (l, n, 3e) unless `batch_first`.

    `mask` is as there, of (n, heads, l, l) or what broadcasts to it.
    """
    n, length = packed.shape[:2] if batch_first else packed.shape[1::-1]
    size = packed.shape[-1] // 3 // heads
    scores = n * heads * length * length
    stream = reserve(None, numbers.words_for(scores, 32)) if dropout and scores else None
    op = PackedAttention(heads, batch_first, is_causal, mask is not None, dropout, stream,
                         1 / math.sqrt(size))
    result: Tensor = run(op, packed.contiguous(), *(() if mask is None else (mask,)))
    return result
