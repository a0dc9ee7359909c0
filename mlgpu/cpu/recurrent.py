"""The steps of recurrent layers on arrays, the rows of a batch cut among the threads.

Rows never meet, so each thread goes through all steps with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import blas
from mlgpu.cpu.fast import load
from mlgpu.cpu.gemm import cast, contiguous
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import SERIAL, get_num_threads, parallel

__all__ = ["LstmSteps", "Rows", "multiply", "panels_of", "sigmoid", "through_sigmoid"]

Array = np.ndarray[Any, Any]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in place."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    np.add(x, 1, out=x)
    np.reciprocal(x, out=x)
    return x


def through_sigmoid(dy: Array, y: Array, out: Array) -> Array:
    """dy y (1 - y): `out` may be `dy`."""
    np.multiply(dy, y, out=out)
    np.multiply(out, 1 - y, out=out)
    return out


# Steps for which what does not depend on the later ones is computed at once: few calls, in cache.
_TOGETHER = 8
_WORTH_TURNING = 8  # steps from which a copy of the weights pays


def _apart(w: Array) -> Array:
    """A copy whose rows are not a power of two apart.

    Those would all want the same lines of the cache: a product takes up to twice the time.
    """
    rows, columns = w.shape
    room = empty((rows, columns + 16), w.dtype)
    out: Array = room[:, :columns]
    np.copyto(out, w)
    return out


# Multiplications up to which BLAS takes its operands as they lie.  It copies those of a larger
# product, which takes as long as to multiply a few rows.
_AS_THEY_LIE = 1_000_000
_NARROWEST = 32


def panels_of(w: Array, rows: int, steps: int) -> Array:
    """w (k, n), for products with `rows` rows from the left in each step: as it is, or as panels
    (count, k, columns); of a copy where the steps are many enough to pay for it.
    """
    if steps >= _WORTH_TURNING:
        w = _apart(w)
    depth, width = w.shape
    count = 1
    while rows * depth * (width // count) > _AS_THEY_LIE:
        count *= 2
        if width % count or width // count < _NARROWEST:
            return w
    return w if count == 1 else w.reshape(depth, count, width // count).swapaxes(0, 1)


def multiply(x: Array, panels: Array, out: Array) -> Array:
    """out = x @ the matrix of which these are the panels."""
    if panels.ndim == 2:
        return np.matmul(x, panels, out=out)
    count, _, width = panels.shape
    np.matmul(x, panels, out=out.reshape(len(out), count, width).swapaxes(0, 1))
    return out


class Rows:
    """The rows of a batch in parts: one for each thread, where all steps together are worth it."""

    def __init__(self, steps: int, n: int, gates: int, hidden: int) -> None:
        # In elements of simpler operations.
        self.work = steps * n * gates * hidden * max(1, hidden >> 4)
        parts = min(n, get_num_threads()) if n and self.work >= SERIAL else 1
        self.cuts = [n * part // parts for part in range(parts + 1)]
        self.most = max(b - a for a, b in pairwise(self.cuts))

    def run(self, start: Callable[[], Callable[[slice], None]]) -> None:
        """What `start()` makes for each thread, with every part; BLAS has one thread meanwhile."""
        def begin() -> Callable[[int], None]:
            body = start()
            return lambda part: body(slice(self.cuts[part], self.cuts[part + 1]))

        with blas.one_thread():
            parallel(len(self.cuts) - 1, begin, self.work)


class LstmSteps:
    """All steps of an LSTM for `n` rows, in one order."""

    def __init__(self, order: Sequence[int], n: int, hidden: int, dtype: Any) -> None:
        self.order, self.n, self.hidden, self.dtype = order, n, hidden, dtype
        self.rows = Rows(len(order), n, 4, hidden)

    def forward(self, x: Array, h: Array, c: Array, w: Array, projection: Array | None, y: Array,
                acts: Array, cells: Array, last: tuple[Array, Array]) -> None:
        """Fill `y`, the gates and cells of the last steps, as many as there is room for, and the
        last state."""
        fast = self._compiled(projection)
        if fast is not None:
            self._forward_compiled(fast, x, h, c, w, y, acts, cells)
        else:
            self._forward(x, h, c, w, projection, y, acts, cells)
        for target, first, steps in ((last[0], h, y), (last[1], c, cells)):
            np.copyto(target, steps[self.order[-1] % len(steps)] if self.order else first,
                      casting="unsafe")

    def _forward(self, x: Array, h: Array, c: Array, w: Array, projection: Array | None, y: Array,
                 acts: Array, cells: Array) -> None:
        most, hidden, kept = self.rows.most, self.hidden, len(acts)
        panels = panels_of(w.T, most, len(self.order))
        # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: so all gates take one call.
        factor, offset = empty((4 * hidden,), self.dtype), empty((4 * hidden,), self.dtype)
        factor.fill(0.5)
        offset.fill(0.5)
        factor[2 * hidden:3 * hidden], offset[2 * hidden:3 * hidden] = 1, 0

        def start() -> Callable[[slice], None]:
            spare = empty((most, hidden), self.dtype)

            def run(rows: slice) -> None:
                state, cell = h[rows], c[rows]
                product = spare[:rows.stop - rows.start]
                for t in self.order:
                    act, following = acts[t % kept, rows], cells[t % kept, rows]
                    np.add(multiply(state, panels, act), x[t, rows], out=act)
                    np.tanh(np.multiply(act, factor, out=act), out=act)
                    np.add(np.multiply(act, factor, out=act), offset, out=act)
                    i, f, g, o = (act[:, k * hidden:(k + 1) * hidden] for k in range(4))
                    np.multiply(f, cell, out=following)
                    np.add(following, np.multiply(i, g, out=product), out=following)
                    cell, state = following, y[t, rows]
                    out = state if projection is None else product
                    np.multiply(np.tanh(cell, out=out), o, out=out)
                    if projection is not None:
                        np.matmul(out, projection.T, out=state)

            return run

        self.rows.run(start)

    def backward(self, dy: Array | None, dh: Array, dc: Array, c: Array, w: Array,
                 projection: Array | None, acts: Array, cells: Array, dgates: Array,
                 dout: Array | None, outs: Array | None) -> None:
        """Fill `dgates`; `dh` and `dc`, of the last state, become those of the first.

        With a projection also `dout`, the gradients of the outputs, and `outs`, what is projected.
        """
        fast = self._compiled(projection)
        if fast is not None:
            self._backward_compiled(fast, dy, dh, dc, c, w, acts, cells, dgates)
            return
        most, hidden = self.rows.most, self.hidden
        panels = panels_of(w, most, len(self.order))

        def start() -> Callable[[slice], None]:
            slopes = empty((_TOGETHER, most, hidden), self.dtype)
            room = empty((most, hidden), self.dtype)

            def run(rows: slice) -> None:
                n = rows.stop - rows.start
                dstate, dcell, spare = dh[rows], dc[rows], room[:n]
                for at in range(len(self.order) - 1, -1, -1):
                    t = self.order[at]
                    done = (len(self.order) - 1 - at) % _TOGETHER
                    if not done:
                        some = self.order[max(0, at + 1 - _TOGETHER):at + 1]
                        low, high = min(some), max(some) + 1
                        slope = slopes[:high - low, :n]
                        shown = None if outs is None else outs[low:high, rows]
                        self._factors(acts[low:high, rows], cells[low:high, rows],
                                      dgates[low:high, rows], slope, shown)
                    dact = dgates[t, rows]
                    if dy is not None:
                        np.add(dstate, dy[t, rows], out=dstate)
                    dm = dstate
                    if projection is not None and dout is not None:
                        np.copyto(dout[t, rows], dstate)
                        dm = np.matmul(dstate, projection, out=spare)
                    before = cells[self.order[at - 1], rows] if at else c[rows]
                    df = dact[:, hidden:2 * hidden]
                    np.multiply(df, before, out=df)
                    do = dact[:, 3 * hidden:]
                    np.multiply(do, dm, out=do)
                    np.add(dcell, np.multiply(slope[t - low], dm, out=spare), out=dcell)
                    others = dact[:, :3 * hidden].reshape(n, 3, hidden)
                    np.multiply(others, dcell[:, None], out=others)
                    np.multiply(dcell, acts[t, rows, hidden:2 * hidden], out=dcell)
                    multiply(dact, panels, dstate)

            return run

        self.rows.run(start)

    def _factors(self, acts: Array, cells: Array, factors: Array, slope: Array,
                 outs: Array | None) -> None:
        """What the gradients of some steps are multiplied by.

        `factors` for the gates', that of f still without the cell before; `slope` of the cell's
        by the output's.
        """
        i, _, g, o = (acts[..., k * self.hidden:(k + 1) * self.hidden] for k in range(4))
        di, _, dg, do = (factors[..., k * self.hidden:(k + 1) * self.hidden] for k in range(4))
        np.subtract(1, acts, out=factors)
        np.multiply(factors, acts, out=factors)
        np.multiply(di, g, out=di)
        np.multiply(g, g, out=dg)
        np.subtract(1, dg, out=dg)
        np.multiply(dg, i, out=dg)
        np.tanh(cells, out=slope)
        np.multiply(do, slope, out=do)
        if outs is not None:
            np.multiply(slope, o, out=outs)
        np.multiply(slope, slope, out=slope)
        np.subtract(1, slope, out=slope)
        np.multiply(slope, o, out=slope)

    def _compiled(self, projection: Array | None) -> ModuleType | None:
        """The compiled loops, where they serve: the same for forward and backward."""
        if projection is not None or not self.order or not self.n * self.hidden:
            return None
        return load("recurrent", len(self.order) * self.n * 4 * self.hidden)

    def _forward_compiled(self, fast: ModuleType, x: Array, h: Array, c: Array, w: Array, y: Array,
                          acts: Array, cells: Array) -> None:
        most, hidden, lanes = self.rows.most, self.hidden, fast.lanes(self.dtype.itemsize)
        panels = empty((-(-4 * hidden // lanes), hidden, lanes), self.dtype)
        fast.pack_rows(w, panels)
        x, h, c = contiguous(x), contiguous(h), contiguous(c)
        order = np.array(self.order, np.intp)

        def start() -> Callable[[slice], None]:
            product = empty((most, len(panels) * lanes), self.dtype)

            def run(rows: slice) -> None:
                fast.forward(x, panels, h, c, y, acts, cells, order, rows.start, rows.stop,
                             product[:rows.stop - rows.start])

            return run

        self.rows.run(start)

    def _backward_compiled(self, fast: ModuleType, dy: Array | None, dh: Array, dc: Array,
                           c: Array, w: Array, acts: Array, cells: Array, dgates: Array) -> None:
        most, hidden, lanes = self.rows.most, self.hidden, fast.lanes(self.dtype.itemsize)
        panels = empty((-(-hidden // lanes), 4 * hidden, lanes), self.dtype)
        fast.pack_columns(w, panels)
        given = empty((0, 0, 0), self.dtype) if dy is None else contiguous(cast(dy, self.dtype))
        c, order = contiguous(c), np.array(self.order, np.intp)

        def start() -> Callable[[slice], None]:
            dstate = empty((most, len(panels) * lanes), self.dtype)
            # Rows a power of two apart would all want the same lines of the cache.
            dact = empty((most, 4 * hidden + lanes), self.dtype)

            def run(rows: slice) -> None:
                n = rows.stop - rows.start
                fast.backward(given, dh, dc, c, panels, acts, cells, dgates, order, rows.start,
                              rows.stop, dstate[:n], dact[:n])

            return run

        self.rows.run(start)
