"""Sorting of keys, and sums of the rows of each key, against NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.types import ctype

OPS = {"sum": 0, "prod": 1, "max": 2, "min": 3, "mean": 4}


def cell():
    return np.zeros(3, np.int64)


def sort(index, bound, dtype=np.int32, skip=-1, wrap=False, fault=None, word=np.uint32):
    """Keys in order, and their positions."""
    n, bits = index.size, max(1, int(bound).bit_length())
    fault = cell() if fault is None else fault
    item = 2 * np.dtype(dtype).itemsize
    each = (44 << 10) // (512 * item)
    kinds = f"{ctype(index.dtype)}, {ctype(np.dtype(dtype))}"
    keys, positions = np.full(n, -7, dtype), np.full(n, -7, dtype)
    if n <= 512 * each:
        each = 3 if n <= 1536 else each
        report = launch("segment", f"sort_tile<{kinds}, {each}>", 1, 512,
                        (index, keys, positions, n, bound, skip, wrap, bits, fault, 3),
                        512 * each * item)
        return keys, positions, [report]
    tiles, passes = -(-n // (512 * each)), -(-bits // 8)
    totals = np.zeros((passes, 256), word)
    kinds += {4: ", unsigned", 8: ", unsigned long long"}[np.dtype(word).itemsize]
    reports = [launch("segment", f"count_digits<{kinds}>", tiles, 512, (
        index, totals, n, tiles, passes, bits, bound, skip, wrap, fault, 3))]
    steps = np.zeros(passes, word)
    word_name = kinds.rpartition(", ")[2]
    reports.append(launch("segment", f"plan_passes<{word_name}>", 1, 256,
                          (totals, steps, 1, n, passes)))
    work = np.zeros(2 * -(-n // 8) * 8 * item, np.uint8)
    for number in range(passes):
        reports.append(launch(
            "segment", f"move_keys<{kinds}>", tiles, 512,
            (index, work, keys, positions, totals[number].copy(), steps,
             np.zeros((tiles, 256), word), np.zeros(1, word), n, tiles, number, passes, bits,
             bound, skip, wrap), 512 * each * item))
    return keys, positions, reports


@pytest.mark.parametrize(("n", "bound", "dtype", "word"), [
    (1, 1, np.int32, np.uint32), (100, 3, np.int32, np.uint32),
    (2048, 300, np.int64, np.uint32), (5782, 70000, np.int32, np.uint64),
    (2710, 2, np.int64, np.uint64), (5270, 31, np.int64, np.uint32)])
def test_sort(n, bound, dtype, word):
    index = np.random.default_rng(n).integers(0, bound, n)
    keys, positions, _ = sort(index, bound, dtype, word=word)
    order = np.argsort(index, kind="stable")
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(keys, index[order])


def test_bytes_of_a_sort():
    """The index is read twice; a pass moves keys and positions, and tables of its digits."""
    index = np.random.default_rng(0).integers(0, 50000, 22528)
    _, _, reports = sort(index, 50000)
    moved = sum(r.metrics["dram_bytes"] for r in reports)
    tables = 2 * (3 * 4 * 256 + 4 * 4 * 256)  # of two passes and four tiles
    assert moved <= 1.05 * (16 + 8 + 8 + 8) * index.size + 2 * tables
    for report in reports:
        found = report.metrics
        assert found["spill_stores"] == 0
        assert found["shared_wavefronts"] <= 1.01 * found["shared_wavefronts_ideal"]


@pytest.mark.parametrize("n", [300, 3000, 5782])
def test_wrong_and_skipped_indices_come_last(n):
    index = np.random.default_rng(0).integers(-5, 5, n).astype(np.int32)
    fault = cell()
    keys, positions, _ = sort(index, 5, skip=2, wrap=True, fault=fault)
    want = np.where(index % 5 == 2, 5, index % 5)
    np.testing.assert_array_equal(positions, np.argsort(want, kind="stable"))
    assert fault[0] == 0
    index[7] = 5
    keys, _, _ = sort(index, 5, fault=fault)
    assert fault.view(np.int32)[:2].tolist() == [1, 3]
    assert fault[2] == 5
    assert (keys == 5).sum() == (index < 0).sum() + (index == 5).sum()


def wide(dtype):
    if dtype == np.bool_ or np.dtype(dtype).kind in "iu":
        return np.dtype(np.int64)
    return np.dtype(np.float32) if np.dtype(dtype).itemsize == 2 else np.dtype(dtype)


def combine(out, values, index, bound, op="sum", width=0, keep=False, source=None, scale=None):
    """out[o, index[r], :] from values[o, r, :]; width 0 is the form for short rows."""
    outer, _, inner = out.shape
    keys, positions, _ = sort(index, bound)
    total, acc = index.size, wide(out.dtype)
    sorted_keys, columns, reports = keys, outer * inner, []
    count, level = total, 0
    outer_step, row_step, inner_step = values.shape[1] * inner, inner, 1
    while True:
        windows = -(-count // 32)
        last = windows == 1
        partial = None if last else np.zeros(2 * windows * columns, acc)
        partial_keys = None if last else np.full(2 * windows, -99, np.int32)
        kinds = [ctype(out.dtype), ctype(values.dtype), ctype(acc), "int"]
        common = (out, values, keys, positions, source, scale, partial, partial_keys, sorted_keys,
                  total, count, bound, outer, inner, outer_step, row_step)
        if width:
            chunks = -(-columns // (32 * width))
            reports.append(launch(
                "segment", f"combine_rows<{', '.join(kinds)}, {width}, {OPS[op]}>",
                -(-windows * chunks // 4), 128, (*common, chunks, keep)))
            outer_step, row_step = inner, columns
        else:
            few = next(e for e in (4, 2, 1) if inner % e == 0 and e * acc.itemsize <= 16)
            few = 1 if level else few
            reports.append(launch(
                "segment", f"combine_columns<{', '.join(kinds)}, {few}, {OPS[op]}>",
                -(-windows * (columns // few) // 4), 128, (*common, inner_step, windows, keep)))
            outer_step, row_step, inner_step = inner * 2 * windows, 1, 2 * windows
        if last:
            return reports
        keys, positions, values, count = partial_keys, None, partial, 2 * windows
        level += 1
        source = scale = None
        width = min(width, 16 // acc.itemsize)


def reference(out, values, index, op, keep):
    result = out.astype(np.float64 if out.dtype.kind != "c" else np.complex128)
    values = values.astype(result.dtype)
    for o in range(out.shape[0]):
        for key in np.unique(index):
            rows = values[o, index == key]
            if keep:
                rows = np.concatenate([result[o, key][None], rows])
            result[o, key] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min,
                              "mean": np.mean}[op](rows, axis=0)
    return result


def check(dtype, shape, n, op="sum", width=0, keep=False, spread=None, seed=0):
    rng = np.random.default_rng(seed)
    outer, bound, inner = shape
    if np.dtype(dtype).kind in "iub":
        out, values = rng.integers(0, 3, shape), rng.integers(0, 3, (outer, n, inner))
    else:
        out, values = rng.uniform(0.5, 1.5, shape), rng.uniform(0.5, 1.5, (outer, n, inner))
        if np.dtype(dtype).kind == "c":
            values = values + 1j * rng.uniform(-1, 1, values.shape)
    out, values = out.astype(dtype), values.astype(dtype)
    index = rng.integers(0, spread or bound, n)
    want = reference(out, values, index, op, keep)
    reports = combine(out, values, index, bound, op, width, keep)
    eps = {"f": 1e-6, "c": 1e-6}.get(np.dtype(dtype).kind, 0)
    if np.dtype(dtype).itemsize == 2 and np.dtype(dtype).kind not in "iu":
        eps = 1e-2
    if op == "prod":
        eps *= 10
    if np.dtype(dtype).kind == "b":
        np.testing.assert_array_equal(out, want != 0)
    elif np.dtype(dtype).kind in "iu":
        np.testing.assert_array_equal(out, want.astype(np.int64).astype(dtype))
    else:
        np.testing.assert_allclose(out.astype(want.dtype), want, rtol=max(eps, 1e-6))
    return reports


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64,
                                   np.int64, np.uint8, np.bool_, np.complex64])
@pytest.mark.parametrize("width", [0, 2])
def test_sums(dtype, width):
    check(dtype, (1, 9, 6), 200, width=width, keep=True)
    check(dtype, (2, 40, 4), 70, width=width)


@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("spread", [1, 2, 5])
def test_keys_that_fill_many_windows(width, spread):
    check(np.float32, (1, 6, 4), 2500, width=width, spread=spread)


@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("op", ["prod", "max", "min", "mean"])
@pytest.mark.parametrize("keep", [False, True])
def test_other_reductions(op, keep, width):
    check(np.float32, (2, 11, 3), 100, op, width, keep)
    if width:
        check(np.int32, (1, 7, 2), 50, op, width, keep)


@pytest.mark.parametrize("width", [0, 8])
def test_bags(width):
    rng = np.random.default_rng(3)
    table = rng.standard_normal((20, 8)).astype(np.float32)
    source, target = rng.integers(0, 20, 150), rng.integers(0, 12, 150)
    scale = rng.standard_normal(150).astype(np.float32)
    out = np.zeros((1, 12, 8), np.float32)
    combine(out, table[None], target, 12, "sum", width and 4, source=source, scale=scale)
    want = np.zeros((12, 8))
    np.add.at(want, target, table[source].astype(np.float64) * scale[:, None])
    np.testing.assert_allclose(out[0], want, rtol=1e-5, atol=1e-5)


def test_bytes_of_a_table_gradient():
    """Rows are read once, and each touched row is written once."""
    rng = np.random.default_rng(1)
    tokens, rows, features = 512, 4000, 256
    index = rng.integers(0, rows, tokens)
    out = np.zeros((1, rows, features), np.float16)
    values = rng.standard_normal((1, tokens, features)).astype(np.float16)
    reports = combine(out, values, index, rows, width=4)
    moved = sum(r.metrics["dram_bytes"] for r in reports)
    least = values.nbytes + len(np.unique(index)) * features * 2 + 16 * tokens
    assert moved <= 1.05 * least
    first = reports[0].metrics
    assert first["global_load_efficiency"] > 95
    assert first["global_store_efficiency"] > 95
    assert first["global_store_sectors"] == first["global_store_sectors_ideal"]
    assert first["spill_stores"] == 0
