"""Rows for the cells of mlgpu/ops/recurrent.py."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from table.case import In, both


def inner(x, w, b=0.0):
    return x @ w.T + b


def rnn(activation):
    return lambda x, h, wi, wh, bi=0.0, bh=0.0: activation(inner(x, wi, bi) + inner(h, wh, bh))


def lstm(x, h, c, wi, wh, bi=0.0, bh=0.0):
    i, f, g, o = np.split(inner(x, wi, bi) + inner(h, wh, bh), 4, axis=-1)
    c = expit(f) * c + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(c), c


def gru(x, h, wi, wh, bi=0.0, bh=0.0):
    xr, xz, xn = np.split(inner(x, wi, bi), 3, axis=-1)
    hr, hz, hn = np.split(inner(h, wh, bh), 3, axis=-1)
    new, update = np.tanh(xn + expit(xr + hr) * hn), expit(xz + hz)
    return update * h + (1 - update) * new


# The reference of each cell, how many parts its gates have, and how many states.
CELLS = {"rnn_tanh_cell": (rnn(np.tanh), 1, 1), "rnn_relu_cell": (rnn(lambda x: np.maximum(x, 0)),
                                                                  1, 1),
         "lstm_cell": (lstm, 4, 2), "gru_cell": (gru, 3, 1)}


def row(name, tag, n, features, hidden, bias):
    reference, parts, states = CELLS[name]
    gates = parts * hidden
    inputs = [In((n, features)), *[In((n, hidden))] * states, In((gates, features), -1, 1),
              In((gates, hidden), -1, 1), *[In((gates,))] * (2 * bias)]

    def call(library, x, *rest):
        state = rest[0] if states == 1 else rest[:2]
        return getattr(library, name)(x, state, *rest[states:])

    return both(f"{name}-{tag}", call, reference, tuple(inputs))


CASES = [case for name in CELLS for case in (
    row(name, "plain", 3, 2, 4, True),
    row(name, "no bias", 3, 2, 5, False),
    row(name, "one", 1, 1, 1, True),
    row(name, "empty batch", 0, 2, 3, True),
)]
