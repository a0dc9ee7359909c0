"""All steps of an LSTM in one call, products included.

Between its products a step has so little to do that calls from Python, of two threads at once,
would take longer.  Rows never meet and each sum is taken in order, so results do not depend on
how the rows are cut.
"""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import sigmoid, tanh
from mlgpu.cpu.fast.tile import ACROSS, ROWS, tile
from mlgpu.cpu.fast.vectors import address

__all__ = ["backward", "forward", "lanes", "pack_columns", "pack_rows"]

Array = Any


def lanes(itemsize: int) -> int:
    """How many columns a panel of weights has."""
    return ACROSS // itemsize


# --- products ------------------------------------------------------------------------------------


@inlined
def _multiply(a: Array, first: int, panels: Array, out: Array) -> None:
    """out (rows, columns) = the matrix a, from row `first` on, times the panels."""
    rows, width, (count, depth, wide) = len(out), a.shape[1], panels.shape
    item, stride, tiles = out.itemsize, out.shape[1], -(-rows // ROWS)
    for panel in range(count):
        weights = address(panels) + panel * depth * wide * item
        for number in range(tiles):
            top = rows * number // tiles
            tile(out, rows * (number + 1) // tiles - top,
                 address(a) + (first + top) * width * item, width, 1, weights, wide, depth,
                 address(out) + (top * stride + panel * wide) * item, stride, wide, weights,
                 False, False)


@compiled
def pack_rows(w: Array, panels: Array) -> None:
    """panels (p, k, lanes): panels of w^T, so of rows of w (4 hidden, k); zeros beyond."""
    count, depth, across = panels.shape
    for panel in range(count):
        for lane in range(across):
            row = panel * across + lane
            if row < len(w):
                for k in range(depth):
                    panels[panel, k, lane] = w[row, k]
            else:
                panels[panel, :, lane] = 0


@compiled
def pack_columns(w: Array, panels: Array) -> None:
    """panels (p, k, lanes): panels of columns of w (k, hidden); zeros beyond."""
    count, depth, across = panels.shape
    for panel in range(count):
        first = panel * across
        have = min(across, w.shape[1] - first)
        for k in range(depth):
            for lane in range(have):
                panels[panel, k, lane] = w[k, first + lane]
            panels[panel, k, have:] = 0


# --- steps ---------------------------------------------------------------------------------------


@inlined
def _sigmoids(x: Array, product: Array, act: Array) -> None:
    for q in range(len(act)):
        act[q] = sigmoid(product[q] + x[q])


@inlined
def _tanhs(x: Array, product: Array, act: Array) -> None:
    for q in range(len(act)):
        act[q] = tanh(product[q] + x[q])


@inlined
def _open(x: Array, product: Array, act: Array, hidden: int) -> None:
    """What the gates of a row let through."""
    first, second = 2 * hidden, 3 * hidden
    end = second + hidden
    _sigmoids(x[:first], product[:first], act[:first])
    _tanhs(x[first:second], product[first:second], act[first:second])
    _sigmoids(x[second:end], product[second:end], act[second:end])


@inlined
def _move(act: Array, before: Array, cell: Array, out: Array) -> None:
    """The next cell and output of a row."""
    hidden = len(cell)
    i, f, g, o = act[:hidden], act[hidden:2 * hidden], act[2 * hidden:3 * hidden], act[3 * hidden:]
    for q in range(hidden):
        cell[q] = f[q] * before[q] + i[q] * g[q]
    for q in range(hidden):
        out[q] = o[q] * tanh(cell[q])


@compiled
def forward(x: Array, panels: Array, h: Array, c: Array, y: Array, acts: Array, cells: Array,
            order: Array, low: int, high: int, product: Array) -> None:
    """Rows low to high of y (steps, n, hidden), acts (last steps, n, 4 hidden) and cells.

    x (steps, n, 4 hidden) are the gates' other part; product is scratch, a whole panel wide.
    """
    hidden = c.shape[1]
    state, cell = h, c
    for t in order:
        _multiply(state, low, panels, product)
        act, following = acts[t % len(acts)], cells[t % len(cells)]
        for row in range(low, high):
            _open(x[t, row], product[row - low], act[row], hidden)
            _move(act[row], cell[row], following[row], y[t, row])
        state, cell = y[t], following


@inlined
def _back(act: Array, before: Array, cell: Array, dout: Array, dcell: Array, dact: Array) -> None:
    """The gates' gradients of a row; dcell, in place, to that of the cell before."""
    hidden = len(cell)
    i, f, g, o = act[:hidden], act[hidden:2 * hidden], act[2 * hidden:3 * hidden], act[3 * hidden:]
    di, df = dact[:hidden], dact[hidden:2 * hidden]
    dg, do = dact[2 * hidden:3 * hidden], dact[3 * hidden:4 * hidden]
    for q in range(hidden):
        shown = tanh(cell[q])
        do[q] = dout[q] * shown * (o[q] * (1 - o[q]))
        dcell[q] += dout[q] * o[q] * (1 - shown * shown)
    for q in range(hidden):
        di[q] = dcell[q] * g[q] * (i[q] * (1 - i[q]))
        dg[q] = dcell[q] * i[q] * (1 - g[q] * g[q])
    for q in range(hidden):
        df[q] = dcell[q] * before[q] * (f[q] * (1 - f[q]))
        dcell[q] *= f[q]


@compiled
def backward(dy: Array, dh: Array, dc: Array, c: Array, panels: Array, acts: Array, cells: Array,
             dgates: Array, order: Array, low: int, high: int, dstate: Array, dact: Array) -> None:
    """Rows low to high of dgates; dh and dc, of the last state, become those of the first.

    dy may be without steps.  dstate and dact are scratch.
    """
    hidden = c.shape[1]
    dstate[:, :hidden] = dh[low:high]
    for at in range(len(order) - 1, -1, -1):
        t = order[at]
        before = cells[order[at - 1]] if at else c
        for row in range(low, high):
            dout, gates = dstate[row - low], dact[row - low]
            if len(dy):
                given = dy[t, row]
                for q in range(hidden):
                    dout[q] += given[q]
            _back(acts[t, row], before[row], cells[t, row], dout, dc[row], gates)
            dgates[t, row, :] = gates[:4 * hidden]
        _multiply(dact, 0, panels, dstate)
    dh[low:high] = dstate[:, :hidden]
