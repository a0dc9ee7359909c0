"""Dropout's kernels: the CPU's masks, values to the bit, and what they move."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.types import ctype
from mlgpu.ops.dropout import Dropout
from mlgpu.random import Stream

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
SELU = (1.25, 0.8, -0.3)  # scale, lift, base


def dropped(x, lead, stream, p, scale, lift, base):
    with np.errstate(invalid="ignore"):
        return Dropout("dropout", stream, p, lead, scale, lift, base).forward(x)


def signed(value):
    return int(np.uint64(value).astype(np.int64))


def draw(stream, p, cell=None):
    return signed(stream.seed), signed(stream.offset), cell, math.ceil(p * 2**32) - 1


def elements(x, width, stream, p, options, cell=None, arch="sm_90"):
    """The result and the launch's report."""
    y = np.empty_like(x)
    args = (y, x, x.size, *draw(stream, p, cell), *options)
    report = launch("dropout", f"dropout_elements<{ctype(x.dtype)}, {width}>",
                    -(-x.size // 2048), 256, args, arch=arch)
    return y, report


def rows(x, width, columns, stream, p, options):
    y = np.empty_like(x)
    args = (y, x, x.size, columns, *draw(stream, p), *options)
    report = launch("dropout", f"dropout_rows<{ctype(x.dtype)}, {width}>", -(-x.size // 4096),
                    256, args)
    return y, report


def same(actual, expected):
    """To the bit, but for the kinds of NaN."""
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    known = ~np.isnan(expected)
    assert actual[known].tobytes() == expected[known].tobytes()


def sample(size, dtype):
    x = np.random.default_rng(0).standard_normal(size).astype(dtype)
    x[::17] = np.inf
    x[5::23] = np.nan
    return x


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("size", [1, 8, 255, 2048, 5003])
def test_elements(dtype, size):
    stream = Stream(2**64 - 3, 2**63 + 2)
    for width in sorted({16 // np.dtype(dtype).itemsize, 1, 2}):
        for p, options in ((0.3, (1 / 0.7, 0.0, 0.0)), (1e-3, SELU)):
            x = sample(size, dtype)
            y, _ = elements(x, width, stream, p, options)
            same(y, dropped(x, None, stream, p, *options))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("columns", [1, 7, 49, 4096, 5000])
def test_rows(dtype, columns):
    stream = Stream(11, 5)
    size = columns * -(-9000 // columns)
    for width in (16 // np.dtype(dtype).itemsize, 1):
        for p, options in ((0.5, (2.0, 0.0, 0.0)), (0.2, SELU)):
            x = sample(size, dtype)
            y, _ = rows(x, width, columns, stream, p, options)
            expected = dropped(x.reshape(-1, columns), 1, stream, p, *options)
            same(y, expected.reshape(-1))


def test_a_cell_holds_seed_and_base():
    x = sample(300, np.float32)
    cell = np.array([7, 40], np.int64)
    y, _ = elements(x, 4, Stream(0, 2), 0.4, (1.5, 0.0, 0.0), cell=cell)
    same(y, dropped(x, None, Stream(7, 42), 0.4, 1.5, 0.0, 0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_moves_each_byte_once_and_spills_nothing(dtype):
    x = np.ones(1 << 14, dtype)
    width = 16 // x.dtype.itemsize
    for _, report in (elements(x, width, Stream(1, 2), 0.5, (2.0, 0.0, 0.0)),
                      rows(x, width, 64, Stream(1, 2), 0.5, (2.0, 0.0, 0.0))):
        metrics = report.metrics
        assert metrics["global_load_sectors"] == metrics["global_store_sectors"] == x.nbytes // 32
        assert metrics["spill_stores"] == metrics["spill_loads"] == metrics["stack"] == 0
        assert metrics["divergent_branches"] <= 4  # the rows of a block


@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
def test_elsewhere(arch):
    x = sample(1000, np.float32)
    y, _ = elements(x, 4, Stream(3, 4), 0.5, (2.0, 0.0, 0.0), arch=arch)
    same(y, dropped(x, None, Stream(3, 4), 0.5, 2.0, 0.0, 0.0))
