"""All steps of a GRU in one call, products included: as `recurrent` for an LSTM."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import sigmoid, tanh
from mlgpu.cpu.fast.recurrent import _multiply, lanes, pack_columns, pack_rows

__all__ = ["backward", "forward", "lanes", "pack_columns", "pack_rows"]

Array = Any


@inlined
def _move(x: Array, product: Array, bias: Array, before: Array, act: Array, inner: Array,
          out: Array) -> None:
    """The gates of a row, what the reset multiplies, and the next state."""
    hidden = len(before)
    for q in range(2 * hidden):
        act[q] = sigmoid(product[q] + bias[q] + x[q])
    x_new, h_new, b_new = x[2 * hidden:], product[2 * hidden:3 * hidden], bias[2 * hidden:]
    reset, update, new = act[:hidden], act[hidden:2 * hidden], act[2 * hidden:]
    for q in range(hidden):
        inner[q] = h_new[q] + b_new[q]
    for q in range(hidden):
        new[q] = tanh(reset[q] * inner[q] + x_new[q])
    for q in range(hidden):
        out[q] = (before[q] - new[q]) * update[q] + new[q]


@compiled
def forward(x: Array, panels: Array, bias: Array, h: Array, y: Array, acts: Array, inner: Array,
            order: Array, low: int, high: int, product: Array) -> None:
    """Rows low to high of y (steps, n, hidden), acts (last steps, n, 3 hidden) and inner.

    x (steps, n, 3 hidden) are the gates' other part; product is scratch, a whole panel wide.
    """
    state = h
    for t in order:
        _multiply(state, low, panels, product)
        act, part = acts[t % len(acts)], inner[t % len(inner)]
        for row in range(low, high):
            _move(x[t, row], product[row - low], bias, state[row], act[row], part[row], y[t, row])
        state = y[t]


@inlined
def _back(act: Array, inner: Array, before: Array, dout: Array, dgate: Array, dact: Array) -> None:
    """The gradients of a row's gates and of their products; dout to its part by the update."""
    hidden = len(before)
    reset, update, new = act[:hidden], act[hidden:2 * hidden], act[2 * hidden:]
    dreset, dupdate, dnew = dgate[:hidden], dgate[hidden:2 * hidden], dgate[2 * hidden:]
    for q in range(hidden):
        dnew[q] = (1 - update[q]) * dout[q] * (1 - new[q] * new[q])
    for q in range(hidden):
        dupdate[q] = (before[q] - new[q]) * dout[q] * (update[q] * (1 - update[q]))
    for q in range(hidden):
        dreset[q] = dnew[q] * inner[q] * (reset[q] * (1 - reset[q]))
    for q in range(2 * hidden):
        dact[q] = dgate[q]
    last = dact[2 * hidden:3 * hidden]
    for q in range(hidden):
        last[q] = dnew[q] * reset[q]
    for q in range(hidden):
        dout[q] *= update[q]


@compiled
def backward(dy: Array, dh: Array, h: Array, panels: Array, y: Array, acts: Array, inner: Array,
             dgates: Array, dinner: Array, order: Array, low: int, high: int, dstate: Array,
             dact: Array) -> None:
    """Rows low to high of dgates and dinner; dh, of the last state, becomes that of the first.

    dy may be without steps.  dstate and dact are scratch.
    """
    hidden = h.shape[1]
    for at in range(len(order) - 1, -1, -1):
        t = order[at]
        before = y[order[at - 1]] if at else h
        for row in range(low, high):
            dout, products = dh[row], dact[row - low]
            if len(dy):
                given = dy[t, row]
                for q in range(hidden):
                    dout[q] += given[q]
            _back(acts[t, row], inner[t, row], before[row], dout, dgates[t, row], products)
            dinner[t, row, :] = products[:3 * hidden]
        _multiply(dact, 0, panels, dstate)
        for row in range(low, high):
            dout, product = dh[row], dstate[row - low]
            for q in range(hidden):
                dout[q] += product[q]
