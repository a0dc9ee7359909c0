"""Rows for the losses of mlgpu/ops/loss_elementwise.py, and what the rows of all losses share."""

from __future__ import annotations

import math

import numpy as np
from scipy import special
from table.case import Case, In, both

WIDE = ("float64", "float32")
REDUCTIONS = ("none", "mean", "sum")


def row(name, tag, reference, *inputs, named=None, dtypes=None, gradient=True, second=True,
        tolerance=1.0, **options) -> Case:
    """`inputs` by position, those in `named` by keyword; options go to the function."""
    named = named or {}

    def call(library, *xs):
        keywords = dict(zip(named, xs[len(inputs):], strict=True))
        function = getattr(library.nn.functional, name)
        return function(*xs[:len(inputs)], **keywords, **options)

    chosen = {} if dtypes is None else {"dtypes": dtypes}
    return both(f"{name}-{tag}", call, reference, (*inputs, *named.values()), gradient=gradient,
                second=second, tolerance=tolerance, **chosen)


def reduce_(losses, reduction):
    return losses if reduction == "none" else getattr(np, reduction)(losses)


def each(name, tag, losses, *inputs, reductions=None, **options):
    """A row for each reduction of a loss per element; the sum only of its plain form."""
    for reduction in reductions or (REDUCTIONS if not tag else REDUCTIONS[:2]):
        yield row(name, "-".join(filter(None, (tag, reduction))),
                  lambda *xs, r=reduction: reduce_(losses(*xs), r), *inputs, reduction=reduction,
                  **options)


def classes(bound, *ignored):
    """Classes below `bound`; the given ones take the first places."""
    def make(rng, shape):
        drawn = rng.integers(0, bound, shape)
        drawn.reshape(-1)[:len(ignored)] = ignored
        return drawn
    return make


# --- element by element ---------------------------------------------------------------------------


def apart(rng, shape):
    """Values whose differences from those of `near` stay clear of 0, 0.3, 0.4 and 1."""
    return rng.choice([-1.83, -1.31, -0.61, 0.17, 0.73, 1.64], shape)


def near(rng, shape):
    return rng.choice([-0.03, 0.02], shape) + rng.uniform(0.005, 0.01, shape)


def signs(rng, shape):
    return rng.choice([-1.0, 1.0], shape)


def counts(rng, shape):
    return rng.integers(2, 6, shape).astype(float)


X, T = In((4, 5), make=apart), In((4, 5), make=near)
P = In((4, 5), 0.1, 0.9)
WEIGHT = In((4, 5), 0.5, 2.0)
EMPTY = In((0, 5))
EDGE = In((2, 3), make=lambda rng, shape: np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 1e-3]]))
HARD = In((2, 3), make=lambda rng, shape: np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
LARGE = In((2, 3), make=lambda rng, shape: np.array([[-800, 800.0, 0], [30, -30, 100]]))


def smooth_l1(beta):
    return lambda x, t: np.where(np.abs(x - t) < beta, (x - t)**2 / (2 * beta or 1),
                                 np.abs(x - t) - beta / 2)


def huber(delta):
    return lambda x, t: np.where(np.abs(x - t) < delta, (x - t)**2 / 2,
                                 delta * (np.abs(x - t) - delta / 2))


def bce(x, t):
    def log(p):
        return np.maximum(np.log(p), -100)
    return -(t * log(x) + (1 - t) * log(1 - x))


def bce_logits(x, t, weight=1.0, pos_weight=1.0):
    return weight * (pos_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x))


def stirling(t):
    return t * np.log(t) - t + np.log(2 * math.pi * t) / 2


def weighted_mean(losses):
    return lambda x, t, w: (losses(x, t) * w).sum() / w.sum()


def differences():
    pairs = {"mse_loss": [("", lambda x, t: (x - t)**2, {})],
             "l1_loss": [("", lambda x, t: np.abs(x - t), {})],
             "smooth_l1_loss": [("", smooth_l1(1), {}), ("beta", smooth_l1(0.3), {"beta": 0.3}),
                                ("l1", smooth_l1(0), {"beta": 0.0})],
             "huber_loss": [("", huber(1), {}), ("delta", huber(0.4), {"delta": 0.4})]}
    for name, kinds in pairs.items():
        for tag, losses, options in kinds:
            yield from each(name, tag, losses, X, T, **options)
        losses = kinds[0][1]
        yield from each(name, "scalar", losses, In((), make=apart), In((), make=near),
                        reductions=("none", "mean"))
        yield from each(name, "empty", losses, EMPTY, EMPTY, reductions=("none", "sum"))
        if name != "smooth_l1_loss":
            yield from each(name, "weight", lambda x, t, w, f=losses: f(x, t) * w, X, T,
                            named={"weight": WEIGHT}, reductions=("none", "sum"))
    for name in ("mse_loss", "l1_loss"):
        yield row(name, "weight-mean", weighted_mean(pairs[name][0][1]), X, T,
                  named={"weight": WEIGHT}, reduction="mean")
    yield row("huber_loss", "weight-mean", lambda x, t, w: (huber(1)(x, t) * w).mean(), X, T,
              named={"weight": WEIGHT})
    yield both("mse_loss-mixed", lambda lib, x, t: lib.nn.functional.mse_loss(x, t),
               lambda x, t: ((x - t)**2).mean(), (X, In((4, 5), make=near, dtype="float64")))
    for name, losses in (("mse_loss", lambda x, t: (x - t)**2), ("smooth_l1_loss", smooth_l1(1)),
                         ("huber_loss", huber(1))):
        yield from each(name, "bool", lambda x, t, f=losses: f(x, t.astype(float)), In((4, 5)),
                        In((4, 5), dtype="bool"), reductions=("mean",),
                        gradient=name != "huber_loss")  # PyTorch has none there


def probabilities():
    yield from each("binary_cross_entropy", "", bce, P, In((4, 5), 0, 1))
    yield from each("binary_cross_entropy", "weight", lambda x, t, w: bce(x, t) * w, P,
                    In((4, 5), 0, 1), named={"weight": In((5,), 0.5, 2)}, gradient=(0, 1))
    yield from each("binary_cross_entropy", "bounds", bce, EDGE, HARD, gradient=False)
    yield from each("binary_cross_entropy", "empty", bce, EMPTY, EMPTY, reductions=("none",))
    name = "binary_cross_entropy_with_logits"
    yield from each(name, "", bce_logits, In((4, 5)), In((4, 5), 0, 1))
    yield from each(name, "weight", bce_logits, In((4, 5)), In((4, 5), 0, 1),
                    named={"weight": In((4, 1), 0.5, 2), "pos_weight": In((5,), 0.5, 3)},
                    gradient=(0, 1))
    yield from each(name, "weight-only", bce_logits, In((4, 5)), In((4, 5), 0, 1),
                    named={"weight": In((5,), 0.5, 2)}, reductions=("mean",), gradient=(0, 1))
    yield from each(name, "spatial", lambda x, t, p: bce_logits(x, t, 1, p), In((2, 3, 2, 4)),
                    In((2, 3, 2, 4), 0, 1), named={"pos_weight": In((3, 1, 1), 0.5, 3)},
                    reductions=("none", "mean"), gradient=(0, 1))
    yield from each(name, "mixed", bce_logits, In((4, 5)), In((4, 5), 0, 1, dtype="float64"),
                    dtypes=("float32",), reductions=("none", "mean"))
    yield from each(name, "large", bce_logits, LARGE, HARD, dtypes=WIDE, gradient=(0,),
                    second=False, reductions=("none",))
    logs = In((4, 5), -4.0, -0.1)
    for tag, target, losses in (
            ("", In((4, 5), 0.05, 1), lambda x, t: special.xlogy(t, t) - t * x),
            ("log", logs, lambda x, t: np.exp(t) * (t - x))):
        options = {"log_target": True} if tag else {}
        yield from each("kl_div", tag, losses, logs, target, reductions=("none", "sum"), **options)
        yield row("kl_div", f"{tag}-batchmean", lambda x, t, f=losses: f(x, t).sum() / len(x),
                  logs, target, reduction="batchmean", **options)
    yield from each("kl_div", "zero", lambda x, t: special.xlogy(t, t) - t * x, In((2, 3), -4, -1),
                    HARD, reductions=("none", "sum"), gradient=(0,))
    yield from each("kl_div", "broadcast", lambda x, t: special.xlogy(t, t) - t * x, logs,
                    In((5,), 0.1, 1), reductions=("none", "sum"))


def likelihoods():
    kinds = {"": lambda x, t: np.exp(x) - t * x, "rate": lambda x, t: x - t * np.log(x + 1e-8)}
    for tag, losses in kinds.items():
        given = In((4, 5), 0.3, 2)
        options = {} if not tag else {"log_input": False}
        yield from each("poisson_nll_loss", tag, losses, given, In((4, 5), make=counts), **options)
        yield from each("poisson_nll_loss", f"{tag}-full",
                        lambda x, t, f=losses: f(x, t) + stirling(t), given,
                        In((4, 5), make=counts), full=True, tolerance=2, **options)
    yield from each("poisson_nll_loss", "few", lambda x, t: np.exp(x) - t * x, In((4, 5)),
                    In((4, 5), 0.0, 0.9), full=True, reductions=("none",))

    def gaussian(x, t, v):
        return (np.log(v) + (x - t)**2 / v) / 2

    for tag, shape in (("", (4, 5)), ("last", (4, 1)), ("without", (4,))):
        yield from each("gaussian_nll_loss", tag,
                        lambda x, t, v: gaussian(x, t, v.reshape(4, -1)), X, T, In(shape, 0.3, 2))
    yield from each("gaussian_nll_loss", "full",
                    lambda x, t, v: gaussian(x, t, v) + math.log(2 * math.pi) / 2, X, T,
                    In((4, 5), 0.3, 2), full=True)
    yield from each("gaussian_nll_loss", "eps", lambda x, t, v: gaussian(x, t, np.maximum(v, 0.7)),
                    X, T, In((4, 5), 0.3, 2), eps=0.7, gradient=(0, 1), reductions=("none",))
    yield row("gaussian_nll_loss", "number", lambda x, t: gaussian(x, t, 0.5).mean(), X, T, var=0.5)


def signed():
    given, sign = In((4, 5), make=apart), In((4, 5), make=signs)
    yield from each("soft_margin_loss", "", lambda x, t: np.logaddexp(0, -t * x), given, sign,
                    gradient=(0,))
    yield from each("soft_margin_loss", "broadcast", lambda x, t: np.logaddexp(0, -t * x), given,
                    In((5,), make=signs), reductions=("none",), gradient=(0,))

    def hinge(margin):
        return lambda x, t: np.where(t == 1, x, np.maximum(margin - x, 0))

    yield from each("hinge_embedding_loss", "", hinge(1), given, sign, gradient=(0,))
    yield from each("hinge_embedding_loss", "margin", hinge(0.25), given, sign, margin=0.25,
                    gradient=(0,))
    for tag, margin in (("", 0.0), ("margin", 0.25)):
        yield from each("margin_ranking_loss", tag,
                        lambda a, b, t, m=margin: np.maximum(-t * (a - b) + m, 0), X, T, sign,
                        margin=margin, gradient=(0, 1))
    yield from each("margin_ranking_loss", "broadcast",
                    lambda a, b, t: np.maximum(-t * (a - b), 0), X, T, In((1, 5), make=signs),
                    reductions=("none",), gradient=(0, 1))


CASES = [*differences(), *probabilities(), *likelihoods(), *signed()]
