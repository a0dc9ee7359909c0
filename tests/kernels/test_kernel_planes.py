"""kernels/pool.cu, resample.cu, grid_sample.cu and transpose.cu: values and what launches count.

By default each kind of line comes in every second dtype, the next one in the others (turns.py);
MLGPU_KERNELS_ALL=1 runs each in all.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted
from turns import in_turns

from mlgpu.cuda import axis_tables, grid_sample, pool, resample, segment, transpose
from mlgpu.cuda import lines as axis_lines
from mlgpu.ops.axis_map import adaptive_map, window_map
from mlgpu.ops.resample import antialias_map, nearest_map, smooth_map

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16, I16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.int16)
TOLERANCE = {F32: 1e-6, F64: 1e-14, F16: 1e-3, BF16: 8e-3}


@pytest.fixture
def host(monkeypatch):
    made = hosted(monkeypatch, axis_lines, pool, resample, grid_sample, segment, transpose)
    for module in (pool, resample):
        monkeypatch.setattr(module, "constant", lambda values: made.array(values.copy()))
    monkeypatch.setattr(segment, "empty", made.empty)
    return made


def random(dtype, shape, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 9).astype(dtype)


def clean(host, dtype, moved=None):
    """No spills or conflicts; `moved`: the bytes that have to move."""
    for report in host.reports:
        assert not report.findings
        if dtype != F64:
            assert report.metrics["spill_stores"] == 0
            assert report.metrics["local_load_instructions"] == 0
    if moved is not None:
        assert host.reports[-1].metrics["dram_bytes"] <= 1.05 * moved
        assert host.reports[-1].metrics["global_store_efficiency"] == 100


# --- the maximum of windows -----------------------------------------------------------------------


def seen(each):
    """What each window of an axis sees: the elements."""
    return [[e for e in column if e >= 0] for column in axis_tables.windows(each).source.T]


def pooled(x, maps):
    """The maxima and their places in the flattened planes."""
    sizes = [each.size_out for each in maps]
    lead = x.shape[:-len(maps)]
    y, places = np.empty((*lead, *sizes), x.dtype), np.empty((*lead, *sizes), np.int64)
    flat = x.reshape(*lead, -1)
    axes = [seen(each) for each in maps]
    for place in np.ndindex(*sizes):
        box = np.ix_(*[axis[p] for axis, p in zip(axes, place, strict=True)])
        elements = np.ravel_multi_index(box, x.shape[-len(maps):]).reshape(-1)
        values = flat[..., elements].astype(np.float64)
        values[np.isnan(values)] = np.inf
        best = values.argmax(-1)
        y[(..., *place)] = np.take_along_axis(flat[..., elements], best[..., None], -1)[..., 0]
        places[(..., *place)] = elements[best]
    return y, places


@pytest.mark.parametrize(("dtype", "shape", "maps"), [
    (F32, (2, 3, 9, 7), [window_map(-2, 9, 4, 3, 2, 1, 0), window_map(-1, 7, 4, 3, 2, 1, 1)]),
    (F16, (3, 40), [window_map(-1, 40, 13, 3, 3, 1, 0)]),
    (BF16, (2, 5, 4, 6), [adaptive_map(-3, 5, 2), adaptive_map(-2, 4, 3), adaptive_map(-1, 6, 4)]),
    (I16, (2, 6, 8), [window_map(-2, 6, 3, 2, 2, 1, 0), window_map(-1, 8, 4, 2, 2, 1, 0)]),
    (F64, (2, 4, 300), [window_map(-2, 4, 2, 3, 1, 1, 0), window_map(-1, 300, 3, 260, 20, 1, 0)]),
])
def test_maximum(host, dtype, shape, maps):
    x = random(dtype, shape)
    want, want_places = pooled(x, maps)
    y, choice, places = host.wrap(pool.maximum)(x, maps, True, True)
    np.testing.assert_array_equal(np.asarray(y), want)
    np.testing.assert_array_equal(np.asarray(places), want_places)
    clean(host, dtype)
    again = host.wrap(pool.choose)(x, maps, choice)
    np.testing.assert_array_equal(np.asarray(again), want)

    dy = random(dtype, want.shape, 1)
    lead = int(np.prod(shape[:-len(maps)]))
    total = np.zeros((lead, x.size // lead))
    for n, at in enumerate(want_places.reshape(lead, -1)):
        np.add.at(total[n], at, dy.reshape(lead, -1)[n].astype(np.float64))
    dx = np.asarray(host.wrap(pool.unchoose)(dy, maps, choice)).reshape(lead, -1)
    tolerance = TOLERANCE.get(dtype, 0) * max(1, np.abs(total).max())
    np.testing.assert_allclose(dx.astype(np.float64), total, 0, tolerance)
    clean(host, dtype)


@pytest.mark.parametrize(("dtype", "kernel", "stride", "before", "count"), in_turns([
    (2, 2, 0, 72), (3, 2, 1, 72), (3, 2, 0, 71), (3, 1, 1, 144), (5, 1, 2, 144), (4, 4, 0, 36),
    (8, 8, 0, 18), (2, 4, 0, 36), (5, 2, 2, 72), (3, 2, 1, 73)],
    [F32, F16, F64, I16, np.dtype(np.int8)]))
def test_lines(host, dtype, kernel, stride, before, count):
    """Even windows of whole vectors: lines of several warps, and some that end within a warp."""
    for lead in (2, 5):
        maps = [adaptive_map(-2, lead, 3), window_map(-1, 144, count, kernel, stride, 1, before)]
        x = random(dtype, (3, lead, 144))
        want, places = pooled(x, maps)
        for wanted in (True, False):
            y, choice, found = host.wrap(pool.maximum)(x, maps, True, wanted)
            np.testing.assert_array_equal(np.asarray(y), want)
            clean(host, dtype)
            if wanted:
                np.testing.assert_array_equal(np.asarray(found), places)
        even = axis_lines.windows(maps[-1])
        assert ("lines" in host.names[-1]) == bool(even.of_elements(dtype.itemsize))
        again = host.wrap(pool.choose)(x, maps, choice)
        np.testing.assert_array_equal(np.asarray(again), want)
        dy = random(dtype, want.shape, 1)
        total = np.zeros((3, lead * 144))
        for n, at in enumerate(places.reshape(3, -1)):
            np.add.at(total[n], at, dy.reshape(3, -1)[n].astype(np.float64))
        dx = np.asarray(host.wrap(pool.unchoose)(np.asarray(dy), maps, choice)).reshape(3, -1)
        clean(host, dtype)
        assert ("lines" in host.names[-1]) == bool(even.of_windows(dtype.itemsize))
        if dtype.kind == "f":
            np.testing.assert_allclose(dx.astype(np.float64), total, 0,
                                       TOLERANCE[dtype] * np.abs(total).max())
        else:
            np.testing.assert_array_equal(dx, total.astype(np.int64).astype(dtype))


def test_which_windows_are_even():
    assert axis_lines.windows(window_map(-1, 144, 72, 3, 2, 1, 1)) == (2, 3, 1, 144, 72)
    assert axis_lines.windows(adaptive_map(-1, 64, 8)) == (8, 8, 0, 64, 8)
    assert axis_lines.windows(adaptive_map(-1, 64, 7)) is None
    assert axis_lines.windows(window_map(-1, 144, 72, 2, 2, 2, 0)) is None  # with gaps
    assert axis_lines.windows(smooth_map(-1, 8, 16, 2, False, None, F32)) is None  # weights
    assert axis_lines.spread(nearest_map(-1, 8, 16, False, None, F32)) == (2, 2, 0, 16, 8)
    assert axis_lines.spread(window_map(-1, 144, 72, 3, 2, 1, 1).transposed()) == (2, 3, 1, 144, 72)


def test_nan_and_ties(host):
    maps = [window_map(-1, 6, 2, 3, 3, 1, 0)]
    x = np.array([[1, np.nan, np.nan, 2, 5, 5]], np.float32)
    y, _, places = host.wrap(pool.maximum)(x, maps, False, True)
    np.testing.assert_array_equal(np.asarray(y), [[np.nan, 5]])
    np.testing.assert_array_equal(np.asarray(places), [[2, 4]])
    x = np.array([[1, np.nan, np.nan, np.nan, 5, 5, -np.inf, -np.inf]], np.float32)
    y, choice, _ = host.wrap(pool.maximum)(x, [window_map(-1, 8, 4, 2, 2, 1, 0)], True, False)
    assert "lines" in host.names[-1]
    np.testing.assert_array_equal(np.asarray(y), [[np.nan, np.nan, 5, -np.inf]])
    np.testing.assert_array_equal(np.asarray(choice), [[1, 1, 0, 0]])


def test_pooling_bytes(host):
    """Inputs are read once, results written once, and a choice takes a byte."""
    maps = [window_map(-2, 32, 16, 2, 2, 1, 0), window_map(-1, 64, 32, 2, 2, 1, 0)]
    x = random(F32, (16, 32, 64))
    y, choice, _ = host.wrap(pool.maximum)(x, maps, True, False)
    assert choice.dtype == np.uint8
    clean(host, F32, x.nbytes + y.nbytes + choice.nbytes)
    host.wrap(pool.unchoose)(np.asarray(y), maps, choice)
    clean(host, F32, x.nbytes + y.nbytes + choice.nbytes)
    host.wrap(resample.apply)(x, maps, None, np.asarray(4, np.float32))
    clean(host, F32, x.nbytes + y.nbytes)


# --- weighted sums --------------------------------------------------------------------------------


def matrix(each):
    found = np.zeros((each.size_out, each.size_in))
    for pair in each.pairs:
        np.add.at(found, (pair.rows, pair.source), 1.0 if pair.weight is None else pair.weight)
    return found


@pytest.mark.parametrize(("dtype", "shape", "maps"), [
    (F32, (2, 3, 5, 7), [smooth_map(-2, 5, 9, 2, False, None, F32),
                         smooth_map(-1, 7, 3, 2, False, None, F32)]),
    (F16, (3, 6, 8), [smooth_map(-2, 6, 13, 4, True, None, F32),
                      smooth_map(-1, 8, 16, 4, True, None, F32)]),
    (BF16, (2, 4, 3, 5), [smooth_map(axis, size, 2 * size, 2, False, None, F32)
                          for axis, size in ((-3, 4), (-2, 3), (-1, 5))]),
    (F64, (2, 30, 40), [adaptive_map(-2, 30, 3), adaptive_map(-1, 40, 4)]),  # axis by axis
    (F32, (2, 6, 3, 5), [window_map(-3, 6, 6, 3, 1, 1, 1)]),  # an axis in the middle
])
def test_sums(host, dtype, shape, maps):
    for turned in (False, True):
        used = [each.transposed() for each in reversed(maps)] if turned else maps
        x = random(dtype, shape, 2)
        want = x.astype(np.float64)
        if turned:
            for each in maps:
                shape = each.out_shape(shape)
            x = random(dtype, shape, 2)
            want = x.astype(np.float64)
        for each in used:
            axis = want.ndim + each.axis
            want = np.moveaxis(np.tensordot(matrix(each), want, (1, axis)), 0, axis)
        found = np.asarray(host.wrap(resample.apply)(x, used, None, None)).astype(np.float64)
        np.testing.assert_allclose(found, want, 0, TOLERANCE[dtype] * np.abs(want).max())
        clean(host, dtype)


@pytest.mark.parametrize(("dtype", "each"), in_turns([
    window_map(-1, 144, 72, 3, 2, 1, 1), window_map(-1, 144, 144, 5, 1, 1, 2),
    window_map(-1, 144, 36, 4, 4, 1, 0), window_map(-1, 144, 72, 1, 2, 1, 0),
    window_map(-1, 144, 71, 3, 2, 1, 0), nearest_map(-1, 72, 144, False, None, F32),
    smooth_map(-1, 72, 144, 2, False, None, F32).transposed(),
    antialias_map(-1, 144, 72, 4, False, None, F32), smooth_map(-1, 144, 36, 2, True, None, F32)],
    [F32, F16, F64]))
def test_sums_of_lines(host, dtype, each):
    """In lines of several warps, and in some that end within a warp, each way and with divisors."""
    for turned in (each, each.transposed()):
        other = window_map(-2, 5, 3, 3, 1, 1, 0)
        x = random(dtype, (2, 5, turned.size_in), 2)
        before = np.arange(1, 1 + x[0].size).reshape(x[0].shape).astype(np.float32) / 50
        after = np.arange(1, 1 + 3 * turned.size_out).reshape(3, -1).astype(np.float32) / 70
        divided = x.astype(np.float64) / before
        if turned is each:
            divided, before = x.astype(np.float64) / 3, np.asarray(3, np.float32)
        want = np.einsum("ia,nab,jb->nij", matrix(other), divided, matrix(turned)) / after
        found = host.wrap(resample.apply)(x, [other, turned], before, after)
        np.testing.assert_allclose(np.asarray(found).astype(np.float64), want, 0,
                                   TOLERANCE[dtype] * np.abs(want).max())
        clean(host, dtype)
        by_lines = resample.of_lines(turned, F32, max(dtype.itemsize, before.ndim and 4))
        assert any("lines" in name for name in host.names) == (by_lines is not None)
        host.names.clear()


def test_divisors(host):
    maps = [adaptive_map(-2, 50, 4), adaptive_map(-1, 40, 3)]
    counts = np.outer(*(matrix(each).sum(1) for each in maps)).astype(np.float32)
    x = random(F32, (2, 50, 40))
    mean = np.asarray(host.wrap(resample.apply)(x, maps, None, counts))
    want = np.einsum("ia,nab,jb->nij", matrix(maps[0]), x.astype(float), matrix(maps[1])) / counts
    np.testing.assert_allclose(mean, want, 0, 1e-5)


# --- sampling -------------------------------------------------------------------------------------


def test_sampling_of_elements(host):
    """A grid of the elements' own places gives the image back, and its gradient."""
    x = random(F32, (2, 3, 5, 6))
    places = np.stack(np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 5)), -1)
    grid = np.broadcast_to(places, (2, 5, 6, 2)).astype(np.float32).copy()
    for mode in ("nearest", "bilinear", "bicubic"):
        def run(x, grid, dy, mode=mode):
            one = grid_sample.Sampling(x.shape, grid, mode, "border", True)
            return one.forward(x), one.backward_image(dy)

        dy = random(F32, x.shape, 3)
        y, dx = host.wrap(run)(x, grid, dy)
        clean(host, F32)
        np.testing.assert_allclose(np.asarray(y), x, 0, 2e-5)
        np.testing.assert_allclose(np.asarray(dx), dy, 0, 2e-5)
        again = host.wrap(run)(x, grid, dy)[1]
        assert np.asarray(again).tobytes() == np.asarray(dx).tobytes()


# --- transposed copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("shape", "order"), [
    ((64, 128), (1, 0)), ((2, 37, 3, 45), (3, 2, 0, 1)), ((33, 65), (1, 0))])
def test_transposed(host, size, shape, order):
    dtype = np.dtype(np.complex128) if size == 16 else np.dtype(f"u{size}")
    x = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)

    def run(x):
        out = host.empty(tuple(shape[d] for d in order), dtype)
        assert transpose.copy_transposed(out, x.transpose(order))
        return out

    found = host.wrap(run)(x)
    np.testing.assert_array_equal(np.asarray(found), x.transpose(order))
    metrics = host.reports[0].metrics
    assert metrics["spill_stores"] == 0
    if shape == (64, 128):
        assert metrics["bank_conflicts"] == 0
        assert metrics["global_load_efficiency"] == metrics["global_store_efficiency"] == 100
        assert metrics["dram_bytes"] == 2 * x.nbytes


def test_what_tiles_do_not_fit():
    assert transpose.plan((64, 64), (64, 1), (64, 1), 4, True) is None  # both lie alike
    assert transpose.plan((64, 3), (1, 64), (3, 1), 4, True) is None  # too narrow
    assert transpose.plan((64, 64), (2, 128), (64, 1), 4, True) is None  # gaps
