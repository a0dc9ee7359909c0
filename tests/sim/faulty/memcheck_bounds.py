"""Accesses outside a buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "memcheck_bounds.cu"
X = np.arange(1000, dtype=np.float32)


@fault(SOURCE)
def tail_one_past(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("tail_one_past").launch(4, 256, (m.array(X), y, np.int32(1000)))
    expect(y, 2 * X)


@fault(SOURCE)
def last_block_unguarded(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("last_block_unguarded").launch(8, 128, (m.array(X - 500), y, np.int32(1000)))
    expect(y, np.maximum(X - 500, 0))


@fault(SOURCE)
def pitch_in_elements(m: sim.Machine, mod: Any) -> None:
    image = m.zeros((6, 64), np.float32)  # rows of 60 in places of 64
    args = (image, np.int32(60), np.int32(6), np.int32(256))
    mod.kernel("pitch_in_elements").launch((2, 6), 32, args)
    row, col = np.mgrid[:6, :64]
    expect(image, np.where(col < 60, row + 0.5 * col, 0))


@fault(SOURCE)
def halo_at_the_border(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("halo_at_the_border").launch(4, 256, (m.array(X), y, np.int32(1000)))
    expect(y, np.convolve(X, [0.25, 0.5, 0.25], "same"))


@fault(SOURCE)
def index_overflow(m: sim.Machine, mod: Any) -> None:
    n_in, n_out = 40_000, 70_000
    x, y = np.arange(n_in, dtype=np.float32), m.empty(n_out, np.float32)
    args = (m.array(x), y, np.int32(n_in), np.int32(n_out))
    mod.kernel("index_overflow").launch(274, 256, args)
    expect(y, x[np.arange(n_out) * n_in // n_out])


@fault(SOURCE)
def swapped_sizes(m: sim.Machine, mod: Any) -> None:
    x = X[:960].reshape(60, 16)
    sums = m.empty(16, np.float32)
    mod.kernel("swapped_sizes").launch(1, 64, (m.array(x), sums, np.int32(60), np.int32(16)))
    expect(sums, x.sum(0))


@fault(SOURCE)
def bytes_on_an_int_pointer(m: sim.Machine, mod: Any) -> None:
    file, body = np.arange(116, dtype=np.int32), m.empty(100, np.int32)
    args = (m.array(file), np.int32(64), body, np.int32(100))
    mod.kernel("bytes_on_an_int_pointer").launch(1, 128, args)
    expect(body, file[16:])


@fault(SOURCE)
def planes_not_contiguous(m: sim.Machine, mod: Any) -> None:
    re, im = m.empty(1000, np.float32), m.zeros(1000, np.float32)
    mod.kernel("planes_not_contiguous").launch(4, 256, (m.array(X), re, im, np.int32(1000)))
    expect(re, 2 * X)
    expect(im, 3 * X)


@fault(SOURCE)
def histogram_upper_edge(m: sim.Machine, mod: Any) -> None:
    x = np.array([0, 1, 2.5, 7, 8, 8, 3, 3], np.float32)
    bins = m.zeros(4, np.uint32)
    args = (m.array(x), np.int32(8), np.float32(0), np.float32(8), bins, np.int32(4))
    mod.kernel("histogram_upper_edge").launch(1, 32, args)
    expect(bins, np.histogram(x, 4, (0, 8))[0])


@fault(SOURCE)
def vector_store_past_end(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1002, np.float32)
    args = (y, np.int32(1002), np.float32(7))
    mod.kernel("vector_store_past_end").launch(2, 128, args)
    expect(y, np.full(1002, 7))


@fault(SOURCE)
def padding_token(m: sim.Machine, mod: Any) -> None:
    table, ids = X[:640].reshape(20, 32), np.array([3, 19, -1, 0, -1], np.int32)
    y = m.empty((5, 32), np.float32)
    mod.kernel("padding_token").launch(5, 32, (m.array(table), m.array(ids), y, np.int32(32)))
    expect(y, np.where(ids[:, None] < 0, 0, table[ids]))


@fault(SOURCE)
def unsigned_underflow(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    args = (m.array(X + 1), y, np.uint32(1000), np.uint32(10))
    mod.kernel("unsigned_underflow").launch(4, 256, args)
    expect(y, np.concatenate([np.zeros(10), X[:990] + 1]))


@fault(SOURCE)
def packed_triangle(m: sim.Machine, mod: Any) -> None:
    n = 20
    full = np.add.outer(X[:n], X[:n]) + np.multiply.outer(X[:n], X[:n])
    out = m.empty((n, n), np.float32)
    args = (m.array(full[np.triu_indices(n)]), out, np.int32(n))
    mod.kernel("packed_triangle").launch(n, n, args)
    expect(out, full)
