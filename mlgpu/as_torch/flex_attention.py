"""torch.nn.attention.flex_attention: attention whose scores and mask are functions of places.

The functions are called once, on tensors of all places that broadcast, instead of once for each:
whatever they compute of them elementwise, or look up in tables, is the same.  The matrix of scores
is made as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import ShapeError

_score_mod_signature = _mask_mod_signature = Callable[..., Tensor]
_DEFAULT_SPARSE_BLOCK_SIZE = 128


class AuxRequest(NamedTuple):
    """What is asked for beside the result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What was asked for: for each query log(sum(exp(scores))), and its greatest score."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


class BlockMask:
    """A mask as a function of batch, head, query and key: `create_block_mask` makes it."""

    def __init__(self, mask_mod: Callable[..., Tensor], shape: tuple[Any, ...],
                 block_size: Any = _DEFAULT_SPARSE_BLOCK_SIZE) -> None:
        self.mask_mod, self.shape = mask_mod, shape
        self.BLOCK_SIZE = block_size if isinstance(block_size, tuple) else (block_size, block_size)

    def to(self, device: Any) -> BlockMask:
        """The mask: its function takes what lies on whichever device."""
        return self


def noop_mask(batch: Tensor, head: Tensor, token_q: Tensor, token_kv: Tensor) -> Tensor:
    """True."""
    return batch.new_ones((), dtype=mlgpu.bool)


def create_block_mask(mask_mod: Callable[..., Tensor], B: int | None, H: int | None, Q_LEN: int,
                      KV_LEN: int, device: Any = None, BLOCK_SIZE: Any = 128, **options: Any
                      ) -> BlockMask:
    """The mask that a function `mask_mod(b, h, q_idx, kv_idx)` gives: True where a query sees."""
    return BlockMask(mask_mod, (B or 1, H or 1, Q_LEN, KV_LEN), BLOCK_SIZE)


def create_mask(mod_fn: Callable[..., Tensor], B: int | None, H: int | None, Q_LEN: int,
                KV_LEN: int, device: Any = None) -> Tensor:
    """The mask of such a function as a tensor of truth values, (B, H, Q_LEN, KV_LEN)."""
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    return mod_fn(*_places(shape, device)).expand(shape)


def and_masks(*mask_mods: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that is true where all are."""
    def both(*places: Tensor) -> Tensor:
        result = mask_mods[0](*places)
        for other in mask_mods[1:]:
            result = result & other(*places)
        return result

    return both


def or_masks(*mask_mods: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that is true where one is."""
    def either(*places: Tensor) -> Tensor:
        result = mask_mods[0](*places)
        for other in mask_mods[1:]:
            result = result | other(*places)
        return result

    return either


def _places(shape: tuple[int, ...], device: Any) -> list[Tensor]:
    """The places along each dimension, which broadcast against each other."""
    return [mlgpu.arange(n, device=device).view(-1, *[1] * (len(shape) - 1 - d))
            for d, n in enumerate(shape)]


def flex_attention(query: Tensor, key: Tensor, value: Tensor,
                   score_mod: Callable[..., Tensor] | None = None,
                   block_mask: BlockMask | None = None, scale: float | None = None,
                   enable_gqa: bool = False, return_lse: bool = False,
                   return_aux: AuxRequest | None = None, **options: Any) -> Any:
    """Attention of query (B, H, L, E), key (B, Hk, S, E) and value (B, Hk, S, Ev), as PyTorch's.

    `score_mod(score, b, h, q_idx, kv_idx)` gives other scores; `block_mask` says what is seen.  A
    query that sees nothing gets zeros.  With `return_lse` also the logarithm of the sum of exp of
    its scores, (B, H, L); with `return_aux` what it asks for.  ShapeError for fewer heads of keys
    than of queries, unless `enable_gqa`.
    """
    heads, groups = query.shape[1], key.shape[1]
    if heads != groups:
        if not enable_gqa or heads % groups:
            raise ShapeError(f"flex_attention: {heads} heads of queries and {groups} of keys; pass "
                             "enable_gqa=True where the second divides the first")
        key, value = (t.repeat_interleave(heads // groups, 1) for t in (key, value))
    scores = (query @ key.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
    places = _places(tuple(scores.shape), query.device)
    if score_mod is not None:
        scores = score_mod(scores, *places)
    if block_mask is not None:
        scores = scores.masked_fill(~block_mask.mask_mod(*places).expand(scores.shape),
                                    -float("inf"))
    sums = scores.logsumexp(-1)
    weights = (scores - sums.masked_fill(sums == -float("inf"), 0)[..., None]).exp()
    out = weights.to(value.dtype) @ value
    if return_aux is not None:
        return out, AuxOutput(sums if return_aux.lse else None,
                              scores.amax(-1) if return_aux.max_scores else None)
    return (out, sums) if return_lse else out
