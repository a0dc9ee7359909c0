"""Multi-head attention as a layer."""

from __future__ import annotations

from mlgpu.amp.policy import by_policy
from mlgpu.autograd.mode import mode
from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.tensor import Tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """softmax(q kᵀ / sqrt(head size)) v in `num_heads` heads, with projections before and after.

    query (l, n, embed_dim), key (s, n, kdim), value (s, n, vdim), batch before length with
    `batch_first`, or all without n (Vaswani et al. 2017).  in_proj_weight (3 embed_dim, embed_dim)
    holds the three projections, unless kdim or vdim differ (then q_, k_ and v_proj_weight do).
    Raises ShapeError unless num_heads divides embed_dim.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ShapeError(f"MultiheadAttention: num_heads must divide embed_dim, both positive, "
                             f"got {num_heads} and {embed_dim}")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        same = self._qkv_same_embed_dim
        shapes = {"in_proj_weight": (3 * embed_dim, embed_dim) if same else None,
                  "q_proj_weight": None if same else (embed_dim, embed_dim),
                  "k_proj_weight": None if same else (embed_dim, self.kdim),
                  "v_proj_weight": None if same else (embed_dim, self.vdim),
                  "in_proj_bias": (3 * embed_dim,) if bias else None,
                  "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
                  "bias_v": (1, 1, embed_dim) if add_bias_kv else None}
        for name, shape in shapes.items():
            self.register_parameter(name, None if shape is None else Parameter(
                empty(shape, device=device, dtype=dtype)))
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight,
                       self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False, *, residual: Tensor | None = None
                ) -> tuple[Tensor, Tensor | None]:
        """The output, and the attention weights (n, l, s) if `need_weights`, else None.

        Masks are True where a key must not be seen, or floats added to the scores:
        key_padding_mask (n, s), attn_mask (l, s) or (n * num_heads, l, s).  `is_causal` says that
        attn_mask is the causal mask, so that it need not be read.  The weights are the average over
        the heads, unless `average_attn_weights` is False: then (n, num_heads, l, s).  `residual`,
        of the output's shape, is added to it.
        """
        if (query is key is value and query.ndim == 3 and not need_weights
                and self.in_proj_weight is not None and self.bias_k is None
                and not self.add_zero_attn):
            from mlgpu.ops.multi_head_attention import self_attention  # and what that needs

            added = None if mode.autocast is None else residual  # which keeps its dtype
            output = by_policy(self_attention)(
                query, self.num_heads, (self.in_proj_weight, self.in_proj_bias,
                                        self.out_proj.weight, self.out_proj.bias),
                self.dropout if self.training else 0.0, key_padding_mask, attn_mask, is_causal,
                self.batch_first, None if mode.autocast is not None else residual)
            return (output if added is None else output + added), None
        swap = self.batch_first and query.ndim == 3
        if swap:
            same_kv, same = key is value, query is key
            query = query.transpose(0, 1)
            key = query if same else key.transpose(0, 1)
            value = key if same_kv else value.transpose(0, 1)
        output, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight,
            self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn, self.dropout,
            self.out_proj.weight, self.out_proj.bias, training=self.training,
            key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight, k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight, average_attn_weights=average_attn_weights,
            is_causal=is_causal)
        if swap:
            output = output.transpose(0, 1)
        return (output if residual is None else output + residual), weights
