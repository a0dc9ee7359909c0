"""Recurrent layers: cells, and whole sequences of one layer in one direction.

The fast backward goes back through the steps on arrays and forms the weight's gradient in one
product at the end.  The differentiable one unrolls the same recurrence with the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.autograd import enable_grad, grad
from mlgpu.cpu import gru as cpu_gru
from mlgpu.cpu.gemm import cast, column_sums, contiguous, gemm, widen
from mlgpu.cpu.recurrent import LstmSteps, Rows, multiply, panels_of, sigmoid, through_sigmoid
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import recurrent as cuda
from mlgpu.op import Op, run
from mlgpu.ops.join import stack
from mlgpu.ops.linear import linear
from mlgpu.tensor import Tensor

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]

Array = np.ndarray[Any, Any]


# --- cells ---------------------------------------------------------------------------------------


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """tanh(w_ih x + b_ih + w_hh h + b_hh): (n, in), (n, hidden) to (n, hidden)."""
    return rnn_step(linear(input, w_ih, b_ih), hx, w_hh, b_hh, False)


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """relu(w_ih x + b_ih + w_hh h + b_hh): (n, in), (n, hidden) to (n, hidden)."""
    return rnn_step(linear(input, w_ih, b_ih), hx, w_hh, b_hh, True)


def lstm_cell(input: Tensor, hx: tuple[Tensor, Tensor], w_ih: Tensor, w_hh: Tensor,
              b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: (n, in) and state (h, c), each (n, hidden), to the next (h, c).

    i, f, g, o are the four parts of w_ih x + b_ih + w_hh h + b_hh;
    c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').
    """
    if not _one_step(4, input, w_ih, hx, w_hh, b_hh):
        return lstm_step(linear(input, w_ih, b_ih), hx[0], hx[1], w_hh, b_hh)
    bias = b_ih + b_hh if b_ih is not None and b_hh is not None else b_ih if b_hh is None else b_hh
    _, h, c = run(Lstm(False), linear(input, w_ih, bias).unsqueeze(0), *hx, w_hh)
    return h, c


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """One step of a GRU: (n, in), (n, hidden) to (n, hidden).

    With r, z, n the three parts of x' = w_ih x + b_ih and of h' = w_hh h + b_hh:
    n = tanh(x'n + sigmoid(x'r + h'r) h'n), and h moves to n by 1 - sigmoid(x'z + h'z).
    """
    if not _one_step(3, input, w_ih, (hx,), w_hh, b_hh):
        return gru_step(linear(input, w_ih, b_ih), hx, w_hh, b_hh)
    more = () if b_hh is None else (b_hh,)
    return run(Gru(False), linear(input, w_ih, b_ih).unsqueeze(0), hx, w_hh, *more)[1]  # type: ignore[no-any-return]


def _one_step(gates: int, input: Tensor, w_ih: Tensor, state: tuple[Tensor, ...], w_hh: Tensor,
              b_hh: Tensor | None) -> bool:
    """Whether a cell is a sequence of one step: nothing is broadcast or promoted."""
    if input.ndim != 2 or any(s.ndim != 2 for s in (*state, w_ih, w_hh)):
        return False
    hidden = w_hh.shape[1]
    return (all(s.shape == (input.shape[0], hidden) for s in state)
            and w_hh.shape[0] == w_ih.shape[0] == gates * hidden
            and (b_hh is None or b_hh.shape == (gates * hidden,))
            and input.dtype.is_floating_point
            and all(t.dtype is input.dtype for t in (*state, w_hh, b_hh) if t is not None))


def _total(gates: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> Tensor:
    """gates + w_hh h + b_hh, by the product alone where nothing is broadcast or promoted."""
    if gates.dtype is h.dtype and gates.shape == (*h.shape[:-1], w_hh.shape[0]):
        return linear(h, w_hh, b_hh, residual=gates)
    return gates + linear(h, w_hh, b_hh)


def rnn_step(gates: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None, relu: bool) -> Tensor:
    total = _total(gates, h, w_hh, b_hh)
    return total.relu() if relu else total.tanh()


def lstm_step(gates: Tensor, h: Tensor, c: Tensor, w_hh: Tensor, b_hh: Tensor | None = None,
              w_hr: Tensor | None = None) -> tuple[Tensor, Tensor]:
    i, f, g, o = _total(gates, h, w_hh, b_hh).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else linear(h, w_hr)), c


def gru_step(gates: Tensor, h: Tensor, w_hh: Tensor, b_hh: Tensor | None) -> Tensor:
    reset, update, new = gates.chunk(3, -1)
    h_reset, h_update, h_new = linear(h, w_hh, b_hh).chunk(3, -1)
    new = (new + (reset + h_reset).sigmoid() * h_new).tanh()
    return (h - new) * (update + h_update).sigmoid() + new


# --- sequences -----------------------------------------------------------------------------------


class Recurrence(Op):
    """A layer's outputs (steps, n, hidden) and last state from its gates (steps, n, ...).

    The gates are the part that depends on the layer's input alone; `reverse` begins at the end.
    """

    materialize = False

    def __init__(self, reverse: bool) -> None:
        self.reverse = reverse

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(needs)))

    def order(self, steps: int) -> list[int]:
        """The steps in the order in which they are taken."""
        return list(range(steps))[::-1] if self.reverse else list(range(steps))

    def step(self, gates: Tensor, state: tuple[Tensor, ...], rest: Sequence[Tensor]
             ) -> tuple[Tensor, ...]:
        """The next state, the output first, with Tensor operations."""
        raise NotImplementedError

    def states(self) -> int:
        """How many tensors are the state: inputs 1 to this number."""
        return 1

    def backward(self, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Views of the inputs, so that the walk below ends at them and not at what made them.
        inputs = [x.view(x.shape) for x in map(self.input, range(len(self.needs)))]
        with enable_grad():
            outputs = self.unroll(*inputs)
            known = [(y, dy) for y, dy in zip(outputs, grads, strict=True)
                     if dy is not None and y.requires_grad]
            found = iter(grad([y for y, _ in known],
                              [x for x, need in zip(inputs, self.needs, strict=True) if need],
                              [dy for _, dy in known], create_graph=True, allow_unused=True))
        return tuple(next(found) if need else None for need in self.needs)

    def unroll(self, gates: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        state, rest = inputs[:self.states()], inputs[self.states():]
        outputs: list[Any] = [None] * len(gates)
        for t in self.order(len(gates)):
            state = self.step(gates[t], state, rest)
            outputs[t] = state[0]
        return (stack(outputs), *state)

    def weight_gradient(self, dgates: Array, y: Array, h0: Array) -> Array:
        """Of w_hh: the sum over steps of dgates[t]^T h[t - 1]."""
        later, sooner = (dgates[:-1], y[1:]) if self.reverse else (dgates[1:], y[:-1])
        rows = dgates.shape[-1]
        total = gemm(later.reshape(-1, rows).T, sooner.reshape(-1, y.shape[-1]))
        first = gemm(dgates[-1 if self.reverse else 0].T, h0)
        return np.add(total, first, out=total)

    def weight_gradient_cuda(self, dgates: Any, y: Any) -> Any:
        return cuda.weight_gradient(dgates, y, self.input_array(1), self.reverse)[0]


def beginning(dstate: Array | None, like: Array) -> Array:
    """The gradient of the last state, as an array that may be written to."""
    out = zeros(like.shape, like.dtype) if dstate is None else empty(like.shape, like.dtype)
    if dstate is not None:
        np.copyto(out, dstate)
    return out


class Rnn(Recurrence):
    """h[t] = act(gates[t] + w_hh h[t - 1]), act = tanh or relu.  Inputs: gates, h, w_hh."""

    saved_outputs = (0,)

    def __init__(self, reverse: bool, relu: bool) -> None:
        super().__init__(reverse)
        self.relu = relu

    def step(self, gates: Tensor, state: tuple[Tensor, ...], rest: Sequence[Tensor]
             ) -> tuple[Tensor, ...]:
        return (rnn_step(gates, state[0], rest[0], None, self.relu),)

    def forward(self, gates: Array, h: Array, w_hh: Array) -> tuple[Array, ...]:
        x, first, w = widen(gates), widen(h), widen(w_hh)
        order, (n, hidden) = self.order(len(x)), h.shape
        y = empty((*x.shape[:2], len(w)), x.dtype)
        parts = Rows(len(x), n, 1, hidden)
        panels = panels_of(w.T, parts.most, len(x))

        def steps(rows: slice) -> None:
            state = first[rows]
            for t in order:
                total = multiply(state, panels, y[t, rows])
                np.add(total, x[t, rows], out=total)
                state = np.maximum(total, 0, out=total) if self.relu else np.tanh(total, out=total)

        parts.run(lambda: steps)
        last = empty(h.shape, gates.dtype)
        np.copyto(last, y[order[-1]] if order else h, casting="unsafe")
        return cast(y, gates.dtype), last

    def forward_cuda(self, gates: Any, h: Any, w_hh: Any) -> tuple[Any, ...]:
        return cuda.rnn(gates, h, w_hh, self.order(len(gates)), self.relu)

    def backward_cuda(self, dy: Any, dlast: Any) -> tuple[Any, ...]:
        y, w = self.output_array(0), self.input_array(2)
        dgates, dh = cuda.rnn_backward(dy, dlast, y, w, self.order(len(y)), self.relu)
        return dgates, dh, self.weight_gradient_cuda(dgates, y) if self.needs[2] else None

    def backward_cpu(self, dy: Array | None, dlast: Array | None) -> tuple[Array | None, ...]:
        h0, w = widen(self.input_array(1)), contiguous(widen(self.input_array(2)))
        y, order = widen(self.output_array(0)), self.order(len(self.output_array(0)))
        dgates, dh, room = empty(y.shape, y.dtype), beginning(dlast, h0), empty(h0.shape, y.dtype)
        parts = Rows(len(y), len(h0), 1, h0.shape[1])
        panels = panels_of(w, parts.most, len(y))

        def steps(rows: slice) -> None:
            dstate, spare = dh[rows], room[rows]
            for t in reversed(order):
                if dy is not None:
                    np.add(dstate, dy[t, rows], out=dstate)
                state, dgate = y[t, rows], dgates[t, rows]
                if self.relu:
                    np.multiply(dstate, state > 0, out=dgate)
                else:
                    np.subtract(1, np.multiply(state, state, out=spare), out=spare)
                    np.multiply(dstate, spare, out=dgate)
                multiply(dgate, panels, dstate)

        parts.run(lambda: steps)
        return dgates, dh, self.weight_gradient(dgates, y, h0) if self.needs[2] else None


class Lstm(Recurrence):
    """The LSTM of `lstm_cell`.  Inputs: gates, h, c, w_hh and, to project h, w_hr."""

    saved_outputs = (0,)

    def states(self) -> int:
        return 2

    def step(self, gates: Tensor, state: tuple[Tensor, ...], rest: Sequence[Tensor]
             ) -> tuple[Tensor, ...]:
        h, c = state
        return lstm_step(gates, h, c, rest[0], None, rest[1] if len(rest) > 1 else None)

    def forward(self, gates: Array, h: Array, c: Array, w_hh: Array, w_hr: Array | None = None
                ) -> tuple[Array, ...]:
        x = widen(gates)
        steps, n, hidden = len(x), len(c), c.shape[1]
        plan = LstmSteps(self.order(steps), n, hidden, x.dtype)
        y = empty((steps, n, h.shape[1]), x.dtype)
        kept = steps if self.recording else 2
        acts, cells = empty((kept, n, 4 * hidden), x.dtype), empty((kept, n, hidden), x.dtype)
        last = empty(h.shape, gates.dtype), empty(c.shape, gates.dtype)
        plan.forward(x, widen(h), widen(c), contiguous(widen(w_hh)),
                     None if w_hr is None else contiguous(widen(w_hr)), y, acts, cells, last)
        self.stash(acts=acts, cells=cells)
        return cast(y, gates.dtype), *last

    def forward_cuda(self, gates: Any, h: Any, c: Any, w_hh: Any, w_hr: Any = None
                     ) -> tuple[Any, ...]:
        *outputs, acts, cells = cuda.lstm(gates, h, c, w_hh, w_hr, self.order(len(gates)),
                                          self.recording)
        self.stash(acts=acts, cells=cells)
        return tuple(outputs)

    def backward_cuda(self, dy: Any, dh: Any, dc: Any) -> tuple[Any, ...]:
        y, w, *projection = (self.output_array(0),
                             *(self.input_array(k) for k in range(3, len(self.needs))))
        dgates, dh, dc, dw_hr = cuda.lstm_backward(
            dy, dh, dc, self.acts, self.cells, self.input_array(2), w,
            projection[0] if projection else None, self.order(len(y)))
        dw = self.weight_gradient_cuda(dgates, y) if self.needs[3] else None
        return dgates, dh, dc, dw, *((dw_hr,) if projection else ())

    def backward_cpu(self, dy: Array | None, dh: Array | None, dc: Array | None
                     ) -> tuple[Array | None, ...]:
        h0, c0, w, *projection = (widen(self.input_array(k)) for k in range(1, len(self.needs)))
        y = widen(self.output_array(0))
        dh, dc = beginning(dh, h0), beginning(dc, c0)
        (steps, n), hidden = y.shape[:2], c0.shape[1]
        plan = LstmSteps(self.order(steps), n, hidden, y.dtype)
        dgates = empty((steps, n, 4 * hidden), y.dtype)
        dout, outs = ((empty(y.shape, y.dtype), empty((steps, n, hidden), y.dtype)) if projection
                      else (None, None))
        plan.backward(dy, dh, dc, c0, w, projection[0] if projection else None, self.acts,
                      self.cells, dgates, dout, outs)
        dw = self.weight_gradient(dgates, y, h0) if self.needs[3] else None
        if dout is None or outs is None:
            return dgates, dh, dc, dw
        return dgates, dh, dc, dw, gemm(dout.reshape(-1, dout.shape[-1]).T,
                                        outs.reshape(-1, hidden))


class Gru(Recurrence):
    """The GRU of `gru_cell`.  Inputs: gates, h, w_hh and, where there is one, b_hh."""

    saved_outputs = (0,)

    def step(self, gates: Tensor, state: tuple[Tensor, ...], rest: Sequence[Tensor]
             ) -> tuple[Tensor, ...]:
        return (gru_step(gates, state[0], rest[0], rest[1] if len(rest) > 1 else None),)

    def forward(self, gates: Array, h: Array, w_hh: Array, b_hh: Array | None = None
                ) -> tuple[Array, ...]:
        x, first, w = widen(gates), widen(h), widen(w_hh)
        bias = None if b_hh is None else widen(b_hh)
        steps, n, hidden = len(x), len(h), h.shape[1]
        y = empty((steps, n, hidden), x.dtype)
        kept = steps if self.recording else 1
        # Of each step: reset, update and new, and what reset multiplies.
        acts, inner = empty((kept, n, 3 * hidden), x.dtype), empty((kept, n, hidden), x.dtype)
        order, fast = self.order(steps), cpu_gru.loops(steps, n, hidden)
        if fast is not None:
            cpu_gru.forward(fast, x, first, contiguous(w), bias, y, acts, inner, order)
        else:
            self._steps(x, first, w, bias, y, acts, inner)
        self.stash(acts=acts, inner=inner)
        last = empty(first.shape, gates.dtype)
        np.copyto(last, y[order[-1]] if order else first, casting="unsafe")
        return cast(y, gates.dtype), last

    def _steps(self, x: Array, first: Array, w: Array, bias: Array | None, y: Array, acts: Array,
               inner: Array) -> None:
        (count, n, hidden), kept, order = y.shape, len(acts), self.order(len(x))
        parts = Rows(count, n, 3, hidden)
        panels = panels_of(w.T, parts.most, count)

        def steps(rows: slice) -> None:
            state = first[rows]
            for t in order:
                act, part, out = acts[t % kept, rows], inner[t % kept, rows], y[t, rows]
                given = x[t, rows]
                multiply(state, panels, act)
                if bias is not None:
                    np.add(act, bias, out=act)
                both, update, new = (act[:, :2 * hidden], act[:, hidden:2 * hidden],
                                     act[:, 2 * hidden:])
                np.copyto(part, new)
                sigmoid(np.add(both, given[:, :2 * hidden], out=both))
                np.multiply(act[:, :hidden], part, out=new)
                np.tanh(np.add(new, given[:, 2 * hidden:], out=new), out=new)
                np.multiply(np.subtract(state, new, out=out), update, out=out)
                state = np.add(out, new, out=out)

        parts.run(lambda: steps)

    def forward_cuda(self, gates: Any, h: Any, w_hh: Any, b_hh: Any = None) -> tuple[Any, ...]:
        *outputs, acts, inner = cuda.gru(gates, h, w_hh, b_hh, self.order(len(gates)),
                                         self.recording)
        self.stash(acts=acts, inner=inner)
        return tuple(outputs)

    def backward_cuda(self, dy: Any, dlast: Any) -> tuple[Any, ...]:
        y, h0, w = self.output_array(0), self.input_array(1), self.input_array(2)
        dgates, dh, dinner = cuda.gru_backward(dy, dlast, y, h0, self.acts, self.inner, w,
                                               self.order(len(y)))
        biased = len(self.needs) > 3 and self.needs[3]
        dw = db = None
        if self.needs[2]:
            dw, db = cuda.weight_gradient(dinner, y, h0, self.reverse, biased)
        elif biased:
            db = cuda.bias_gradient(dinner)
        return dgates, dh, dw, *((db,) if len(self.needs) > 3 else ())

    def backward_cpu(self, dy: Array | None, dlast: Array | None) -> tuple[Array | None, ...]:
        h0, w = widen(self.input_array(1)), contiguous(widen(self.input_array(2)))
        y, acts, inner = widen(self.output_array(0)), self.acts, self.inner
        order = self.order(len(y))
        dgates, dinner = empty(acts.shape, acts.dtype), empty(acts.shape, acts.dtype)
        dh, fast = beginning(dlast, h0), cpu_gru.loops(*y.shape)
        if fast is not None:
            cpu_gru.backward(fast, dy, dh, h0, w, y, acts, inner, dgates, dinner, order)
        else:
            self._back(dy, dh, h0, w, y, dgates, dinner)
        dw = self.weight_gradient(dinner, y, h0) if self.needs[2] else None
        if len(self.needs) == 3:
            return dgates, dh, dw
        db = column_sums(dinner.reshape(-1, len(w))) if self.needs[3] else None
        return dgates, dh, dw, db

    def _back(self, dy: Array | None, dh: Array, h0: Array, w: Array, y: Array, dgates: Array,
              dinner: Array) -> None:
        acts, inner, order = self.acts, self.inner, self.order(len(y))
        (count, n, hidden), room = y.shape, empty(h0.shape, h0.dtype)
        parts = Rows(count, n, 3, hidden)
        panels = panels_of(w, parts.most, count)

        def steps(rows: slice) -> None:
            dstate, spare = dh[rows], room[rows]
            for at in range(count - 1, -1, -1):
                t = order[at]
                before = y[order[at - 1], rows] if at else h0[rows]
                if dy is not None:
                    np.add(dstate, dy[t, rows], out=dstate)
                act, dact, dpart = acts[t, rows], dgates[t, rows], dinner[t, rows]
                reset, update, new = (act[:, k * hidden:(k + 1) * hidden] for k in range(3))
                dreset, dupdate, dnew = (dact[:, k * hidden:(k + 1) * hidden] for k in range(3))
                np.multiply(np.subtract(1, update, out=spare), dstate, out=dnew)
                np.subtract(1, np.multiply(new, new, out=spare), out=spare)
                np.multiply(dnew, spare, out=dnew)
                np.multiply(np.subtract(before, new, out=spare), dstate, out=dupdate)
                through_sigmoid(dupdate, update, dupdate)
                through_sigmoid(np.multiply(dnew, inner[t, rows], out=dreset), reset, dreset)
                np.copyto(dpart, dact)
                np.multiply(dnew, reset, out=dpart[:, 2 * hidden:])
                np.multiply(dstate, update, out=dstate)
                np.add(dstate, multiply(dpart, panels, spare), out=dstate)

        parts.run(lambda: steps)


def layer(mode: str, x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor],
          bias: bool, reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer in one direction: x (steps, n, in) to (steps, n, hidden) and the last state.

    `mode` is "RNN_TANH", "RNN_RELU", "LSTM" or "GRU"; `weights` w_ih, w_hh, then with `bias` b_ih
    and b_hh, then for a projecting LSTM w_hr.
    """
    w_ih, w_hh, *rest = weights
    b_ih, b_hh = rest[:2] if bias else (None, None)
    projection = rest[2 * bias:]
    if mode == "GRU":
        more = () if b_hh is None else (b_hh,)
        y, *last = run(Gru(reverse), linear(x, w_ih, b_ih), *state, w_hh, *more)
        return y, tuple(last)
    gates = linear(x, w_ih, None if b_ih is None or b_hh is None else b_ih + b_hh)
    if mode == "LSTM":
        y, *last = run(Lstm(reverse), gates, *state, w_hh, *projection)
    else:
        y, *last = run(Rnn(reverse, mode == "RNN_RELU"), gates, *state, w_hh)
    return y, tuple(last)
