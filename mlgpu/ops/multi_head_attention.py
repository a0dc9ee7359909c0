"""Multi-head attention as a function of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.attention import scaled_dot_product_attention
from mlgpu.ops.dropout import dropout
from mlgpu.ops.join import cat
from mlgpu.ops.linear import linear
from mlgpu.ops.packed_attention import packed_attention
from mlgpu.ops.softmax import softmax
from mlgpu.tensor import Tensor

__all__ = ["multi_head_attention_forward"]

Triple = tuple[Tensor, Tensor, Tensor]
_NAME = "multi_head_attention_forward"


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
        bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
        out_proj_bias: Tensor | None, training: bool = True,
        key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
        static_v: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention in `num_heads` heads between a projection in and one out (Vaswani et al. 2017).

    query (l, n, e), key (s, n, ...), value (s, n, ...), or all without n.  in_proj_weight (3e, e)
    holds the three projections, unless `use_separate_proj_weight`.  bias_k, bias_v (1, 1, e) and
    `add_zero_attn` append one key each; static_k, static_v (n * num_heads, s, e / num_heads)
    replace the projected key and value.  Masks and the result: see `nn.MultiheadAttention`.
    `is_causal` needs attn_mask, which is not read if neither weights nor padding ask for it.
    Raises ShapeError, and DTypeError for masks that are neither bool nor floating.
    """
    batched = _check_ranks(query, key, value, key_padding_mask, attn_mask)
    if not batched:
        query, key, value = _once(lambda t: t.unsqueeze(1), query, key, value)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    _check_sizes(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight)
    if is_causal and attn_mask is None:
        raise ShapeError(f"{_NAME}: is_causal is a hint about attn_mask; pass the mask too")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _projected(query, key, value, in_proj_weight, separate, in_proj_bias)
    k, v = _appended(k, v, bias_k, bias_v, static_k, static_v)
    q, k, v = (_heads(q, num_heads), *(
        _heads(x, num_heads) if static is None else _static(static, q, num_heads)
        for x, static in ((k, static_k), (v, static_v))))
    if add_zero_attn:
        k, v = (cat([x, x.new_zeros((*x.shape[:2], 1, x.shape[3]))], 2) for x in (k, v))
    is_causal = is_causal and key_padding_mask is None and not need_weights
    extra = (bias_k is not None) + add_zero_attn
    mask = joined_mask(None if is_causal else attn_mask, key_padding_mask, q, k.shape[2], extra)
    attended, weights = _attend(q, k, v, mask, dropout_p if training else 0.0, is_causal,
                                need_weights)
    length, batch, size = query.shape
    output = linear(attended.permute(2, 0, 1, 3).reshape(length, batch, size), out_proj_weight,
                    out_proj_bias)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    if not batched:
        return output.squeeze(1), None if weights is None else weights.squeeze(0)
    return output, weights


def _once(function: Callable[[Tensor], Tensor], *tensors: Tensor) -> list[Tensor]:
    """The function of each tensor; tensors that are one object stay one."""
    made = {id(t): function(t) for t in tensors}
    return [made[id(t)] for t in tensors]


# --- keys, queries, values ------------------------------------------------------------------------


def _projected(query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None,
               separate: tuple[Tensor | None, Tensor | None, Tensor | None] | None,
               bias: Tensor | None) -> Triple:
    """(l, n, e) each; one product for all three of self-attention."""
    size = query.shape[-1]
    if bias is not None and tuple(bias.shape) != (3 * size,):
        raise ShapeError(f"{_NAME}: in_proj_bias must be ({3 * size},), got {tuple(bias.shape)}")
    if separate is None:
        if weight is None or tuple(weight.shape) != (3 * size, size):
            raise ShapeError(f"{_NAME}: in_proj_weight must be {(3 * size, size)}, got "
                             f"{None if weight is None else tuple(weight.shape)}")
        if query is key is value:
            q, k, v = linear(query, weight, bias).chunk(3, -1)
            return q, k, v
        if key is value:
            parts = (size, 2 * size)
            ours, theirs = (None, None) if bias is None else bias.split(parts)
            own, other = weight.split(parts)
            k, v = linear(key, other, theirs).chunk(2, -1)
            return linear(query, own, ours), k, v
        weights: Sequence[Tensor] = weight.chunk(3)
    else:
        weights = _checked(separate, query, key, value)
    biases: Sequence[Tensor | None] = (None,) * 3 if bias is None else bias.chunk(3)
    q, k, v = (linear(x, w, b) for x, w, b in zip(
        (query, key, value), weights, biases, strict=True))
    return q, k, v


def _checked(weights: tuple[Tensor | None, ...], *inputs: Tensor) -> list[Tensor]:
    size, fitting = inputs[0].shape[-1], []
    for letter, weight, x in zip("qkv", weights, inputs, strict=True):
        if weight is None or tuple(weight.shape) != (size, x.shape[-1]):
            raise ShapeError(f"{_NAME}: {letter}_proj_weight must be {(size, x.shape[-1])}, got "
                             f"{None if weight is None else tuple(weight.shape)}")
        fitting.append(weight)
    return fitting


def _appended(k: Tensor, v: Tensor, bias_k: Tensor | None, bias_v: Tensor | None,
              static_k: Tensor | None, static_v: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values with the learned extra one after them."""
    if bias_k is None and bias_v is None:
        return k, v
    if bias_k is None or bias_v is None:
        raise ShapeError(f"{_NAME}: bias_k and bias_v go together; one of them is None")
    if static_k is not None or static_v is not None:
        raise ShapeError(f"{_NAME}: bias_k and bias_v cannot extend static_k or static_v")
    batch, size = k.shape[1:]
    return cat([k, bias_k.expand(1, batch, size)]), cat([v, bias_v.expand(1, batch, size)])


def _heads(x: Tensor, heads: int) -> Tensor:
    """(s, n, e) as (n, heads, s, e / heads)."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).permute(1, 2, 0, 3)


def _static(x: Tensor, q: Tensor, heads: int) -> Tensor:
    batch, size = q.shape[1], q.shape[2] // heads
    if x.ndim != 3 or x.shape[0] != batch * heads or x.shape[2] != size:
        raise ShapeError(f"{_NAME}: static_k and static_v must be ({batch * heads}, s, {size}), "
                         f"got {tuple(x.shape)}")
    return x.unflatten(0, (batch, heads))


# --- self-attention as layers mostly have it ------------------------------------------------------


def self_attention(x: Tensor, heads: int, weights: tuple[Tensor, Tensor | None, Tensor,
                                                         Tensor | None], dropout_p: float,
                   key_padding_mask: Tensor | None, attn_mask: Tensor | None, is_causal: bool,
                   batch_first: bool, residual: Tensor | None) -> Tensor:
    """`multi_head_attention_forward` of one (l, n, e) without weights, `residual` added to it.

    (n, l, e) if `batch_first`.  `weights` are in_proj_weight, in_proj_bias, out_proj_weight and
    out_proj_bias.  Three kernels on CUDA.
    """
    in_weight, in_bias, out_weight, out_bias = weights
    _check_ranks(x, x, x, key_padding_mask, attn_mask)
    if is_causal and attn_mask is None:
        raise ShapeError(f"{_NAME}: is_causal is a hint about attn_mask; pass the mask too")
    if x.shape[2] != in_weight.shape[1]:
        raise ShapeError(f"{_NAME}: expected an input of {in_weight.shape[1]} features, got "
                         f"{x.shape[2]}")
    packed = linear(x, in_weight, in_bias)
    is_causal = is_causal and key_padding_mask is None
    batch, length = x.shape[:2] if batch_first else x.shape[1::-1]
    mask = joined_mask(None if is_causal else attn_mask, key_padding_mask,
                       _queries(packed, batch, heads, length), length, 0)
    if mask is not None and mask.dtype is dtypes.bool_:
        mask = mask.logical_not()
    attended = packed_attention(packed, heads, mask, dropout_p, is_causal, batch_first)
    return linear(attended, out_weight, out_bias, residual=residual)


def _queries(packed: Tensor, batch: int, heads: int, length: int) -> Tensor:
    """Something of the queries' shape and dtype, for checks."""
    size = packed.shape[-1] // 3 // heads
    return packed.detach().reshape(-1)[:1].expand(batch, heads, length, size)


# --- attention ------------------------------------------------------------------------------------


def joined_mask(attn: Tensor | None, padding: Tensor | None, q: Tensor, keys: int, extra: int
          ) -> Tensor | None:
    """Both masks in one that broadcasts to the scores: bool, True where hidden, or floating."""
    batch, heads, queries = q.shape[:3]
    keys -= extra
    masks = []
    if attn is not None:
        _check_mask("attn_mask", attn, q, (queries, keys), (batch * heads, queries, keys))
        masks.append(attn if attn.ndim == 2 else attn.unflatten(0, (batch, heads)))
    if padding is not None:
        _check_mask("key_padding_mask", padding, q, (batch, keys))
        masks.append(padding.reshape(batch, 1, 1, keys))
    if extra:
        masks = [cat([m, m.new_zeros((*m.shape[:-1], extra))], -1) for m in masks]
    if any(m.dtype is not dtypes.bool_ for m in masks):
        masks = [q.new_zeros(m.shape).masked_fill(m, -math.inf) if m.dtype is dtypes.bool_
                 else m.to(q.dtype) for m in masks]
        return masks[0] if len(masks) == 1 else masks[0] + masks[1]
    if len(masks) == 2:
        return masks[0].logical_or(masks[1])
    return masks[0] if masks else None


def _check_mask(name: str, mask: Tensor, q: Tensor, *shapes: tuple[int, ...]) -> None:
    if mask.dtype not in (dtypes.bool_, dtypes.float32, q.dtype):
        raise DTypeError(f"{_NAME}: {name} must be bool, float32 or {q.dtype.name} as the query, "
                         f"got {mask.dtype.name}")
    if tuple(mask.shape) not in shapes:
        raise ShapeError(f"{_NAME}: {name} must be {' or '.join(map(str, shapes))}, got "
                         f"{tuple(mask.shape)}")


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float,
            is_causal: bool, need_weights: bool) -> tuple[Tensor, Tensor | None]:
    """The values seen by each query, and the weights (n, heads, l, s) if they are needed."""
    hides = mask is not None and mask.dtype is dtypes.bool_
    if not need_weights:
        seen = mask.logical_not() if mask is not None and hides else mask
        return scaled_dot_product_attention(q, k, v, seen, dropout_p, is_causal), None
    if k.shape[2] != v.shape[2]:
        raise ShapeError(f"{_NAME}: key and value must be equally long, got {k.shape[2]} and "
                         f"{v.shape[2]}")
    scores = (q * math.sqrt(1 / q.shape[3])) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf) if hides else scores + mask
    weights = dropout(softmax(scores, -1), dropout_p) if dropout_p else softmax(scores, -1)
    return weights @ v, weights


# --- checks ---------------------------------------------------------------------------------------


def _check_ranks(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None,
                 attn: Tensor | None) -> bool:
    """Whether there is a batch dimension."""
    rank = query.ndim
    if rank not in (2, 3) or key.ndim != rank or value.ndim != rank:
        raise ShapeError(f"{_NAME}: query, key and value must all have 3 dimensions, or 2 without "
                         f"a batch, got {tuple(query.shape)}, {tuple(key.shape)} and "
                         f"{tuple(value.shape)}")
    if padding is not None and padding.ndim != rank - 1:
        raise ShapeError(f"{_NAME}: key_padding_mask must have {rank - 1} dimensions for inputs of "
                         f"{rank}, got {tuple(padding.shape)}")
    if attn is not None and attn.ndim not in (2, 3):
        raise ShapeError(f"{_NAME}: attn_mask must have 2 or 3 dimensions, got "
                         f"{tuple(attn.shape)}")
    return rank == 3


def _check_sizes(query: Tensor, key: Tensor, value: Tensor, size: int, heads: int,
                 separate: bool) -> None:
    if query.shape[2] != size or heads < 1 or size % heads:
        raise ShapeError(f"{_NAME}: expected queries of embed_dim {size}, a multiple of num_heads "
                         f"{heads}, got {query.shape[2]}")
    same = key.shape[:2] == value.shape[:2] if separate else key.shape == value.shape
    if not same or key.shape[1] != query.shape[1] or (not separate and key.shape[2] != size):
        raise ShapeError(f"{_NAME}: key and value must agree with each other and with the query's "
                         f"batch (and, in one in_proj_weight, its size), got "
                         f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}")
