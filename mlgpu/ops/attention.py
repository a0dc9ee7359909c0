"""Scaled dot-product attention, computed and differentiated in blocks of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import random as numbers
from mlgpu.cpu.attention import Plan, attend, attend_backward, kept_scale
from mlgpu.cpu.pieces import beside_each_other
from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty, empty_like, zeros
from mlgpu.cuda import attention as cuda_attention
from mlgpu.errors import DTypeError, PositionError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.creation import arange, ones_like
from mlgpu.ops.dropout import Dropout
from mlgpu.ops.random_inplace import reserve
from mlgpu.ops.softmax import softmax
from mlgpu.ops.view import broadcast_shapes
from mlgpu.random import Stream
from mlgpu.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


class ScaledDotProductAttention(Op):
    """softmax(scale * q @ kᵀ + mask) @ v, with one saved logsumexp per query.

    Inputs: q (..., L, E), k (..., S, E), v (..., S, D), whose leading dimensions broadcast, then
    a mask where `masked` (bool: True takes part; floating: added), then where `limited` the number
    of keys for each index of the first leading dimension: keys and values beyond are not read.
    Which weights are dropped follows from the words of `stream`, again in backward.  The scores of
    one block of queries exist at a time.  A query with no key left gets 0.  Dao et al. 2022
    (FlashAttention), on the CPU with whole rows of scores.
    """

    def __init__(self, scale: float, causal: bool, masked: bool, dropout: float,
                 stream: Stream | None, limited: bool = False) -> None:
        self.scale = scale
        self.causal = causal
        self.masked, self.limited = masked, limited
        self.dropout, self.stream = dropout, stream

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(needs)))

    saved_outputs = (0,)

    # --- CPU --------------------------------------------------------------------------------

    def forward(self, q: Any, k: Any, v: Any, *rest: Any) -> Any:
        mask, lengths = self._optional(rest)
        lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        out = _interleaved(lead, q.shape[-2], v.shape[-1], q.dtype)
        lse = empty((*lead, q.shape[-2], 1), wide(q.dtype))
        if self.recording:
            self.stash(lse=lse)
        if lengths is not None:
            _check_values(lengths, k.shape[-2])
        if not k.shape[-2]:
            out[...] = 0
        elif out.size:
            plan = Plan(lead, q, k, v, self.causal, lengths)
            attend(self._options(), plan, q, k, v, _spread(mask, q, k), out, lse)
        return out

    def _optional(self, rest: Sequence[Any]) -> tuple[Any, Any]:
        """The mask and the lengths, or None each, among the inputs after q, k and v."""
        return rest[0] if self.masked else None, rest[-1] if self.limited else None

    def _wants_dmask(self) -> bool:
        return self.masked and self.needs[-1 - self.limited]

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        q, k, v, mask, lengths = self._arrays()
        lead = self.lse.shape[:-2]
        grads = beside_each_other((q, k, v)) if q.shape[:-2] == lead else None
        if grads is None:
            grads = [empty_like(x) if x.shape[:-2] == lead
                     else empty((*lead, *x.shape[-2:]), x.dtype) for x in (q, k, v)]
        dmask = None
        if self._wants_dmask():
            dmask = zeros((*lead, q.shape[-2], k.shape[-2]), wide(q.dtype))
        if dy.size and k.shape[-2]:
            plan = Plan(lead, q, k, v, self.causal, lengths)
            attend_backward(self._options(), plan, dy, q, k, v, _spread(mask, q, k),
                            self.output_array(), self.lse, grads, dmask)
        else:
            for grad in grads:
                grad[...] = 0
        dq, dk, dv = grads
        return self._grads(dq, dk, dv, dmask)

    def _arrays(self) -> tuple[Any, ...]:
        """q, k, v, and mask and lengths or None."""
        q, k, v, *rest = (self.input_array(i) for i in range(3 + self.masked + self.limited))
        return q, k, v, *self._optional(rest)

    def _grads(self, dq: Any, dk: Any, dv: Any, dmask: Any) -> tuple[Any, ...]:
        """One for each input; lengths have none."""
        return dq, dk, dv, *(dmask,) * self.masked, *(None,) * self.limited

    # --- CUDA -------------------------------------------------------------------------------

    def forward_cuda(self, q: Any, k: Any, v: Any, *rest: Any) -> Any:
        mask, lengths = self._optional(rest)
        if not cuda_attention.fits(q, k, v):
            cuda_attention.check_lengths(lengths, k.shape[-2])
            return on_tensors(self._composed, q, k, v, mask, lengths)
        out, lse = cuda_attention.forward(q, k, v, mask, lengths, self._options(), self.recording)
        if self.recording:
            self.stash(lse=lse)
        return out

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        q, k, v, mask, lengths = self._arrays()
        if not cuda_attention.fits(q, k, v):
            return on_tensors(self.backward, dy)  # type: ignore[no-any-return]
        return self._grads(*cuda_attention.backward(
            dy, q, k, v, mask, lengths, self.output_array(), self.lse, self._options(),
            self._wants_dmask()))

    def _options(self) -> cuda_attention.Options:
        return cuda_attention.Options(self.scale, self.causal, self.dropout, self.stream)

    # --- differentiable, and for what the kernels do not take ---------------------------------

    def _composed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                  lengths: Tensor | None) -> Tensor:
        compute = dtypes.compute_dtype(q.dtype)
        there = _there(lengths, q, k, v)
        k, v = _zeroed(k, there), _zeroed(v, there)
        weights = self._softmax(q.to(compute), k.to(compute), mask, there)
        chosen = self._chosen(weights)
        return ((weights if chosen is None else weights * chosen) @ v.to(compute)).to(q.dtype)

    def _softmax(self, q: Tensor, k: Tensor, mask: Tensor | None, there: Tensor | None) -> Tensor:
        """The weights before any is dropped; 0 for queries with no key left."""
        scores = q @ k.mT * (self.scale if q.shape[-1] else 0)
        if self.causal:
            future = ~scores.new_ones(scores.shape[-2:]).tril().bool()
            scores = scores.masked_fill(future, -math.inf)
        if mask is not None:
            scores = (scores.masked_fill(~mask, -math.inf) if mask.dtype is dtypes.bool_
                      else scores + mask.to(scores.dtype))
        if there is not None:
            scores = scores.masked_fill(there.logical_not().mT, -math.inf)
        lost = (scores == -math.inf).all(-1, keepdim=True)
        return softmax(scores.masked_fill(lost, 0), -1).masked_fill(lost, 0)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        compute = dtypes.compute_dtype(dy.dtype)
        q, k, v = (self.input(i).to(compute) for i in range(3))
        dy = dy.to(compute)
        there = _there(self.input(3 + self.masked), q, k, v) if self.limited else None
        k, v = _zeroed(k, there), _zeroed(v, there)
        p = self._softmax(q, k, self.input(3) if self.masked else None, there)
        chosen = self._chosen(p)
        dp = dy @ v.mT
        if chosen is not None:
            dp = dp * chosen
        ds = p * (dp - (dp * p).sum(-1, keepdim=True))
        dv = (p if chosen is None else p * chosen).mT @ dy
        return self._grads(ds @ k * self.scale, ds.mT @ q * self.scale, dv,
                           ds if self._wants_dmask() else None)

    def _chosen(self, like: Tensor) -> Tensor | None:
        """What the weights are multiplied by; None where none is dropped."""
        if self.stream is None:
            return None
        scaled = Dropout("dropout", self.stream, self.dropout, None, kept_scale(self.dropout))
        chosen: Tensor = run(scaled, ones_like(like))
        return chosen


def _there(lengths: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Which keys exist, (batch, 1, ..., keys, 1)."""
    if lengths is None:
        return None
    places = arange(k.shape[-2], device=k.device).unsqueeze(-1)
    return places < lengths.reshape(-1, *[1] * (max(q.ndim, k.ndim, v.ndim) - 1))


def _zeroed(x: Tensor, there: Tensor | None) -> Tensor:
    """With zeros for keys or values that do not exist, whatever lies there."""
    return x if there is None else x.masked_fill(there.logical_not(), 0)


def _check_values(lengths: Any, keys: int) -> None:
    if lengths.size and (lengths.min() < 0 or lengths.max() > keys):
        wrong = lengths[(lengths < 0) | (lengths > keys)][0]
        raise PositionError(cuda_attention.OUTSIDE.format(value=wrong, bound=keys))


def _spread(mask: Any, q: Any, k: Any) -> Any:
    """The mask with a row for every query and a column for every key, so that it can be cut."""
    if mask is None:
        return None
    return np.broadcast_to(mask, (*mask.shape[:-2], q.shape[-2], k.shape[-2]))


def _interleaved(lead: tuple[int, ...], rows: int, columns: int, dtype: Any) -> Any:
    """(*lead, rows, columns) with the heads of a row next to each other in memory.

    So that joining the heads, which every transformer does next, is a view.
    """
    if len(lead) < 2:
        return empty((*lead, rows, columns), dtype)
    return np.moveaxis(empty((lead[0], rows, *lead[1:], columns), dtype), 1, -2)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False, *,
                                 key_lengths: Tensor | None = None) -> Tensor:
    """softmax(scale * query @ keyᵀ + mask) @ value: (..., L, E), (..., S, E), (..., S, D).

    attn_mask broadcasts to (..., L, S): bool (True takes part) or floating (added to the scores).
    `is_causal` lets query i see keys 0 to i.  scale defaults to 1 / sqrt(E).  `enable_gqa` lets
    each key and value head (dimension -3) serve several query heads.  dropout_p applies always:
    pass 0 outside training.  A query with no key left gives 0.

    key_lengths (batch,), int32 or int64, says how many keys and values each index of the first
    dimension has, 0 to S: what lies beyond is never read, whatever it is, and gets zero gradients.
    It goes with all other arguments.  A length outside the range raises PositionError: on CUDA
    devices when they are next waited for.
    """
    _check(query, key, value, dropout_p)
    if is_causal and attn_mask is not None:
        raise ShapeError("scaled_dot_product_attention: pass either attn_mask or is_causal=True")
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else math.inf
    heads = query.shape[:-2]
    if enable_gqa and query.ndim > 2:
        query, key, value, attn_mask = _grouped(query, key, value, attn_mask)
    lead = _lead(query, key, value)
    scores = (*lead, query.shape[-2], key.shape[-2])
    inputs = [query, key, value]
    if attn_mask is not None:
        _check_mask(attn_mask, query, scores)
        inputs.append(attn_mask)
    if key_lengths is not None:
        _check_lengths(key_lengths, lead, enable_gqa)
        inputs.append(key_lengths)
    stream = (reserve(None, numbers.words_for(math.prod(scores), 32))
              if dropout_p and math.prod(scores) else None)
    op = ScaledDotProductAttention(scale, is_causal, attn_mask is not None, dropout_p, stream,
                                   key_lengths is not None)
    out: Tensor = run(op, *inputs)
    grouped = enable_gqa and len(lead) > len(heads)
    return out.reshape(*heads, *out.shape[-2:]) if grouped else out


def _check(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> None:
    name = "scaled_dot_product_attention"
    shapes = tuple(tuple(t.shape) for t in (query, key, value))
    if min(map(len, shapes)) < 2:
        raise ShapeError(f"{name}: query, key and value must have at least 2 dimensions, got "
                         f"shapes {shapes}")
    if not query.dtype is key.dtype is value.dtype:
        raise DTypeError(f"{name}: query, key and value must have one dtype, got "
                         f"{query.dtype.name}, {key.dtype.name} and {value.dtype.name}")
    if not query.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected floating tensors, got {query.dtype.name}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(f"{name}: expected (..., L, E), (..., S, E) and (..., S, D), got shapes "
                         f"{shapes}")
    if not 0 <= dropout <= 1:
        raise ShapeError(f"{name}: dropout_p must be between 0 and 1, got {dropout}")


def _lead(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    return tuple(broadcast_shapes(*(tuple(t.shape[:-2]) for t in (query, key, value))))


def _check_mask(mask: Tensor, query: Tensor, scores: tuple[int, ...]) -> None:
    name = "scaled_dot_product_attention"
    if mask.dtype not in (dtypes.bool_, dtypes.float32, query.dtype):
        raise DTypeError(f"{name}: attn_mask must be bool, float32 or {query.dtype.name} as the "
                         f"query, got {mask.dtype.name}")
    try:
        fits = np.broadcast_shapes(tuple(mask.shape), scores) == scores
    except ValueError:
        fits = False
    if mask.ndim < 2 or not fits:
        raise ShapeError(f"{name}: attn_mask must have at least 2 dimensions and broadcast to the "
                         f"scores {scores}, got {tuple(mask.shape)}")


def _check_lengths(lengths: Tensor, lead: tuple[int, ...], heads: bool) -> None:
    name = "scaled_dot_product_attention"
    if lengths.dtype not in (dtypes.int32, dtypes.int64):
        raise DTypeError(f"{name}: key_lengths must be int32 or int64, got {lengths.dtype.name}; "
                         "convert it with .long()")
    if len(lead) < (3 if heads else 1):  # heads have two dimensions by now
        raise ShapeError(f"{name}: key_lengths needs a batch as the first dimension of query, key "
                         "or value" + (", before the heads" if heads else "") + "; add one with "
                         ".unsqueeze(0)")
    if tuple(lengths.shape) != lead[:1]:
        raise ShapeError(f"{name}: key_lengths must have one length for each index of the first "
                         f"dimension, {lead[:1]}, got {tuple(lengths.shape)}")


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
             ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The heads as (key heads, queries per key head), so that they broadcast."""
    heads, groups = query.shape[-3], key.shape[-3]
    if groups == 0 or heads % groups or value.shape[-3] != groups:
        raise ShapeError("scaled_dot_product_attention: the heads of key and value must be equal "
                         f"and divide those of query, got {heads}, {groups}, {value.shape[-3]}")
    if mask is not None and mask.ndim > 2:
        mask = mask.unsqueeze(-3) if mask.shape[-3] == 1 else mask.unflatten(-3, (groups, -1))
    query = query.unflatten(-3, (groups, heads // groups))
    return query, key.unsqueeze(-3), value.unsqueeze(-3), mask
