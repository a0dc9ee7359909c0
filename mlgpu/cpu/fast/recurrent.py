"""All steps of an LSTM in one call, products included.

Between its products a step has so little to do that calls from Python, of two threads at once,
would take longer.  Rows never meet and each sum is taken in order, so results do not depend on
how the rows are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import sigmoid, tanh

__all__ = ["backward", "forward", "lanes", "pack_columns", "pack_rows"]

Array = Any
_typed: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


def lanes(itemsize: int) -> int:
    """How many columns a panel of weights has."""
    return 64 // itemsize


# --- products ------------------------------------------------------------------------------------


def _tile(height: int) -> Any:
    """out = a @ panel for `height` rows of a.

    Takes a and the element at which its first row begins, the count of elements between two rows,
    a panel (depth, lanes) by its array and first element, the depth, and out as a.
    """
    @_typed
    def tile(context: Any, a: Any, a_first: Any, a_row: Any, panels: Any, p_first: Any, depth: Any,
             out: Any, o_first: Any, o_row: Any) -> Any:
        whole = types.intp
        item = a.dtype.bitwidth // 8

        def product(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), lanes(item))
            a, a_first, a_row, panels, p_first, depth, out, o_first, o_row = operands
            start, read, write = (
                builder.gep(context.make_array(t)(context, builder, value).data, [first])
                for t, value, first in zip((signature.args[0], signature.args[3],
                                            signature.args[6]), (a, panels, out),
                                           (a_first, p_first, o_first), strict=True))
            count = context.get_value_type(whole)
            rows = [builder.gep(start, [builder.mul(a_row, ir.Constant(count, row))])
                    for row in range(height)]
            step = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3),
                f"llvm.fmuladd.v{vector.count}{vector.element.intrinsic_name}")
            before = builder.block
            loop, done = builder.append_basic_block("depth"), builder.append_basic_block("done")
            zero = ir.Constant(vector, [0.0] * vector.count)
            builder.cbranch(builder.icmp_signed(">", depth, ir.Constant(count, 0)), loop, done)

            builder.position_at_end(loop)
            k = builder.phi(count)
            k.add_incoming(ir.Constant(count, 0), before)
            sums = [builder.phi(vector) for _ in rows]
            place = builder.mul(k, ir.Constant(count, vector.count))
            weights = builder.load(builder.bitcast(builder.gep(read, [place]),
                                                   vector.as_pointer()), align=item)
            following = []
            for total, row in zip(sums, rows, strict=True):
                total.add_incoming(zero, before)
                one = builder.insert_element(ir.Constant(vector, ir.Undefined),
                                             builder.load(builder.gep(row, [k])),
                                             ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(
                    one, ir.Constant(vector, ir.Undefined),
                    ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))
                following.append(builder.call(step, [spread, weights, total]))
            further = builder.add(k, ir.Constant(count, 1))
            k.add_incoming(further, loop)
            for total, new in zip(sums, following, strict=True):
                total.add_incoming(new, loop)
            builder.cbranch(builder.icmp_signed("<", further, depth), loop, done)

            builder.position_at_end(done)
            for row, new in enumerate(following):
                total = builder.phi(vector)
                total.add_incoming(zero, before)
                total.add_incoming(new, loop)
                following[row] = total
            for row, total in enumerate(following):
                place = builder.gep(write, [builder.mul(o_row, ir.Constant(count, row))])
                builder.store(total, builder.bitcast(place, vector.as_pointer()), align=item)
            return context.get_dummy_value()

        return types.void(a, whole, whole, panels, whole, whole, out, whole, whole), product

    return tile


# As many rows at once as leave room in the registers: each row of sums takes 64 bytes.
_MANY = 8 if _WIDE else 4
_many, _pair, _single = _tile(_MANY), _tile(2), _tile(1)


@inlined
def _multiply(a: Array, first: int, panels: Array, out: Array) -> None:
    """out (rows, columns) = the matrix a, from row `first` on, times the panels."""
    rows, width, depth, across = len(out), a.shape[1], panels.shape[1], panels.shape[2]
    wide = out.shape[1]
    for panel in range(len(panels)):
        weights, place, row = panel * depth * across, panel * across, 0
        while row + _MANY <= rows:
            _many(a, (first + row) * width, width, panels, weights, depth, out,
                  row * wide + place, wide)
            row += _MANY
        while row + 2 <= rows:
            _pair(a, (first + row) * width, width, panels, weights, depth, out,
                  row * wide + place, wide)
            row += 2
        if row < rows:
            _single(a, (first + row) * width, width, panels, weights, depth, out,
                    row * wide + place, wide)


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
