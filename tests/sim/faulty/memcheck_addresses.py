"""Addresses that are misaligned, null, stale or read-only."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "memcheck_addresses.cu"
X = np.arange(1000, dtype=np.float32)


@fault(SOURCE)
def misaligned_float4(m: sim.Machine, mod: Any) -> None:
    x, sums = X[:165].reshape(5, 33), m.zeros(5, np.float32)
    mod.kernel("misaligned_float4").launch(5, 32, (m.array(x), sums, np.int32(33)))
    expect(sums, x.sum(1))


@fault(SOURCE)
def misaligned_half2(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(65, dtype=np.float16), m.zeros(64, np.float16)
    mod.kernel("misaligned_half2").launch(1, 64, (m.array(x), y, np.int32(65)))
    expect(y, np.stack([x[1::2] + x[2::2], x[1::2] - x[2::2]], 1))


@fault(SOURCE)
def misaligned_atomic(m: sim.Machine, mod: Any) -> None:
    records = m.zeros((4, 2), np.uint64)
    mod.kernel("misaligned_atomic").launch(1, 32, (records, np.int32(30)))
    expect(records, [[0, 8], [0, 8], [0, 7], [0, 7]])


@fault(SOURCE)
def missing_bias(m: sim.Machine, mod: Any) -> None:
    y = m.empty(100, np.float32)
    mod.kernel("missing_bias").launch(1, 128, (m.array(X[:100]), 0, y, np.int32(100)))
    expect(y, X[:100])


@fault(SOURCE)
def buffer_was_freed(m: sim.Machine, mod: Any) -> None:
    old, y = m.array(X), m.empty(1000, np.float32)
    address, grown = old.ptr, m.array(X + 5)
    old.free()
    mod.kernel("buffer_was_freed").launch(4, 256, (address, grown, y, np.int32(1000)))
    expect(y, X + 6)


@fault(SOURCE)
def empty_tensor_in_table(m: sim.Machine, mod: Any) -> None:
    a, b = m.array(X[:10]), m.array(X[:30] - 50)
    table = m.array(np.array([a.ptr, 0, b.ptr], np.uint64))
    sizes, greatest = m.array(np.array([10, 0, 30], np.int32)), m.empty(3, np.float32)
    mod.kernel("empty_tensor_in_table").launch(3, 32, (table, sizes, greatest))
    expect(greatest, [9, -1, -21])


@fault(SOURCE)
def stride_of_table(m: sim.Machine, mod: Any) -> None:
    x, table = m.array(X[:320].reshape(5, 64)), m.empty(5, np.uint64)
    mod.kernel("make_table").launch(1, 5, (table, x, np.int32(64)))
    mod.kernel("stride_of_table").launch(5, 64, (table, np.float32(3)))
    expect(x, 3 * X[:320])


@fault(SOURCE)
def layout_of_struct(m: sim.Machine, mod: Any) -> None:
    weight, moment = m.array(X[:100]), m.array(X[:100] / 2)
    layout = np.dtype([("weight", np.uint64), ("moment", np.uint64), ("step", np.uint64)])
    state = np.array((weight.ptr, moment.ptr, 0), layout)[()]
    mod.kernel("layout_of_struct").launch(1, 128, (state, np.int32(100)))
    expect(weight, X[:100] / 2)


@fault(SOURCE)
def write_to_constant(m: sim.Machine, mod: Any) -> None:
    mod.symbol("taps").set(X[:8])
    mod.symbol("weights").set(X[:8] + 1)
    mod.kernel("write_to_constant").launch(2, 8, (np.float32(3),))
    expect(mod.symbol("weights", np.float32), 3 * X[:8] + 3)
    expect(mod.symbol("taps", np.float32), 3 * X[:8])


@fault(SOURCE)
def past_the_constants(m: sim.Machine, mod: Any) -> None:
    mod.symbol("scales").set(X[:16])
    group = np.arange(20, dtype=np.int32)
    y = m.empty(20, np.float32)
    mod.kernel("past_the_constants").launch(1, 32, (m.array(group), y, np.int32(20)))
    expect(y, np.where(group < 16, group, 1))


@fault(SOURCE)
def past_a_module_variable(m: sim.Machine, mod: Any) -> None:
    mod.kernel("past_a_module_variable").launch(1, 64, (np.int32(40),))
    expect(mod.symbol("recent", np.int32), np.roll(np.arange(64), 40))
