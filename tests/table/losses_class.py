"""Rows for the losses of mlgpu/ops/loss_class.py: every kind of target, weight and shape."""

from __future__ import annotations

import numpy as np
from scipy import special
from table.case import Case, In
from table.losses import REDUCTIONS, WIDE, classes, reduce_, row

import mlgpu


def log_softmax(x):
    dim = min(1, x.ndim - 1)
    return x - special.logsumexp(x, dim, keepdims=True)


def nll(reduction, logs=lambda x: x, ignore=-100, smoothing=0.0):
    """Of scores with the classes in dimension 1 (or 0), each row as the definition has it."""
    def loss(x, t, weight=None):
        dim = min(1, x.ndim - 1)
        rows = np.moveaxis(logs(x), dim, -1)
        classes_ = rows.shape[-1]
        weight = np.ones(classes_) if weight is None else weight
        flat, targets = rows.reshape(-1, classes_), t.reshape(-1).astype(int)
        losses, weights = np.zeros(len(flat)), np.zeros(len(flat))
        for n, (row_, target) in enumerate(zip(flat, targets, strict=True)):
            if target != ignore:
                weights[n] = weight[target]
                losses[n] = (-(1 - smoothing) * weight[target] * row_[target]
                             - smoothing / classes_ * (weight * row_).sum())
        if reduction == "mean":
            return losses.sum() / weights.sum()
        return losses.sum() if reduction == "sum" else losses.reshape(t.shape)
    return loss


SHAPES = {"": ((6, 5), (6,)), "vector": ((5,), ()), "sequence": ((3, 4, 7), (3, 7)),
          "image": ((2, 3, 4, 5), (2, 4, 5)), "volume": ((2, 3, 2, 1, 3), (2, 2, 1, 3)),
          "one-class": ((4, 1), (4,)), "wide": ((3, 1031), (3,))}


def shaped():
    """Scores' and targets' shapes with the number of classes, and every reduction for some."""
    for tag, (shape, places) in SHAPES.items():
        for reduction in REDUCTIONS if tag in ("", "image") else ("mean",):
            yield f"{tag}-{reduction}", shape, places, shape[min(1, len(shape) - 1)], reduction


def integers(places, bound, *ignored):
    return In(places, dtype="int64", make=classes(bound, *ignored))


SCORES = {"nll_loss": lambda x: x, "cross_entropy": log_softmax}


def plain():
    for name, logs in SCORES.items():
        for tag, shape, places, size, reduction in shaped():
            yield row(name, tag, nll(reduction, logs), In(shape), integers(places, size),
                      reduction=reduction)
        for reduction in REDUCTIONS:
            weight = {"weight": In((4,), 0.5, 2)}
            for tag, shape, places in (("", (6, 4), (6,)), ("-image", (2, 4, 3, 2), (2, 3, 2))):
                yield row(name, f"weight{tag}-{reduction}", nll(reduction, logs, 1), In(shape),
                          integers(places, 4, 1, 1), named=weight, ignore_index=1,
                          reduction=reduction, gradient=(0,))
            yield row(name, f"ignore-{reduction}", nll(reduction, logs), In((6, 4)),
                      integers((6,), 4, -100, 2, -100), reduction=reduction)
        # PyTorch's gradient raises here.
        yield row(name, "vector-none", nll("sum", logs), In((5,)), integers((1,), 5),
                  reduction="none", gradient=False)
        yield row(name, "uint8", nll("mean", logs), In((6, 4)),
                  In((6,), dtype="uint8", make=classes(4)))
        yield row(name, "empty-none", lambda x, t: np.zeros(0), In((0, 4)), integers((0,), 4),
                  reduction="none")
        yield row(name, "empty-sum", lambda x, t: np.zeros(()), In((0, 4)), integers((0,), 4),
                  reduction="sum")
    extreme = In((3, 4), make=lambda rng, shape: np.array(
        [[-1e4, 1e4, 0, 0], [88, 89, 90, -90.0], [-1e4, -1e4, -1e4, -1e4]]))
    yield row("cross_entropy", "extreme", nll("none", log_softmax), extreme,
              integers((3,), 4, 0, 1, 2), reduction="none", dtypes=WIDE, second=False)


def smoothed():
    for tag, shape, places, size, reduction in shaped():
        yield row("cross_entropy", f"smooth-{tag}", nll(reduction, log_softmax, smoothing=0.2),
                  In(shape), integers(places, size), label_smoothing=0.2, reduction=reduction)
        ignored = (-1,) * (len(places) > 0)
        yield row("cross_entropy", f"smooth-weight-{tag}", nll(reduction, log_softmax, -1, 0.3),
                  In(shape), integers(places, size, *ignored), ignore_index=-1,
                  named={"weight": In((size,), 0.5, 2)}, label_smoothing=0.3, reduction=reduction,
                  gradient=(0,))


def distribution(rng, shape):
    drawn = rng.uniform(0.1, 1, shape)
    return drawn / drawn.sum(min(1, len(shape) - 1), keepdims=True)


def soft(reduction, smoothing=0.0):
    """The cross entropy with probabilities."""
    def loss(x, t, weight=None):
        dim = min(1, x.ndim - 1)
        size = x.shape[dim]
        parts = -log_softmax(x) * (t * (1 - smoothing) + smoothing / size)
        if weight is not None:
            parts = parts * weight.reshape(size, *(1,) * (x.ndim - 1 - dim))
        return reduce_(parts.sum(dim), reduction)
    return loss


def soft_targets():
    for tag, shape, _, size, reduction in shaped():
        target = In(shape, make=distribution)
        yield row("cross_entropy", f"soft-{tag}", soft(reduction), In(shape), target,
                  reduction=reduction)
        yield row("cross_entropy", f"soft-weight-{tag}", soft(reduction, 0.1), In(shape), target,
                  named={"weight": In((size,), 0.5, 2)}, label_smoothing=0.1, reduction=reduction,
                  gradient=(0, 1))


def linear_rows():
    """Of x @ weight.T + bias, as PyTorch has it in two steps; some take several chunks of rows."""
    def case(tag, lead, features, size, bias=False, ignored=(), **options):
        reduction = options.get("reduction", "mean")
        settings = {**options, "ignore_index": 1}
        loss = nll(reduction, log_softmax, 1, options.get("label_smoothing", 0.0))

        def fn(x, weight, target, *rest):
            return mlgpu.nn.functional.linear_cross_entropy(
                x, weight, target, **dict(zip(("linear_bias",), rest, strict=False)), **settings)

        def reference(x, weight, target, *rest):
            scores = x @ weight.T + sum(rest)
            return loss(scores.reshape(-1, size), target.reshape(-1)).reshape(
                lead if reduction == "none" else ())

        def torch(library, x, weight, target, *rest):
            functional = library.nn.functional
            scores = functional.linear(x, weight, *rest).reshape(-1, size)
            losses = functional.cross_entropy(scores, target.reshape(-1), **settings)
            return losses.reshape(lead) if reduction == "none" else losses

        inputs = (In((*lead, features)), In((size, features)), integers(lead, size, *ignored),
                  *[In((size,))] * bias)
        return Case(f"linear_cross_entropy-{tag}", fn, inputs, reference, torch)

    for reduction in REDUCTIONS:
        yield case(reduction, (6,), 4, 5, reduction=reduction)
        yield case(f"bias-{reduction}", (2, 3), 3, 7, True, (1,), reduction=reduction)
        yield case(f"smooth-{reduction}", (6,), 3, 5, True, reduction=reduction,
                   label_smoothing=0.2)
        yield case(f"chunks-{reduction}", (530,), 2, 9, True, (1, 2), reduction=reduction)
    yield case("one row", (), 3, 5)
    yield case("ignored", (3,), 3, 5, False, (1, 1, 1), reduction="sum")
    yield case("empty", (0,), 3, 5, True, reduction="sum")


CASES = [*plain(), *smoothed(), *soft_targets(), *linear_rows()]
