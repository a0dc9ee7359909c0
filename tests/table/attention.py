"""Rows for mlgpu/ops/attention.py and multi_head_attention.py."""

from __future__ import annotations

import math

import numpy as np
from table.case import Case, In, both

from mlgpu.nn import functional as F

# (..., queries, keys): one, a few, primes, and more of both than one block of queries takes.
LENGTHS = {"": (5, 7), "one": (1, 1), "one-query": (1, 6), "longer": (9, 4), "blocks": (131, 137)}


def softmax(scores):
    """With 0 for rows in which everything is hidden."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    return np.divide(p, total, out=np.zeros_like(p), where=total > 0)


def attention(q, k, v, mask=None, *, causal=False, scale=None, gqa=False):
    if gqa:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = scale * q @ k.swapaxes(-1, -2)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return softmax(scores) @ v


def dot_product(tag, q, k, v, mask=None, *, causal=False, gqa=False, **options) -> Case:
    scale = options.pop("scale", None)

    def call(library, q, k, v, mask=None):
        return library.nn.functional.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=gqa)

    return both(f"scaled_dot_product_attention{'-' if tag else ''}{tag}", call,
                lambda *xs: attention(*xs, causal=causal, scale=scale, gqa=gqa),
                (In(q), In(k), In(v), *(() if mask is None else (mask,))), **options)


def limited(tag, lengths, q, k, v, mask=None, *, causal=False, gqa=False, dtype="int64") -> Case:
    """With so many keys for each index of the first dimension, which PyTorch says by a mask."""
    def shown(xp, rest):
        """What is seen, as a mask."""
        seen = xp.arange(k[-2]) < rest[-1].reshape(-1, *[1] * (len(q) - 1))
        if causal:
            seen = seen & (xp.arange(k[-2]) <= xp.arange(q[-2])[:, None])
        if mask is None:
            return seen
        return seen & rest[0] if mask.dtype == "bool" else xp.where(seen, rest[0], -math.inf)

    def ours(q, k, v, *rest):
        return F.scaled_dot_product_attention(q, k, v, *rest[:-1], is_causal=causal,
                                              enable_gqa=gqa, key_lengths=rest[-1])

    def theirs(torch, q, k, v, *rest):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, shown(torch, rest),
                                                                enable_gqa=gqa)

    given = In((len(lengths),), dtype=dtype, make=lambda rng, shape: np.array(lengths, float))
    return Case(f"scaled_dot_product_attention-lengths-{tag}", ours,
                (In(q), In(k), In(v), *(() if mask is None else (mask,)), given),
                lambda q, k, v, *rest: attention(q, k, v, shown(np, rest), gqa=gqa), theirs)


def some(rng, shape):
    """About two thirds True, and everything hidden from the first query."""
    mask = rng.random(shape) < 0.67
    mask[..., 0, :] = False
    return mask


def last_hidden(rng, shape):
    """All keys but the last third."""
    return np.broadcast_to(np.arange(shape[-1]) * 3 <= 2 * shape[-1], shape)


def lower(rng, shape):
    return np.tri(*shape[-2:], dtype=bool)


def dot_products():
    for tag, (queries, keys) in LENGTHS.items():
        lead = (2,) if tag == "blocks" else (2, 3)
        shapes = (*lead, queries, 4), (*lead, keys, 4), (*lead, keys, 3)
        name = f"{tag}-" if tag else ""
        yield dot_product(tag, *shapes)
        yield dot_product(f"{name}causal", *shapes, causal=True)
        yield dot_product(f"{name}bool", *shapes, In((queries, keys), dtype="bool", make=lower))
        yield dot_product(f"{name}float", *shapes, In((queries, keys)))
        yield dot_product(f"{name}padding", *shapes, In((2, *lead[1:], 1, keys), dtype="bool",
                                                        make=last_hidden))
    shapes = (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)
    yield dot_product("scale", *shapes, scale=0.37)
    yield dot_product("scale-negative", *shapes, scale=-1.1)
    for tag, shape in (("batch", (2, 1, 5, 7)), ("heads", (2, 3, 5, 7)), ("keys", (2, 1, 1, 7)),
                       ("head", (3, 5, 7)), ("queries", (5, 1))):
        yield dot_product(f"float-{tag}", *shapes, In(shape))
        if shape[-2:] == (5, 7):
            yield dot_product(f"bool-{tag}", *shapes, In(shape, dtype="bool", make=some))
    yield dot_product("no-lead", (5, 4), (7, 4), (7, 2))
    yield dot_product("one-lead", (3, 5, 4), (3, 7, 4), (3, 7, 2), causal=True)
    yield dot_product("three-leads", (2, 2, 2, 3, 4), (2, 2, 2, 3, 4), (2, 2, 2, 3, 4))
    yield dot_product("gqa", (2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4), gqa=True)
    yield dot_product("gqa-causal", (2, 6, 5, 4), (2, 1, 5, 4), (2, 1, 5, 4), gqa=True,
                      causal=True)
    yield dot_product("gqa-mask", (2, 4, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4),
                      In((2, 4, 5, 7)), gqa=True)
    yield dot_product("gqa-mask-row", (2, 4, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4),
                      In((2, 1, 5, 7), dtype="bool", make=some), gqa=True)
    yield dot_product("wide-heads", (2, 3, 67), (2, 5, 67), (2, 5, 65))
    for tag, shapes in (("batch", ((0, 2, 3, 4),) * 3), ("queries", ((2, 0, 4), (2, 3, 4),
                        (2, 3, 4))), ("keys", ((2, 3, 4), (2, 0, 4), (2, 0, 4)))):
        yield dot_product(f"empty-{tag}", *shapes)
    yield dot_product("float-infinite", (2, 5, 4), (2, 7, 4), (2, 7, 4), In(
        (5, 7), make=lambda rng, shape: np.where(some(rng, shape), 0.3, -np.inf)),
        gradient=(0, 1, 2))


def limits():
    shapes = (3, 2, 5, 4), (3, 2, 7, 4), (3, 2, 7, 3)
    yield limited("heads", (4, 0, 7), *shapes)
    yield limited("causal", (3, 1, 7), *shapes, causal=True, dtype="int32")
    yield limited("batch", (2, 0, 7), (3, 5, 4), (3, 7, 4), (3, 7, 3))
    yield limited("shared-keys", (2, 6), (2, 2, 5, 4), (1, 1, 7, 4), (1, 1, 7, 4))
    yield limited("gqa", (7, 3), (2, 4, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4), gqa=True)
    yield limited("one-query", (7, 3), (2, 4, 1, 4), (2, 2, 7, 4), (2, 2, 7, 4), gqa=True)
    yield limited("bool", (4, 0, 7), *shapes, In((5, 7), dtype="bool", make=lower))
    yield limited("float", (4, 0, 7), *shapes, In((3, 1, 5, 7)))
    yield limited("blocks", (137, 70), (2, 131, 4), (2, 137, 4), (2, 137, 3))
    yield limited("blocks-causal", (5, 137), (2, 131, 4), (2, 137, 4), (2, 137, 3), causal=True)
    yield limited("no-keys", (0, 0), (2, 3, 4), (2, 0, 4), (2, 0, 4))
    yield limited("no-batch", (), (0, 2, 3, 4), (0, 2, 3, 4), (0, 2, 3, 4))


# --- multi-head -----------------------------------------------------------------------------------

SIZE, HEADS, QUERIES, KEYS, BATCH = 6, 3, 5, 4, 2
PADDING = np.array([[False, False, False, True], [False, True, False, False]])


class Heads:
    """Inputs and options of one row of multi_head_attention_forward."""

    def __init__(self, *, self_attention=False, batched=True, sizes=None, bias=True, keys=KEYS,
                 extra=False, zero=False, static=False, attn=None, padding=None,
                 **options) -> None:
        self.self_attention, self.zero, self.options = self_attention, zero, options
        lead = (BATCH,) if batched else ()
        kdim, vdim = sizes or (SIZE, SIZE)
        given = {"query": In((QUERIES, *lead, SIZE))}
        if not self_attention:
            given |= {"key": In((keys, *lead, kdim)), "value": In((keys, *lead, vdim))}
        if sizes:
            given |= {"q_proj_weight": In((SIZE, SIZE), -1, 1),
                      "k_proj_weight": In((SIZE, kdim), -1, 1),
                      "v_proj_weight": In((SIZE, vdim), -1, 1)}
            options["use_separate_proj_weight"] = True
        else:
            given["in_proj_weight"] = In((3 * SIZE, SIZE), -1, 1)
        given["out_proj_weight"] = In((SIZE, SIZE), -1, 1)
        if bias:
            given |= {"in_proj_bias": In((3 * SIZE,)), "out_proj_bias": In((SIZE,))}
        if extra:
            given |= {"bias_k": In((1, 1, SIZE)), "bias_v": In((1, 1, SIZE))}
        if static:
            shape = (HEADS * (BATCH if batched else 1), keys, SIZE // HEADS)
            given |= {"static_k": In(shape), "static_v": In(shape)}
        if attn is not None:
            given["attn_mask"] = attn
        if padding is not None:
            given["key_padding_mask"] = padding
        self.given = given

    def arguments(self, arrays):
        named = dict(zip(self.given, arrays, strict=True))
        if self.self_attention:
            named["key"] = named["value"] = named["query"]
        return named

    def call(self, library, *tensors):
        named = self.arguments(tensors)
        for name in ("in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj_bias"):
            named.setdefault(name, None)
        return library.nn.functional.multi_head_attention_forward(
            embed_dim_to_check=SIZE, num_heads=HEADS, add_zero_attn=self.zero, dropout_p=0.0,
            **named, **self.options)

    def reference(self, *arrays):
        named = self.arguments(arrays)
        batched = named["query"].ndim == 3
        query, key, value = (named[n] if batched else named[n][:, None]
                             for n in ("query", "key", "value"))
        if "in_proj_weight" in named:
            weights = np.split(named["in_proj_weight"], 3)
        else:
            weights = [named[f"{n}_proj_weight"] for n in "qkv"]
        biases = np.split(named.get("in_proj_bias", np.zeros(3 * SIZE)), 3)
        q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases,
                                                  strict=True))
        batch = q.shape[1]
        if "bias_k" in named:
            k, v = (np.concatenate([x, np.repeat(b, batch, 1)])
                    for x, b in ((k, named["bias_k"]), (v, named["bias_v"])))
        q, k, v = (x.reshape(len(x), batch, HEADS, -1).transpose(1, 2, 0, 3) for x in (q, k, v))
        if "static_k" in named:
            k, v = (named[n].reshape(batch, HEADS, *named[n].shape[1:])
                    for n in ("static_k", "static_v"))
        if self.zero:
            k, v = (np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0))) for x in (k, v))
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        p = softmax(scores + self.hidden(named, scores.shape))
        y = (p @ v).transpose(2, 0, 1, 3).reshape(len(query), batch, SIZE)
        y = y @ named["out_proj_weight"].T + named.get("out_proj_bias", 0)
        p = p.mean(1) if self.options.get("average_attn_weights", True) else p
        results = [y, p] if batched else [y[:, 0], p[0]]
        return results if self.options.get("need_weights", True) else results[:1]

    @staticmethod
    def hidden(named, shape):
        """What both masks add to the scores, with nothing on the extra keys."""
        total = np.zeros(shape)
        for name, lead in (("attn_mask", None), ("key_padding_mask", (-1, 1, 1))):
            if name not in named:
                continue
            mask = named[name]
            mask = np.where(mask, -np.inf, 0) if mask.dtype == bool else mask
            if lead:
                mask = mask.reshape(*lead, mask.shape[-1])
            elif mask.ndim == 3:
                mask = mask.reshape(-1, HEADS, *mask.shape[1:])
            total[..., :mask.shape[-1]] += mask
        return total


def multi_head(tag, **options):
    """With the weights and without."""
    for weights in (True, False):
        row = Heads(need_weights=weights, **options)
        yield both(f"multi_head_attention-{tag}-{'weights' if weights else 'output'}", row.call,
                   row.reference, tuple(row.given.values()), dtypes=("float64", "float32"))


def hidden(shape):
    """A few keys, but never all of a query's."""
    return In(shape, dtype="bool", make=lambda rng, shape: np.where(
        np.arange(shape[-1]) == 0, False, rng.random(shape) < 0.3))


CAUSAL = In((QUERIES, QUERIES), dtype="bool", make=lambda rng, shape: ~np.tri(*shape, dtype=bool))
PADDED = In((BATCH, KEYS), dtype="bool", make=lambda rng, shape: PADDING)


def multi_heads():
    rows = {
        "": {}, "no-bias": {"bias": False}, "self": {"self_attention": True},
        "sizes": {"sizes": (4, 5)}, "key-bias": {"extra": True}, "zero": {"zero": True},
        "both-extra": {"extra": True, "zero": True, "bias": False},
        "static": {"static": True}, "heads": {"average_attn_weights": False},
        "bool": {"attn": hidden((QUERIES, KEYS))}, "float": {"attn": In((QUERIES, KEYS))},
        "bool-3d": {"attn": hidden((BATCH * HEADS, QUERIES, KEYS))},
        "float-3d": {"attn": In((BATCH * HEADS, QUERIES, KEYS))},
        "padding": {"padding": PADDED}, "padding-float": {"padding": In((BATCH, KEYS))},
        "bool-padding": {"attn": hidden((QUERIES, KEYS)), "padding": In(
            (BATCH, KEYS), dtype="bool", make=lambda rng, shape: np.arange(shape[-1]) == (
                np.array([[3], [2]])))},
        "float-padding": {"attn": In((QUERIES, KEYS)), "padding": In((BATCH, KEYS))},
        "extra-masks": {"attn": In((QUERIES, KEYS)), "padding": In((BATCH, KEYS)),
                        "extra": True, "zero": True},
        "causal": {"self_attention": True, "attn": CAUSAL, "is_causal": True},
        "no-batch": {"batched": False, "attn": hidden((HEADS, QUERIES, KEYS)),
                     "padding": In((KEYS,))},
        "no-batch-self": {"batched": False, "self_attention": True,
                          "average_attn_weights": False},
    }
    for tag, options in rows.items():
        yield from multi_head(tag or "plain", **options)


CASES = [*dot_products(), *limits(), *multi_heads()]
