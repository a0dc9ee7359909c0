"""Histograms and compaction by atomics, votes and matches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("histogram.cu")
def histogram_global(m: sim.Machine, mod: Any) -> None:
    for n in (7, 700):
        x = np.random.default_rng(0).integers(0, 256, n, np.uint8) // 9
        bins = m.zeros(256, np.int32)
        mod.kernel("histogram_global").launch(3, 64, (bins, m.array(x), np.int32(n)))
        assert_array_equal(bins.numpy(), np.bincount(x, minlength=256))


@program("histogram.cu")
def histogram_shared(m: sim.Machine, mod: Any) -> None:
    for quads in (5, 333):
        x = np.random.default_rng(1).normal(128, 20, 4 * quads).astype(np.uint8)
        bins = m.zeros(256, np.int32)
        mod.kernel("histogram_shared").launch(2, 96, (bins, m.array(x), np.int32(quads)))
        assert_array_equal(bins.numpy(), np.bincount(x, minlength=256))


@program("histogram.cu")
def histogram_per_warp(m: sim.Machine, mod: Any) -> None:
    for n, count, block in ((300, 50, 96), (20, 7, 32)):
        x = np.random.default_rng(2).integers(0, count, n, np.int32)
        bins = m.zeros(count, np.uint32)
        args = bins, m.array(x), np.int32(n), np.int32(count)
        mod.kernel("histogram_per_warp").launch(2, block, args, shared_mem=block // 32 * count * 4)
        assert_array_equal(bins.numpy(), np.bincount(x, minlength=count))


@program("histogram.cu")
def histogram_match(m: sim.Machine, mod: Any) -> None:
    for n in (5, 250):
        x = np.random.default_rng(3).integers(0, 9, n, np.int32)
        bins = m.zeros(9, np.int32)
        mod.kernel("histogram_match").launch(3, 96, (bins, m.array(x), np.int32(n)))
        assert_array_equal(bins.numpy(), np.bincount(x, minlength=9))


@program("histogram.cu")
def histogram_ballot(m: sim.Machine, mod: Any) -> None:
    for n in (33, 250):
        x = np.random.default_rng(4).integers(0, 16, n, np.int32)
        bins = m.zeros(16, np.int32)
        mod.kernel("histogram_ballot").launch(3, 96, (bins, m.array(x), np.int32(n)))
        assert_array_equal(bins.numpy(), np.bincount(x, minlength=16))


@program("histogram.cu")
def filter_positive(m: sim.Machine, mod: Any) -> None:
    for n in (1, 200):
        x = np.random.default_rng(5).standard_normal(n).astype(np.float32)
        out, count = m.zeros(n, np.float32), m.zeros((), np.int32)
        mod.kernel("filter_positive").launch(2, 64, (out, count, m.array(x), np.int32(n)))
        kept = x[x > 0]
        assert count.numpy() == kept.size
        assert_array_equal(np.sort(out.numpy()[:kept.size]), np.sort(kept))


@program("histogram.cu")
def histogram_packed(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(6).integers(0, 256, 900, np.uint8)
    bins = m.empty(16, np.int32)
    mod.kernel("histogram_packed").launch(1, 64, (bins, m.array(x), np.int32(x.size)))
    assert_array_equal(bins.numpy(), np.bincount(x & 15, minlength=16))
