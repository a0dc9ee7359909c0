"""Searching, counting and grouping on a simulated device."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cuda import search as cuda_search

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def host(monkeypatch):
    made = hosted(monkeypatch, cuda_search)
    monkeypatch.setattr(cuda_search, "on_host", np.array)
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16, np.int8, np.int64],
                         ids=lambda d: np.dtype(d).name)
def test_searchsorted(host, dtype):
    rng = np.random.default_rng(0)
    sequence = np.sort(rng.integers(-20, 20, (3, 50)), 1).astype(dtype)
    values = rng.integers(-25, 25, (3, 70)).astype(dtype)
    wide = float if np.dtype(dtype).kind in "fV" else np.int64
    for right in (False, True):
        side = "right" if right else "left"
        found = host.wrap(cuda_search.searchsorted)(sequence, values, right, np.int64)
        expected = [np.searchsorted(s.astype(wide), v.astype(wide), side)
                    for s, v in zip(sequence, values, strict=True)]
        np.testing.assert_array_equal(found, expected)
        found = host.wrap(cuda_search.searchsorted)(sequence[0], values, right, np.int32)
        np.testing.assert_array_equal(
            found, np.searchsorted(sequence[0].astype(wide), values.astype(wide), side))


def test_nan_is_last_and_equals_nothing(host):
    sequence = np.array([1, 2, np.nan, np.nan], np.float32)
    values = np.array([np.nan, 3, np.inf, 0], np.float32)
    for right, side in ((False, "left"), (True, "right")):
        found = host.wrap(cuda_search.searchsorted)(sequence, values, right, np.int64)
        np.testing.assert_array_equal(found, np.searchsorted(sequence, values, side))
    values = np.array([np.nan, 2, 5], np.float32)
    np.testing.assert_array_equal(host.wrap(cuda_search.is_in)(values, sequence, False),
                                  [False, True, False])
    np.testing.assert_array_equal(host.wrap(cuda_search.is_in)(values, sequence, True),
                                  [True, False, True])


@pytest.mark.parametrize("bins", [1, 7, 300, 9000])
def test_counts(host, bins):
    places = np.random.default_rng(0).integers(0, bins, 5000)
    for dtype in (np.int64, np.int16):
        found = host.wrap(cuda_search.count_places)(places.astype(dtype), bins)
        np.testing.assert_array_equal(found, np.bincount(places, minlength=bins))
        for report in host.reports if bins < 32 else ():
            metrics = report.metrics
            assert metrics["shared_wavefronts"] <= 1.1 * metrics["shared_wavefronts_ideal"]
    x = np.random.default_rng(1).standard_normal(3000).astype(np.float32)
    x[5], x[6], x[7] = np.nan, np.inf, 2
    found = host.wrap(cuda_search.count_bins)(x, bins, -2.0, 2.0)
    place = ((x - np.float32(-2)) * np.float32(bins) / np.float32(4))[np.abs(x) <= 2]
    np.testing.assert_array_equal(
        found, np.bincount(np.minimum(place.astype(int), bins - 1), minlength=bins))


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("n", [1, 900, 4097])
def test_groups(host, width, n):
    table = np.random.default_rng(0).integers(0, 2, (n, width)).astype(np.float32)
    table[4:6] = np.nan
    starts = np.ones(n, bool)
    starts[1:] = (table[1:] != table[:-1]).any(1)
    places = np.random.default_rng(1).permutation(n)
    for given in (None, places):
        values, inverse, sizes = host.wrap(cuda_search.groups)(table, given, True, True)
        np.testing.assert_array_equal(values, table[starts])
        groups = np.cumsum(starts) - 1
        np.testing.assert_array_equal(inverse, groups if given is None else
                                      groups[np.argsort(places)])
        np.testing.assert_array_equal(sizes, np.diff(np.append(np.flatnonzero(starts), n)))
    values, inverse, sizes = host.wrap(cuda_search.groups)(table[:0], None, False, False)
    assert values.shape == (0, width)
    assert inverse is None
    assert sizes is None


def test_bars_of_groups(host):
    """Two readings of the elements, one writing of what is found."""
    x = np.sort(np.random.default_rng(0).integers(0, 500, (8192, 1)), 0)
    values, *_ = host.wrap(cuda_search.groups)(x, None, False, False)
    moved = sum(r.metrics["dram_bytes"] for r in host.reports)
    assert moved <= 1.05 * (2 * x.nbytes + values.nbytes)
    for report in host.reports:
        found = report.metrics
        assert found["spill_stores"] == 0
        assert found["global_load_sectors"] <= found["global_load_sectors_ideal"] / 0.95
        assert found["shared_wavefronts"] <= 1.1 * found["shared_wavefronts_ideal"]
