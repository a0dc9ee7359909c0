"""Large products are cut among threads; every operand of every shape gets to its place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import blas
from mlgpu.cpu.gemm import column_sums, gemm, gemms

SHAPES = [
    ((300, 400), (400, 500)), ((20, 700), (700, 3000)), ((1, 3000), (3000, 2000)),
    ((3000, 2000), (2000, 1)), ((6, 5, 130, 64), (6, 5, 64, 130)),
    ((7, 1, 130, 64), (5, 64, 130)), ((1, 400, 300), (1, 300, 400)),
    ((5, 64, 130), (7, 1, 130, 64)), ((400, 300), (4, 300, 100)), ((2, 400, 300), (300, 100)),
    ((33, 20000), (20000, 17)),
]


def given(shape, dtype):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


COUNTS = [1, 2, 3]


@pytest.fixture(params=COUNTS)
def threads(request):
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(request.param)
    yield request.param
    mlgpu.set_num_threads(before)


@pytest.fixture
def as_before():
    """Sets the number of threads as it was."""
    before = mlgpu.get_num_threads()
    yield
    mlgpu.set_num_threads(before)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_products(left, right, dtype):
    a, b = given(left, dtype), given(right, dtype)
    wide = np.complex128 if dtype is np.complex64 else np.float64
    expected = a.astype(wide) @ b.astype(wide)
    bound = 2e-6 * np.sqrt(a.shape[-1]) * 10
    for x, threads in itertools.product((a, np.asfortranarray(a)), COUNTS):
        mlgpu.set_num_threads(threads)
        found = gemm(x, b)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound, err_msg=str(threads))
        np.testing.assert_array_equal(found, gemm(x, b))


def test_sums_of_columns(threads):
    a = given((3000, 777), np.float32)
    np.testing.assert_allclose(column_sums(a), a.sum(0, dtype=np.float64), rtol=0, atol=2e-4)


@pytest.mark.parametrize("rows", [3, 700], ids=str)
def test_a_bias_and_products_of_one_loop(rows, threads):
    a, b, dy = given((rows, 400), np.float32), given((400, 600), np.float32), given(
        (rows, 600), np.float32)
    wide = [x.astype(np.float64) for x in (a, b, dy)]
    bias = given((600,), np.float32)
    found = [gemm(a, b, bias), *gemms((dy, b.T), (a.T, dy))]
    expected = wide[0] @ wide[1] + bias, wide[2] @ wide[1].T, wide[0].T @ wide[2]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_blas_has_its_threads_again():
    library = blas._found()
    before = library.get()
    gemm(given((300, 400), np.float32), given((400, 500), np.float32))
    assert library.get() == before
