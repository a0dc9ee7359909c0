"""Kernels that copy by index, by mask and to other places: values, sectors, bytes."""

from __future__ import annotations

import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.types import ctype

RAW = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64, 16: np.complex128}


def cell():
    return np.zeros(3, np.int64)


def values(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(1, 100, shape).astype(dtype)


def plan(inner, width):
    """Pieces of a row and lanes for it, as mlgpu.cuda.index.row_plan has them."""
    vectors = max(1, inner // width)
    spread = min(5, (vectors - 1).bit_length())
    return -(-vectors // (4 << spread)), spread


def gather(x, index, width, wrap=True, fault=None):
    outer, bound, inner = x.shape
    y = np.zeros((outer, index.size, inner), x.dtype)
    pieces, spread = plan(inner, width)
    report = launch("index", f"gather_rows<{ctype(x.dtype)}, {width}, {ctype(index.dtype)}>",
                    -(-((outer * index.size * pieces) << spread) // 256), 256,
                    (y, x, index, outer, index.size, bound, inner, bound * inner, inner, pieces,
                     spread, wrap, cell() if fault is None else fault, 2))
    return y, report


@pytest.mark.parametrize("size", list(RAW))
@pytest.mark.parametrize(("inner", "outer"), [(1, 3), (5, 1), (16, 2), (700, 1)])
def test_gather_rows(size, inner, outer):
    x = values((outer, 7, inner), RAW[size])
    index = np.array([3, -1, 0, 6, 3], np.int64 if inner % 2 else np.int32)
    width = 16 // size if inner % (16 // size) == 0 else 1
    y, _ = gather(x, index, width)
    np.testing.assert_array_equal(y, x[:, index])


def test_wrong_indices_are_recorded_and_give_zeros():
    x, fault = values((1, 4, 8), np.int32), cell()
    y, _ = gather(x, np.array([1, 4, -1]), 4, wrap=False, fault=fault)
    np.testing.assert_array_equal(y[0, 0], x[0, 1])
    assert not y[0, 1:].any()
    assert fault.view(np.int32)[:2].tolist() == [1, 2]
    assert (fault[1], fault[2]) in ((4, 4), (-1, 4))


@pytest.mark.parametrize(("dtype", "inner"), [(np.int16, 768), (np.int32, 64), (np.int32, 1)])
def test_bytes_of_gathers(dtype, inner):
    """Rows are read and written once, in whole sectors; so are the indices."""
    x = values((1, 512, inner), dtype)
    index = np.random.default_rng(0).permutation(512)
    if inner == 1:
        index = np.sort(index)
    y, report = gather(x, index, 16 // x.itemsize if inner > 1 else 1)
    metrics = report.metrics
    assert metrics["unique_bytes_written"] == y.nbytes
    assert metrics["dram_bytes"] <= 1.01 * (x.nbytes + y.nbytes + index.nbytes) + 96  # the cell
    assert metrics["global_load_efficiency"] > 95
    assert metrics["global_store_efficiency"] == 100
    assert metrics["spill_stores"] == 0
    assert metrics["local_load_sectors"] == metrics["local_store_sectors"] == 0


@pytest.mark.parametrize(("inner", "width"), [(1, 1), (12, 4), (260, 4)])
@pytest.mark.parametrize("steps", [True, False])
def test_put_rows(inner, width, steps):
    out, index = values((2, 9, inner), np.int32), np.array([4, 0, -1])
    given = values((2, 3, inner) if steps else (1,), np.int32, 1)
    want = out.copy()
    want[:, index] = given
    pieces, spread = plan(inner, width)
    launch("index", f"put_rows<int, {width}, long long>",
           -(-((2 * 3 * pieces) << spread) // 256), 256,
           (out, given, index, 2, 3, 9, inner, 9 * inner, inner, 3 * inner * steps, inner * steps,
            int(steps), pieces, spread, True, cell(), 0))
    np.testing.assert_array_equal(out, want)


def test_the_last_of_equal_places_wins():
    index = np.array([5, 2, 5, 0, 2, 9], np.int32)  # 9 is out of range, and was reported
    order = np.argsort(index, kind="stable").astype(np.int32)
    out, given = np.zeros((1, 9, 8), np.int16), values((1, 6, 8), np.int16)
    pieces, spread = plan(8, 8)
    launch("index", "put_last<short, 8, int>", 1, 256,
           (out, given, index[order], order, 1, 6, 9, 8, 72, 8, 48, 8, 1, pieces, spread))
    want = np.zeros_like(out)
    want[0, 5], want[0, 2], want[0, 0] = given[0, 2], given[0, 4], given[0, 3]
    np.testing.assert_array_equal(out, want)


PAIRS = np.dtype([("size", np.int64, 8), ("first", np.int64, 8), ("second", np.int64, 8)])


def test_along_a_dimension():
    x = values((4, 5, 6), np.int16)
    index = np.random.default_rng(0).integers(0, 5, (3, 2, 6))
    steps = np.zeros(1, PAIRS)
    steps["size"][0, :3], steps["first"][0, :3] = index.shape, (30, 0, 1)
    steps["second"][0, :3] = (12, 6, 1)
    y, places = np.zeros(index.shape, np.int16), np.zeros(index.shape, np.int64)
    launch("index", "gather_along<short, long long, 3>", 1, 256,
           (y, x, index, 36, 5, 6, steps, False, cell(), 0))
    want = np.take_along_axis(x[:3], index, 1)
    np.testing.assert_array_equal(y, want)
    launch("index", "places_along<long long, 3>", 1, 256,
           (places, index, 36, 5, 6, steps, False, cell(), 0))
    np.testing.assert_array_equal(x.reshape(-1)[places], want)


def test_places_of_several_indices():
    a, b, places = np.array([1, -1, 0]), np.array([2, 3, -4], np.int32), np.zeros(3, np.int64)
    launch("index", "add_index<long long>", 1, 256, (places, None, a, 3, 3, True, cell(), 0))
    launch("index", "add_index<int>", 1, 256, (places, places.copy(), b, 3, 4, True, cell(), 0))
    np.testing.assert_array_equal(places, [1 * 4 + 2, 2 * 4 + 3, 0])


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float32, np.int64, np.complex64])
@pytest.mark.parametrize("count", [1, 511, 4096, 9001])
def test_nonzero(dtype, count):
    x = (np.random.default_rng(count).random(count) < 0.3).astype(dtype)
    tiles = -(-count // 4096)
    before = np.zeros(tiles + 1, np.int64)
    launch("mask", f"count_nonzero<{ctype(x.dtype)}>", tiles, 256, (x, before, count))
    launch("mask", "scan_counts", 1, 256, (before, tiles))
    want = np.flatnonzero(x)
    assert before[tiles] == len(want)
    found = np.zeros(max(1, len(want)), np.int64)
    report = launch("mask", f"write_nonzero<{ctype(x.dtype)}>", tiles, 256,
                    (x, before, found, count))
    np.testing.assert_array_equal(found[:len(want)], want)
    if count == 4096:
        assert report.metrics["global_load_efficiency"] > 95


def test_coordinates():
    sizes = np.zeros(1, np.dtype([("size", np.int64, 32)]))
    sizes["size"][0, :3] = (3, 4, 5)
    places, out = np.arange(60, dtype=np.int64)[::7].copy(), np.zeros((9, 3), np.int64)
    launch("mask", "coordinates", 1, 256, (places, out, 9, sizes, 3, 3, 1))
    np.testing.assert_array_equal(out, np.stack(np.unravel_index(places, (3, 4, 5)), 1))


# --- other places ---------------------------------------------------------------------------------


def test_copy_slot():
    x, out = values((3, 40), np.int32), np.zeros((3, 100), np.int32)
    report = launch("join", "copy_slot<int, 4>", 1, 256, (out, x, 3, 40, 100, 8))
    np.testing.assert_array_equal(out[:, 8:48], x)
    assert not out[:, :8].any()
    assert not out[:, 48:].any()
    assert report.metrics["global_load_efficiency"] == 100
    x, out = values((1, 8192), np.int16), np.zeros((1, 8192), np.int16)
    metrics = launch("join", "copy_slot<short, 8>", 1, 256, (out, x, 1, 8192, 8192, 0)).metrics
    np.testing.assert_array_equal(out, x)
    assert metrics["dram_bytes"] == 2 * x.nbytes
    assert metrics["global_store_efficiency"] == 100


PLACES = np.dtype([(name, np.int64, 8) for name in ("size", "limit", "step", "start")])


@pytest.mark.parametrize("mode", ["flip", "roll", "pad"])
def test_arrange(mode):
    x = values((6, 8), np.int32)
    places = np.zeros(1, PLACES)
    shape, base, start, step = (6, 8), 0, (0, 0), (8, 1)
    if mode == "flip":
        want, base, step = x[::-1], 40, (-8, 1)
    elif mode == "roll":
        want, start = np.roll(x, (2, 4), (0, 1)), (2, 4)
    else:
        want, shape, start = np.pad(x, ((1, 2), (4, 8)), constant_values=7), (9, 20), (1, 4)
    for name, numbers in zip(PLACES.names, (shape, (6, 8), step, start), strict=True):
        places[name][0, :2] = numbers
    y = np.zeros(shape, np.int32)
    report = launch("arrange", f"arrange<int, 4, 2, {('flip', 'roll', 'pad').index(mode)}>", 1, 256,
                    (y, x, y.size // 4, base, places, 7))
    np.testing.assert_array_equal(y, want)
    assert report.metrics["dram_bytes"] <= 32 + x.nbytes + y.nbytes
    assert report.metrics["global_store_efficiency"] > 95


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("offset", [-2, 0, 5])
def test_triangle(lower, offset):
    x = values((2, 5, 8), np.int16)
    y = np.zeros_like(x)
    launch("arrange", "triangle<short, 4>", 1, 256, (y, x, 20, 5, 8, offset, lower))
    np.testing.assert_array_equal(y, (np.tril if lower else np.triu)(x, offset))
