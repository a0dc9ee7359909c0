"""Recurrent layers on CUDA, step by step: the product with the state, whose epilogue adds the
input's part, then one kernel for the gates.

The weight's gradient is one product over all steps after the walk back, and one for the first
state.  Arrays are (steps, rows, ...); `order` is the steps in the order in which they are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.copy import copy_into, fill
from mlgpu.cuda.gemm import column_sums, gemm
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.repeat import repeat
from mlgpu.cuda.rows import wide
from mlgpu.cuda.types import ctype


def rnn(gates: Any, h0: Any, w_hh: Any, order: Sequence[int], relu: bool) -> tuple[Any, Any]:
    """The outputs and the last state; the whole step is the product's kernel."""
    x = runtime.contiguous(gates)
    y = runtime.empty(x.shape, x.dtype)

    def step(at: int) -> None:
        t = order[at]
        gemm(y[order[at - 1]] if at else h0, w_hh.T, y[t], bias=x[t],
             activation="relu" if relu else "tanh")

    step(0)
    repeat(step, 1, len(order), _along(order, x, y))
    return y, runtime.copy(y[order[-1]])


def rnn_backward(dy: Any, dlast: Any, y: Any, w_hh: Any, order: Sequence[int], relu: bool
                 ) -> tuple[Any, Any]:
    """The gradients of the gates and of the first state."""
    dy, dlast, dh = _contiguous(dy), _contiguous(dlast), runtime.empty(y.shape[1:], y.dtype)
    dgates = runtime.empty(y.shape, y.dtype)
    back = order[::-1]

    def step(at: int) -> None:
        t = back[at]
        launch("recurrent", f"rnn_backward<{_types(y.dtype)}>", blocks(y[t].size, 256), 256,
               (None if dy is None else dy[t], dh if at else dlast, y[t], dgates[t], y[t].size,
                relu))
        gemm(dgates[t], w_hh, dh)

    step(0)
    repeat(step, 1, len(order), _along(back, dy, y, dgates))
    return dgates, dh


def lstm(gates: Any, h0: Any, c0: Any, w_hh: Any, w_hr: Any, order: Sequence[int], keep: bool
         ) -> tuple[Any, ...]:
    """The outputs, the last h and c, then the gates' values and the cells after each step, in the
    order of the steps, of which only few are there without `keep`."""
    x, c0 = runtime.contiguous(gates), _stored(c0, gates.dtype)
    steps, (rows, hidden), dtype = len(x), c0.shape, x.dtype
    y = runtime.empty((steps, *h0.shape), dtype)
    acts = runtime.empty((steps if keep else 1, rows, 4 * hidden), dtype)
    cells = runtime.empty((steps if keep else 2, rows, hidden), wide(dtype))
    out = None if w_hr is None else runtime.empty((rows, hidden), dtype)
    last_h = runtime.empty(h0.shape, dtype) if out is None else None
    last_c = runtime.empty(c0.shape, dtype)
    name = f"lstm_forward<{_types(dtype)}>"

    def step(at: int) -> None:
        t, ends = order[at], at == steps - 1
        act = gemm(y[order[at - 1]] if at else h0, w_hh.T, acts[at % len(acts)], bias=x[t])
        launch("recurrent", name, blocks(rows * hidden, 256), 256,
               (act, None if at else c0, cells[(at - 1) % len(cells)] if at else None,
                cells[at % len(cells)] if keep or not ends else None, y[t] if out is None else out,
                last_h if ends else None, last_c if ends else None, rows, hidden))
        if out is not None:
            gemm(out, w_hr.T, y[t])

    step(0)
    moving = _along(order, x, y)
    if keep:
        moving += _along(range(steps), acts, cells)
    repeat(step, 1, steps - 1, moving, period=1 if keep else 2)
    if steps > 1:
        step(steps - 1)
    return y, runtime.copy(y[order[-1]]) if last_h is None else last_h, last_c, acts, cells


def lstm_backward(dy: Any, dlast: Any, dc: Any, acts: Any, cells: Any, c0: Any, w_hh: Any,
                  w_hr: Any, order: Sequence[int]) -> tuple[Any, ...]:
    """The gradients of the gates, h0, c0 and the projection (None without one)."""
    dy, dlast, dc = _contiguous(dy), _contiguous(dlast), _contiguous(dc)
    c0 = _stored(c0, acts.dtype)
    steps, rows, hidden = len(acts), acts.shape[1], acts.shape[2] // 4
    dtype = acts.dtype
    dcell = runtime.empty((rows, hidden), cells.dtype) if steps > 1 else None
    dgates, first = runtime.empty(acts.shape, dtype), runtime.empty((rows, hidden), dtype)
    dh = runtime.empty((rows, w_hh.shape[1]), dtype)
    types, size = _types(dtype), blocks(rows * hidden, 256)
    outs: Any = None
    douts: Any = None
    if w_hr is not None:
        outs = runtime.empty((steps, rows, hidden), dtype)
        douts = runtime.empty((steps, rows, w_hr.shape[0]), dtype)

    def step(back: int) -> None:
        at = steps - 1 - back
        t = order[at]
        parts = (None if dy is None else dy[t], dh if back else dlast)
        if outs is not None:
            # What reaches h goes through the projection, in one piece.
            _add(parts, douts[t])
            parts = (gemm(douts[t], w_hr), None)
            launch("recurrent", f"lstm_output<{types}>", size, 256,
                   (acts[at], cells[at], outs[t], rows, hidden))
        launch("recurrent", f"lstm_backward<{types}>", size, 256,
               (acts[at], None if at else c0, cells[at - 1] if at else None, cells[at], *parts, dc,
                dcell, dgates[t], None if at else first, at == steps - 1, rows, hidden))
        gemm(dgates[t], w_hh, dh)

    step(0)
    if outs is None:
        repeat(step, 1, steps - 1, (*_along(order[::-1], dy, dgates),
                                    *_along(range(steps)[::-1], acts, cells)))
    else:  # whose sums are no kernels of ours alone
        for back in range(1, steps - 1):
            step(back)
    if steps > 1:
        step(steps - 1)
    dw_hr = None
    if outs is not None:
        dw_hr = gemm(douts.reshape(steps * rows, -1).T, outs.reshape(steps * rows, hidden))
    return dgates, dh, first, dw_hr


def gru(gates: Any, h0: Any, w_hh: Any, b_hh: Any, order: Sequence[int], keep: bool
        ) -> tuple[Any, ...]:
    """The outputs, the last state, then of each step the gates' values and what reset multiplies.
    """
    x, h0 = runtime.contiguous(gates), runtime.contiguous(h0)
    steps, (rows, hidden), dtype = len(x), h0.shape, x.dtype
    y = runtime.empty((steps, rows, hidden), dtype)
    kept = steps if keep else 1
    acts = runtime.empty((kept, rows, 3 * hidden), dtype)
    inner = runtime.empty((kept, rows, hidden), dtype)
    last = runtime.empty(h0.shape, dtype)

    def step(at: int) -> None:
        t = order[at]
        state = y[order[at - 1]] if at else h0
        act = gemm(state, w_hh.T, acts[t % kept], bias=b_hh)
        launch("recurrent", f"gru_forward<{_types(dtype)}>", blocks(rows * hidden, 256), 256,
               (act, x[t], state, inner[t % kept], y[t], last if at == steps - 1 else None, rows,
                hidden))

    step(0)
    repeat(step, 1, steps - 1, _along(order, x, y, *((acts, inner) if keep else ())))
    if steps > 1:
        step(steps - 1)
    return y, last, acts, inner


def gru_backward(dy: Any, dlast: Any, y: Any, h0: Any, acts: Any, inner: Any, w_hh: Any,
                 order: Sequence[int]) -> tuple[Any, ...]:
    """The gradients of the gates and of the first state, and what reaches w_hh h + b_hh."""
    dy, dlast, h0 = _contiguous(dy), _contiguous(dlast), runtime.contiguous(h0)
    steps, (rows, hidden) = len(y), h0.shape
    dgates, dinner = (runtime.empty(acts.shape, acts.dtype) for _ in range(2))
    rest, dh = (runtime.empty(h0.shape, acts.dtype) for _ in range(2))

    def step(back: int) -> None:
        at = steps - 1 - back
        t = order[at]
        launch("recurrent", f"gru_backward<{_types(acts.dtype)}>", blocks(rows * hidden, 256), 256,
               (acts[t], inner[t], y[order[at - 1]] if at else h0, None if dy is None else dy[t],
                dh if back else dlast, dgates[t], dinner[t], rest, rows, hidden))
        gemm(dinner[t], w_hh, dh, bias=rest)

    step(0)
    repeat(step, 1, steps - 1, _along(order[::-1], acts, inner, y, dy, dgates, dinner))
    if steps > 1:
        step(steps - 1)
    return dgates, dh, dinner


def _along(order: Sequence[int], *arrays: Any) -> list[tuple[Any, int]]:
    """Arrays of steps, and the bytes from one step of that order to the next; see `repeat`."""
    way = order[1] - order[0] if len(order) > 1 else 0
    return [(x, way * x.strides[0]) for x in arrays if x is not None]


def weight_gradient(dgates: Any, y: Any, h0: Any, reverse: bool, bias: bool = False
                    ) -> tuple[Any, Any]:
    """Of w_hh: the sum over steps of dgates[t]^T h[t - 1]; and of b_hh with `bias`, else None."""
    later, sooner = (dgates[:-1], y[1:]) if reverse else (dgates[1:], y[:-1])
    first = dgates[-1 if reverse else 0]
    if not later.size:
        sums = runtime.empty(first.shape[1:], first.dtype) if bias else None
        return gemm(first.T, h0, row_sums=sums), sums
    begun = gemm(first.T, h0)
    total = gemm(later.reshape(-1, later.shape[-1]).T, sooner.reshape(-1, y.shape[-1]), bias=begun)
    return total, bias_gradient(dgates) if bias else None


def bias_gradient(dgates: Any) -> Any:
    return column_sums(dgates.reshape(-1, dgates.shape[-1]))


def _add(parts: tuple[Any, ...], out: Any) -> None:
    """The sum of the arrays that there are, in `out`."""
    given = [x for x in parts if x is not None]
    if not given:
        fill(out, 0)
    elif len(given) == 1:
        copy_into(out, given[0])
    else:
        from mlgpu.op import on_tensors

        copy_into(out, on_tensors(lambda a, b: a + b, *given))


def _contiguous(x: Any) -> Any:
    return None if x is None else runtime.contiguous(x)


def _stored(x: Any, dtype: Any) -> Any:
    """A contiguous array of that dtype with the values of x."""
    if x.dtype == dtype:
        return runtime.contiguous(x)
    out = runtime.empty(x.shape, dtype)
    copy_into(out, x)
    return out


def _types(dtype: Any) -> str:
    """What is stored, and what is computed in."""
    return f"{ctype(dtype)}, {ctype(np.dtype(wide(dtype)))}"
