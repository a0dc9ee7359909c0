"""Rows for the losses of mlgpu/ops/loss_margin.py."""

from __future__ import annotations

import itertools

import numpy as np
from table.case import In, both
from table.losses import REDUCTIONS, WIDE, bce_logits, classes, each, reduce_, signs


def cosine(a, b):
    return (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + 1e-12) * ((b * b).sum(-1) + 1e-12))


def cosine_embedding(margin):
    return lambda a, b, t: np.where(t == 1, 1 - cosine(a, b),
                                    np.maximum(cosine(a, b) - margin, 0))


def distance(a, b, p=2.0, eps=1e-6):
    return np.linalg.norm(a - b + eps, p, axis=-1)


def triplet(margin=1.0, p=2.0, swap=False):
    def losses(a, near_, far):
        away = distance(a, far, p)
        if swap:
            away = np.minimum(away, distance(near_, far, p))
        return np.maximum(distance(a, near_, p) - away + margin, 0)
    return losses


def vectors():
    first, second, third = In((6, 4)), In((6, 4), -1, 3), In((6, 4), -3, 1)
    for tag, margin in (("", 0.0), ("margin", 0.3)):
        yield from each("cosine_embedding_loss", tag, cosine_embedding(margin), first, second,
                        In((6,), make=signs), margin=margin, gradient=(0, 1))
    yield from each("cosine_embedding_loss", "vector", cosine_embedding(0), In((4,)), In((4,)),
                    In((), make=lambda rng, shape: np.array(-1.0)), gradient=(0, 1),
                    reductions=("none", "mean"))
    kinds = {"": {}, "p1": {"p": 1.0}, "p3": {"p": 3.0}, "swap": {"swap": True, "margin": 2.5}}
    for tag, options in kinds.items():
        yield from each("triplet_margin_loss", tag, triplet(**options), first, second, third,
                        **options)
    yield from each("triplet_margin_loss", "vector", triplet(), In((4,)), In((4,)), In((4,)),
                    reductions=("none", "mean"))
    for swap, reduction in itertools.product((False, True), REDUCTIONS):
        def call(library, a, b, c, swap=swap, reduction=reduction):
            return library.nn.functional.triplet_margin_with_distance_loss(
                a, b, c, distance_function=lambda x, y: (x - y).square().mean(-1), margin=0.7,
                swap=swap, reduction=reduction)

        def expected(a, b, c, swap=swap, reduction=reduction):
            def squared(x, y):
                return ((x - y)**2).mean(-1)
            away = squared(a, c)
            away = np.minimum(away, squared(b, c)) if swap else away
            return reduce_(np.maximum(squared(a, b) - away + 0.7, 0), reduction)

        yield both(f"triplet_margin_with_distance_loss-{swap}-{reduction}", call, expected,
                   (first, second, third))
    yield from each("triplet_margin_with_distance_loss", "", triplet(), first, second, third)


def multi_margin(p, margin):
    def losses(x, t, w=None):
        rows = x.reshape(-1, x.shape[-1])
        t = t.reshape(-1, 1)
        right = np.take_along_axis(rows, t, 1)
        excess = np.maximum(margin - right + rows, 0)**p
        np.put_along_axis(excess, t, 0, 1)
        excess = excess if w is None else excess * w[t]
        return (excess.sum(1) / rows.shape[1]).reshape(x.shape[:-1])
    return losses


def multilabel_margin(x, t):
    rows, labels = x.reshape(-1, x.shape[-1]), t.reshape(-1, t.shape[-1])
    out = np.zeros(len(rows))
    for n, (scores, given) in enumerate(zip(rows, labels, strict=True)):
        live = list(itertools.takewhile(lambda c: c >= 0, given))
        rest = [i for i in range(len(scores)) if i not in live]
        out[n] = sum(max(0, 1 - scores[j] + scores[i]) for j in live for i in rest) / len(scores)
    return out.reshape(x.shape[:-1])


def labels(rng, shape):
    """Each row some classes, then -1, then classes that do not count."""
    drawn = np.argsort(rng.random(shape), -1)
    drawn[..., 2] = -1
    if len(shape) > 1:
        drawn[0, 0] = -1
        drawn[1] = np.arange(shape[-1])
    return drawn


def soft_margin(x, t, w=1.0):
    return (w * bce_logits(x, t)).mean(-1)


def margins():
    scores = In((5, 4), make=lambda rng, shape: rng.permutation(20).reshape(shape) / 7.3)
    target = In((5,), dtype="int64", make=classes(4))
    for tag, options in (("", {}), ("p2", {"p": 2}), ("margin", {"margin": 0.55})):
        losses = multi_margin(options.get("p", 1), options.get("margin", 1.0))
        yield from each("multi_margin_loss", tag, losses, scores, target, dtypes=WIDE, **options)
    yield from each("multi_margin_loss", "weight", multi_margin(2, 1), scores, target, p=2,
                    named={"weight": In((4,), 0.5, 2)}, dtypes=WIDE, gradient=(0,))
    yield from each("multi_margin_loss", "vector", multi_margin(1, 1), In((4,)),
                    In((), dtype="int64", make=classes(4)), dtypes=WIDE,
                    reductions=("none", "mean"))
    yield from each("multilabel_margin_loss", "", multilabel_margin, scores,
                    In((5, 4), dtype="int64", make=labels), dtypes=WIDE)
    yield from each("multilabel_margin_loss", "vector", multilabel_margin, In((4,)),
                    In((4,), dtype="int64", make=labels), dtypes=WIDE,
                    reductions=("none", "mean"))
    hot = In((5, 4), make=lambda rng, shape: rng.integers(0, 2, shape).astype(float))
    yield from each("multilabel_soft_margin_loss", "", soft_margin, In((5, 4)), hot)
    yield from each("multilabel_soft_margin_loss", "weight", soft_margin, In((5, 4)), hot,
                    named={"weight": In((4,), 0.5, 2)})
    yield from each("multilabel_soft_margin_loss", "vector", soft_margin, In((4,)), In((4,), 0, 1),
                    reductions=("none", "mean"))


CASES = [*vectors(), *margins()]
