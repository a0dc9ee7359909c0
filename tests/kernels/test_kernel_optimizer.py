"""The kernels over many tensors at once: CPU's numbers to the bit, and what they move."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import _kernel, machine

from mlgpu.cpu.optimizer import AdamRule, SgdRule, power, update
from mlgpu.cuda.types import ctype

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
CHUNK, COLUMNS = 16384, 8
SIZES = [5, 0, 16384, 16391, 1, 300]
SETTINGS = np.dtype([(n, "f8") for n in ("lr", "decay", "eps", "beta1", "beta2", "rest",
                                         "root")] + [(n, "i8") for n in ("lr_cell", "beta1_cell",
                                                                           "flags")])
MAXIMIZE, DECOUPLED, NESTEROV, BEGINS, LR_DOUBLE = 1, 2, 4, 8, 16


def name(dtype):
    return np.dtype(dtype).name


class Many:
    """Lists of arrays on a simulated device, and the tables that kernels find them by."""

    def __init__(self, arrays, steps=None, settings=None, shift=0, arch="sm_90"):
        """`arrays`: per tensor those that a row lists, the gradient last; `shift`: of addresses."""
        self.machine, self.arch, self.shift = machine(arch), arch, shift
        self.dtype = arrays[0][0].dtype
        self.buffers = [[self.put(a) for a in each] for each in arrays]
        self.steps = None if steps is None else [self.machine.array(np.float32([s]))
                                                 for s in steps]
        table = np.zeros((len(arrays), COLUMNS), np.int64)
        start = 0
        for i, each in enumerate(self.buffers):
            for column, buffer in enumerate(each[:-1]):
                table[i, column] = buffer.ptr + shift
            table[i, 4] = 0 if steps is None else self.steps[i].ptr
            table[i, 5:8] = arrays[i][0].size, start, 0 if settings is None else settings[i]
            start += -(-arrays[i][0].size // CHUNK)
        self.blocks = start
        self.table = self.machine.array(table)
        self.grads = self.machine.array(np.int64([each[-1].ptr + shift for each in self.buffers]))
        counts = [-(-each[0].size // CHUNK) for each in arrays]
        self.map = self.machine.array(np.repeat(np.arange(len(arrays)), counts).astype(np.int32)
                                      if start else np.int32([-1]))

    def put(self, array):
        room = np.zeros(array.nbytes + 2 * self.shift, np.uint8)
        room[self.shift:self.shift + array.nbytes] = array.reshape(-1).view(np.uint8)
        return self.machine.array(room)

    def get(self, tensor, which):
        held = self.buffers[tensor][which].numpy()
        return held[self.shift:held.size - self.shift].view(self.dtype)

    def launch(self, kernel, grid, args):
        return _kernel("optimizer", kernel, self.arch)[0].launch(grid, 256, args)

    def step(self, kernel, args):
        return self.launch(kernel, max(self.blocks, 1), (self.table, self.grads, self.map, *args))


def settings(*rows):
    table = np.zeros(16, SETTINGS)
    for row, values in zip(table, rows, strict=False):
        for key, value in values.items():
            row[key] = value
    return np.frombuffer(table.tobytes(), np.void(table.tobytes()).dtype)[0]


def problem(dtype, count, sizes=SIZES):
    rng = np.random.default_rng(0)
    arrays = [[rng.standard_normal(n).astype(dtype) for _ in range(count)] for n in sizes]
    for each in arrays:
        for state in each[2:-1]:  # squares
            np.abs(state, out=state)
    return arrays


def adam_row(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-3, decay=0.1, flags=0, step=3, cell=0):
    return {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "decay": decay, "flags": flags,
            "lr_cell": cell, "rest": 1 - power(beta1, step),
            "root": np.sqrt(1 - power(beta2, step))}


def test_cells_advance():
    many = Many([[np.zeros(1, np.float32)] * 2])
    rows = np.arange(1.0, 1 + 3 * 300).reshape(3, 300)
    cells = many.machine.zeros(300, np.float64)
    table = many.machine.array(np.concatenate([[0.0], rows.ravel()]))
    for row in rows:
        many.launch("advance", 1, (cells, table, np.int32(300)))
        np.testing.assert_array_equal(cells.numpy(), row)
    assert table.numpy()[0] == 3


def adam_expected(each, row, step):
    rule = AdamRule(row["lr"], row["beta1"], row["beta2"], row["eps"], row["decay"],
                  bool(row["flags"] & DECOUPLED), bool(row["flags"] & MAXIMIZE), step)
    copies = [a.copy() for a in each]
    with np.errstate(all="ignore"):
        update([rule], [copies[:-1]], copies[-1:])
    return copies


def same(many, tensor, expected):
    for which, array in enumerate(expected):
        np.testing.assert_array_equal(many.get(tensor, which).astype(float), array.astype(float))


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
@pytest.mark.parametrize("peak", [False, True])
def test_adam(dtype, peak):
    arrays = problem(dtype, 5 if peak else 4)
    arrays[0][-1][:2] = np.nan, np.inf
    rows = [adam_row(), adam_row(lr=0.1, flags=DECOUPLED | MAXIMIZE, decay=0.3), adam_row(decay=0)]
    which = [0, 1, 2, 0, 1, 2]
    for shift in (0, 8):
        many = Many(arrays, settings=which, shift=shift)
        many.step(f"adam_step<{ctype(np.dtype(dtype))}, {str(peak).lower()}>",
                  (settings(*rows), 0, 0, np.int32(len(SIZES)), np.bool_(False), 0))
        for t, each in enumerate(arrays):
            same(many, t, adam_expected(each, rows[which[t]], 3))


@pytest.mark.parametrize("double", [False, True])
def test_adam_with_values_on_the_device(double):
    arrays, counts = problem(np.float32, 4), [2.0, 7.0, 2.0, 0.0, 99.0, 2.0]
    row = adam_row(lr=0.5, flags=DECOUPLED | (LR_DOUBLE if double else 0))
    many = Many(arrays, steps=counts)
    rate = many.machine.array(np.array([0.03], np.float64 if double else np.float32))
    ticket, factor = (many.machine.array(a) for a in (np.uint32([0]), np.float32([0.5])))
    found = many.machine.zeros(1, np.float32)
    beta1 = many.machine.array(np.float64([row["beta1"]]))
    table = settings({**row, "beta1": 0, "rest": 0, "root": 0, "lr_cell": rate.ptr,
                      "beta1_cell": beta1.ptr})
    lr = 0.03 if double else float(np.float32(0.03))
    expected = [[a.copy() for a in each] for each in arrays]
    for turn in range(2):
        many.step("adam_step<float, false>",
                  (table, factor, found, np.int32(len(SIZES)), np.bool_(True), ticket))
        for t, each in enumerate(expected):
            scaled = [*each[:-1], each[-1] * np.float32(0.5)]
            each[:-1] = adam_expected(scaled, {**row, "lr": lr}, counts[t] + turn + 1)[:-1]
            same(many, t, each)
        assert [s.numpy()[0] for s in many.steps] == [c + turn + 1 for c in counts]
    found.set(np.float32([1]))
    report = many.step("adam_step<float, false>",
                       (table, factor, found, np.int32(len(SIZES)), np.bool_(True), ticket))
    assert report.metrics["unique_bytes_written"] == 0
    same(many, 3, expected[3])


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_sgd(dtype):
    for count in (2, 3):
        arrays = problem(dtype, count)
        rows = [{"lr": 0.1}, {"lr": 0.2, "decay": 0.1, "flags": MAXIMIZE, "beta1": 0.9},
                {"lr": 0.3, "beta1": 0.5, "beta2": 0.3, "flags": BEGINS},
                {"lr": 0.3, "beta1": 0.5, "decay": 0.1, "flags": NESTEROV}]
        which = [0, 1, 2, 3, 1, 2]
        for shift in (0, 8):
            many = Many(arrays, settings=which, shift=shift)
            many.step(f"sgd_step<{ctype(np.dtype(dtype))}, {str(count == 3).lower()}>",
                      (settings(*rows), 0, 0))
            for t, each in enumerate(arrays):
                row = {"decay": 0, "beta1": 0, "beta2": 0, "flags": 0} | rows[which[t]]
                copies = [a.copy() for a in each]
                rule = SgdRule(row["lr"], row["beta1"], row["beta2"], row["decay"],
                             bool(row["flags"] & NESTEROV), bool(row["flags"] & MAXIMIZE),
                             bool(row["flags"] & BEGINS))
                update([rule], [copies[:-1]], copies[-1:])
                same(many, t, copies)


def test_a_sum_that_begins_is_not_read():
    arrays = problem(np.float32, 3, [100])
    many = Many(arrays)
    fresh = many.machine.empty(100, np.float32)
    table = many.table.numpy()
    table[0, 1] = fresh.ptr
    many.table.set(table)
    many.step("sgd_step<float, true>", (settings({"lr": 1, "beta1": 1, "flags": BEGINS}), 0, 0))
    np.testing.assert_array_equal(fresh.numpy(), arrays[0][-1])


NORMS = {"0": 2.0, "1": 1.0, "2": np.inf, "3": -np.inf, "4": 3.0}


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_norm(dtype):
    arrays = problem(dtype, 1, [5, 16384, 40003, 1])
    flat = np.concatenate([each[0] for each in arrays]).astype(np.float64)
    wide = np.float64 if dtype is np.float64 else np.float32
    tolerance = {2: 1e-2, 4: 1e-6, 8: 1e-13}[np.dtype(dtype).itemsize]
    for kind, p in NORMS.items():
        found = []
        for shift in (0, 8):
            many = Many(arrays, shift=shift)
            parts, norm = many.machine.empty(many.blocks, wide), many.machine.empty(2, np.uint8)
            norm = many.machine.empty(1, np.dtype(dtype))
            many.launch(f"grads_norm_parts<{ctype(np.dtype(dtype))}, {kind}>", many.blocks,
                        (parts, many.table, many.grads, many.map, np.float64(p)))
            many.launch(f"grads_norm<{ctype(np.dtype(dtype))}, {kind}>", 1,
                        (norm, parts, np.int32(many.blocks), np.float64(p)))
            found.append(norm.numpy().astype(float)[0])
        exact = np.linalg.norm(flat, p)
        assert found[0] == found[1]
        if dtype is np.float16 and exact > 65504:
            assert found[0] == np.inf
        else:
            assert found[0] == pytest.approx(exact, rel=tolerance)


def test_norms_of_what_is_not_finite():
    for value, kind, expected in ((np.nan, 2, np.nan), (np.nan, 3, np.nan), (np.inf, 0, np.inf),
                                  (np.nan, 0, np.nan), (-np.inf, 2, np.inf)):
        grad = np.ones(300, np.float32)
        grad[77] = value
        many = Many([[grad]])
        parts, norm = many.machine.empty(1, np.float32), many.machine.empty(1, np.float32)
        many.launch(f"grads_norm_parts<float, {kind}>", 1,
                    (parts, many.table, many.grads, many.map, np.float64(2)))
        many.launch(f"grads_norm<float, {kind}>", 1, (norm, parts, np.int32(1), np.float64(2)))
        np.testing.assert_equal(norm.numpy()[0], np.float32(expected))


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_clip_unscale_and_clamp(dtype):
    kind, wide = ctype(np.dtype(dtype)), np.float64 if dtype is np.float64 else np.float32
    arrays = problem(dtype, 1)
    for shift in (0, 8):
        for norm, limit in ((4.0, 1.0), (0.5, 1.0), (np.nan, 1.0)):
            many = Many(arrays, shift=shift)
            held = many.machine.array(np.array([norm], dtype))
            many.step(f"grads_clip<{kind}, {kind}>", (held, np.float64(limit)))
            shifted = dtype(wide(dtype(norm)) + wide(1e-6))
            factor = np.minimum(dtype(wide(limit) / wide(shifted)), dtype(1)).astype(wide)
            for t, each in enumerate(arrays):
                same(many, t, [(each[0].astype(wide) * factor).astype(dtype)])
        many = Many(arrays, shift=shift)
        scale, found = (many.machine.array(np.float32([x])) for x in (0.25, 0))
        many.step(f"grads_unscale<{kind}>", (scale, found))
        assert found.numpy()[0] == 0
        for t, each in enumerate(arrays):
            same(many, t, [(each[0].astype(wide) * wide(0.25)).astype(dtype)])
        many.step(f"grads_clamp<{kind}>", (np.float64(0.1),))
        for t, each in enumerate(arrays):
            quarter = (each[0].astype(wide) * wide(0.25)).astype(dtype).astype(wide)
            same(many, t, [np.clip(quarter, -wide(0.1), wide(0.1)).astype(dtype)])
    for value in (np.inf, -np.inf, np.nan):
        arrays[3][0][16390] = value
        many = Many(arrays)
        scale, found = (many.machine.array(np.float32([x])) for x in (0.25, 0))
        many.step(f"grads_unscale<{kind}>", (scale, found))
        assert found.numpy()[0] == 1


def test_nothing_but_empty_tensors():
    many = Many([[np.zeros(0, np.float32)] * 4] * 2, steps=[1, 2])
    ticket = many.machine.zeros(1, np.uint32)
    many.step("adam_step<float, false>",
              (settings(adam_row()), 0, 0, np.int32(2), np.bool_(True), ticket))
    assert [s.numpy()[0] for s in many.steps] == [2, 3]


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_bytes_and_registers(dtype):
    size, kind = 2 * CHUNK, ctype(np.dtype(dtype))
    arrays = problem(dtype, 5, [size])
    bytes = size * np.dtype(dtype).itemsize
    wide = np.float64 if dtype is np.float64 else np.float32
    scale = machine("sm_90").array(np.float32([0.5]))
    parts = machine("sm_90").empty(2, wide)
    norm = machine("sm_90").array(np.array([4.0], dtype))
    for kernel, count, read, written, args in [
            (f"adam_step<{kind}, false>", 4, 4, 3,
             (settings(adam_row()), 0, 0, np.int32(1), np.bool_(False), 0)),
            (f"adam_step<{kind}, true>", 5, 5, 4,
             (settings(adam_row()), 0, 0, np.int32(1), np.bool_(False), 0)),
            (f"sgd_step<{kind}, true>", 3, 3, 2, (settings({"lr": 0.1, "beta1": 0.9}), 0, 0)),
            (f"sgd_step<{kind}, false>", 2, 2, 1, (settings({"lr": 0.1}), 0, 0)),
            (f"grads_unscale<{kind}>", 1, 1, 1, (scale, scale)),
            (f"grads_clip<{kind}, {kind}>", 1, 1, 1, (norm, np.float64(1))),
            (f"grads_norm_parts<{kind}, 0>", 1, 1, 0, None)]:
        many = Many([each[:count] for each in arrays])
        if args is None:
            report = many.launch(kernel, 2, (parts, many.table, many.grads, many.map,
                                             np.float64(2)))
        else:
            report = many.step(kernel, args)
        metrics = report.metrics
        assert metrics["dram_bytes"] <= 1.001 * (read + written) * bytes + 512, kernel
        assert metrics["global_store_sectors"] <= written * bytes // 32 + 2, kernel
        assert metrics["global_load_sectors"] <= 1.05 * read * bytes // 32, kernel
        assert metrics["spill_stores"] == metrics["spill_loads"] == 0, kernel
        assert metrics["local_load_instructions"] == metrics["local_store_instructions"] == 0
        assert metrics["stack"] == 0, kernel
        assert metrics["registers"] <= 96, kernel


@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
def test_elsewhere(arch):
    arrays = problem(np.float32, 4, [5, 16385])
    many = Many(arrays, arch=arch)
    many.step("adam_step<float, false>",
              (settings(adam_row()), 0, 0, np.int32(2), np.bool_(False), 0))
    for t, each in enumerate(arrays):
        same(many, t, adam_expected(each, adam_row(), 3))
