"""The steps of an LSTM on arrays, the rows of a batch cut among the threads.

Rows never meet, so each thread goes through all steps with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import blas
from mlgpu.cpu.fast import load
from mlgpu.cpu.gemm import cast, contiguous
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import get_num_threads, parallel

__all__ = ["LstmSteps", "sigmoid", "through_sigmoid"]

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


def _step(gates: Array, before: Array, cell: Array, out: Array) -> None:
    """Gates in place to what they let through; the next cell and output."""
    i, f, g, o = gates.reshape(4, *cell.shape)
    sigmoid(gates[:2 * len(cell)])
    np.tanh(g, out=g)
    sigmoid(o)
    np.multiply(i, g, out=out)
    np.multiply(f, before, out=cell)
    np.add(cell, out, out=cell)
    np.multiply(np.tanh(cell, out=out), o, out=out)


def _step_backward(gates: Array, before: Array, cell: Array, dout: Array, dcell: Array,
                   dgates: Array) -> None:
    """The gates' gradients; `dcell`, in place, to that of the cell before."""
    i, f, g, o = gates.reshape(4, *cell.shape)
    di, df, dg, do = dgates.reshape(4, *cell.shape)
    np.tanh(cell, out=dg)  # dg and df are free until their turn
    through_sigmoid(np.multiply(dout, dg, out=do), o, do)
    np.subtract(1, np.multiply(dg, dg, out=df), out=df)
    np.multiply(np.multiply(df, o, out=df), dout, out=df)
    np.add(dcell, df, out=dcell)
    through_sigmoid(np.multiply(dcell, g, out=di), i, di)
    through_sigmoid(np.multiply(dcell, before, out=df), f, df)
    np.subtract(1, np.multiply(g, g, out=dg), out=dg)
    np.multiply(np.multiply(dg, i, out=dg), dcell, out=dg)
    np.multiply(dcell, f, out=dcell)


class LstmSteps:
    """All steps of an LSTM for `n` rows, in one order.

    Gates are kept as (4 hidden, n): w @ h then takes three quarters of the time of h @ w^T,
    because n is small, and the four gates are contiguous.  `cuts` says where the rows are cut;
    what forward keeps is laid out by it.
    """

    def __init__(self, order: Sequence[int], n: int, hidden: int, dtype: Any,
                 cuts: Sequence[int] | None = None) -> None:
        self.order, self.n, self.hidden, self.dtype = order, n, hidden, dtype
        if cuts is None:
            parts = min(n, get_num_threads()) if n else 1
            cuts = [n * part // parts for part in range(parts + 1)]
        self.cuts = cuts
        self.work = len(order) * n * 4 * hidden * max(1, hidden >> 4)

    def _run(self, start: Callable[[], Callable[[slice], None]]) -> None:
        """`start()`'s result for every part of the rows."""
        def begin() -> Callable[[int], None]:
            body = start()
            return lambda part: body(slice(self.cuts[part], self.cuts[part + 1]))

        with blas.one_thread():
            parallel(len(self.cuts) - 1, begin, self.work)

    def _largest(self) -> int:
        return max(b - a for a, b in zip(self.cuts, self.cuts[1:], strict=False))

    def forward(self, x: Array, h: Array, c: Array, w: Array, projection: Array | None, y: Array,
                acts: Array, cells: Array, steps: int, last: tuple[Array, Array]) -> None:
        """Fill `y`, flat the gates and cells of the last `steps` steps, and the last state."""
        fast = self._compiled(projection)
        if fast is not None:
            self._forward_compiled(fast, x, h, c, w, y, acts, cells, steps, last)
            return
        most, hidden = self._largest(), self.hidden

        def start() -> Callable[[slice], None]:
            states, outs, begun = (empty((width * most,), self.dtype)
                                   for width in (h.shape[1], hidden, hidden))

            def run(rows: slice) -> None:
                gates = self._part(acts, rows, steps, 4 * hidden)
                kept = self._part(cells, rows, steps, hidden)
                n = rows.stop - rows.start
                state = states[:h.shape[1] * n].reshape(h.shape[1], n)
                out, cell = (flat[:hidden * n].reshape(hidden, n) for flat in (outs, begun))
                np.copyto(state, h[rows].T)
                np.copyto(cell, c[rows].T)
                for t in self.order:
                    act, following = gates[t % len(gates)], kept[t % len(kept)]
                    np.matmul(w, state, out=act)
                    np.add(act, x[t, rows].T, out=act)
                    _step(act, cell, following, out)
                    cell = following
                    if projection is None:
                        state = out
                    else:
                        np.matmul(projection, out, out=state)
                    np.copyto(y[t, rows], state.T)
                np.copyto(last[0][rows], state.T, casting="unsafe")
                np.copyto(last[1][rows], cell.T, casting="unsafe")

            return run

        self._run(start)

    @staticmethod
    def _part(flat: Array, rows: slice, steps: int, width: int) -> Array:
        """(steps, width, rows) of what is kept, one part of the rows after the other."""
        some = flat[steps * width * rows.start:steps * width * rows.stop]
        return some.reshape(steps, width, rows.stop - rows.start)

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
        most, hidden = self._largest(), self.hidden
        turned = contiguous(w.T)
        back = None if projection is None else contiguous(projection.T)

        def start() -> Callable[[slice], None]:
            sizes = (4 * hidden, dh.shape[1], hidden, hidden, hidden)
            room = [empty((size * most,), self.dtype) for size in sizes]

            def run(rows: slice) -> None:
                n = rows.stop - rows.start
                dact, dstate, dcell, first, spare = (
                    flat[:size * n].reshape(size, n)
                    for flat, size in zip(room, sizes, strict=True))
                gates = self._part(acts, rows, len(self.order), 4 * hidden)
                kept = self._part(cells, rows, len(self.order), hidden)
                for target, source in ((dstate, dh), (dcell, dc), (first, c)):
                    np.copyto(target, source[rows].T)
                for at in range(len(self.order) - 1, -1, -1):
                    t = self.order[at]
                    before = kept[self.order[at - 1]] if at else first
                    if dy is not None:
                        np.add(dstate, dy[t, rows].T, out=dstate)
                    dm = dstate
                    if back is not None and dout is not None and outs is not None:
                        np.copyto(dout[t, rows], dstate.T)
                        np.tanh(kept[t], out=spare)
                        np.multiply(gates[t, 3 * hidden:].T, spare.T, out=outs[t, rows])
                        dm = np.matmul(back, dstate, out=spare)
                    _step_backward(gates[t], before, kept[t], dm, dcell, dact)
                    np.matmul(turned, dact, out=dstate)
                    np.copyto(dgates[t, rows], dact.T)
                np.copyto(dh[rows], dstate.T)
                np.copyto(dc[rows], dcell.T)

            return run

        self._run(start)

    def _compiled(self, projection: Array | None) -> ModuleType | None:
        """The loops for all steps at once; for these, gates are kept as (steps, n, 4 hidden)."""
        if projection is not None or not self.order or not self.n * self.hidden:
            return None
        return load("recurrent", len(self.order) * self.n * 4 * self.hidden)

    def _forward_compiled(self, fast: ModuleType, x: Array, h: Array, c: Array, w: Array, y: Array,
                          acts: Array, cells: Array, steps: int, last: tuple[Array, Array]) -> None:
        most, hidden, lanes = self._largest(), self.hidden, fast.lanes(self.dtype.itemsize)
        panels = empty((-(-4 * hidden // lanes), hidden, lanes), self.dtype)
        fast.pack_rows(w, panels)
        x, h, c = contiguous(x), contiguous(h), contiguous(c)
        acts = acts.reshape(steps, self.n, 4 * hidden)
        cells = cells.reshape(steps, self.n, hidden)
        order = np.array(self.order, np.intp)

        def start() -> Callable[[slice], None]:
            product = empty((most, len(panels) * lanes), self.dtype)

            def run(rows: slice) -> None:
                fast.forward(x, panels, h, c, y, acts, cells, order, rows.start, rows.stop,
                             product[:rows.stop - rows.start])

            return run

        self._run(start)
        end = self.order[-1]
        np.copyto(last[0], y[end], casting="unsafe")
        np.copyto(last[1], cells[end % steps], casting="unsafe")

    def _backward_compiled(self, fast: ModuleType, dy: Array | None, dh: Array, dc: Array,
                           c: Array, w: Array, acts: Array, cells: Array, dgates: Array) -> None:
        most, hidden, lanes = self._largest(), self.hidden, fast.lanes(self.dtype.itemsize)
        panels = empty((-(-hidden // lanes), 4 * hidden, lanes), self.dtype)
        fast.pack_columns(w, panels)
        steps = len(self.order)
        given = empty((0, 0, 0), self.dtype) if dy is None else contiguous(cast(dy, self.dtype))
        c, acts = contiguous(c), acts.reshape(steps, self.n, 4 * hidden)
        cells = cells.reshape(steps, self.n, hidden)
        order = np.array(self.order, np.intp)

        def start() -> Callable[[slice], None]:
            dstate = empty((most, len(panels) * lanes), self.dtype)
            # Rows a power of two apart would all want the same lines of the cache.
            dact = empty((most, 4 * hidden + lanes), self.dtype)

            def run(rows: slice) -> None:
                n = rows.stop - rows.start
                fast.backward(given, dh, dc, c, panels, acts, cells, dgates, order, rows.start,
                              rows.stop, dstate[:n], dact[:n])

            return run

        self._run(start)
