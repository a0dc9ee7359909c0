"""Rows for mlgpu/ops/ctc.py, whose reference lists all alignments."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import special
from table.case import In, both
from table.losses import REDUCTIONS, WIDE, reduce_


def alignments(steps, target, blank, count):
    """Every way to write the target in so many steps."""
    for path in itertools.product(range(count), repeat=steps):
        merged = [label for label, _ in itertools.groupby(path)]
        if [label for label in merged if label != blank] == list(target):
            yield path


def ctc_each(logs, targets, inputs, lengths, blank):
    """Log-probabilities (T, N, C): the loss of each example by listing the alignments."""
    ends = np.cumsum(lengths)
    losses = []
    for n, (length, size) in enumerate(zip(inputs, lengths, strict=True)):
        target = targets[n, :size] if targets.ndim == 2 else targets[ends[n] - size:ends[n]]
        p = sum(np.exp(sum(logs[t, n, label] for t, label in enumerate(path)))
                for path in alignments(length, target, blank, logs.shape[2]))
        losses.append(-np.log(p) if p else math.inf)
    return np.array(losses)


def ctc_row(tag, inputs, lengths, targets, *, blank=0, steps=4, reduction="mean", infinite=False):
    """The loss of log_softmax, whose gradient is a true one; the losses' own is PyTorch's."""
    count = len(inputs)

    def call(library, x, t):
        return library.nn.functional.ctc_loss(
            library.log_softmax(x, -1), t, library.tensor(inputs), library.tensor(lengths), blank,
            reduction, infinite)

    def expected(x, t):
        losses = ctc_each(x - special.logsumexp(x, -1, keepdims=True), t, inputs, lengths, blank)
        losses = np.where(np.isinf(losses), 0, losses) if infinite else losses
        return reduce_(losses / np.maximum(lengths, 1) if reduction == "mean" else losses,
                       reduction)

    given = np.array(targets)
    return both(f"ctc_loss-{tag}-{reduction}", call, expected,
                (In((steps, count, 3)),
                 In(given.shape, dtype="int64", make=lambda rng, shape: given)),
                dtypes=WIDE, second=False)


def ctc_vector(library, x, t):
    return library.nn.functional.ctc_loss(library.log_softmax(x, -1), t, library.tensor(4),
                                          library.tensor(2))


def alignments_rows():
    for reduction in REDUCTIONS:
        yield ctc_row("padded", (4, 4, 3), (2, 1, 2), [[1, 2], [2, 0], [2, 1]],
                      reduction=reduction)
        yield ctc_row("joined", (4, 4, 3), (2, 1, 2), [1, 2, 2, 2, 1], reduction=reduction)
        yield ctc_row("repeats", (4, 3), (2, 2), [[1, 1], [2, 2]], reduction=reduction)
        yield ctc_row("blank", (4, 4), (2, 2), [[0, 1], [1, 1]], blank=2, reduction=reduction)
        yield ctc_row("nothing", (4, 2), (0, 1), [[1], [1]], reduction=reduction)
        yield ctc_row("infinite", (4, 2), (2, 2), [[1, 2], [1, 1]], infinite=True,
                      reduction=reduction)
    yield both("ctc_loss-vector", ctc_vector, lambda x, t: ctc_each(
        (x - special.logsumexp(x, -1, keepdims=True))[:, None], t[None], (4,), (2,), 0)[0] / 2,
        (In((4, 3)), In((2,), dtype="int64", make=lambda rng, shape: np.array([1, 2]))),
        dtypes=WIDE, second=False)


CASES = [*alignments_rows()]
