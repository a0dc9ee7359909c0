"""The kernels of random numbers against mlgpu/cpu/random.py: to the bit but for logarithms."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cpu import poisson as cpu_poisson
from mlgpu.cpu import random as numbers
from mlgpu.cuda.types import ctype
from mlgpu.ops.random_discrete import _with_replacement
from mlgpu.random import Stream

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
DRAW = Stream(2**64 - 3, 2**63 + 2)
SIZES = [1, 700, 2048]


def name(dtype):
    return np.dtype(dtype).name


def draw_arguments(stream=DRAW):
    return (*(int(np.uint64(x).astype(np.int64)) for x in (stream.seed, stream.offset)), None)


def filled(kernel, dtype, size, each, *args, template="", arch="sm_90"):
    """What a kernel fills an array with, `each` elements a lane, and the launch's report."""
    out = np.empty(size, dtype)
    report = launch("random", f"{kernel}<{ctype(out.dtype)}{template}>",
                    -(-size // (256 * each)), 256, (out, size, *draw_arguments(), *args), arch=arch)
    return out, report


def on_cpu(function, dtype, size, *args):
    out = np.empty(size, dtype)
    with np.errstate(all="ignore"):
        function(out, DRAW, *args)
    return out


def uniform(dtype, size, low, high):
    compute = np.float64 if dtype is np.float64 else np.float32
    scale = float(compute(high) - compute(low))
    start, end = (float(np.dtype(dtype).type(x)) for x in (low, high))
    each = 256 // numbers.width(np.dtype(dtype))
    return filled("random_uniform", dtype, size, each, low, scale, start, end)


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_uniform_numbers_are_the_same(dtype):
    for size in SIZES:
        for low, high in ((0.0, 1.0), (-3.1, 0.7), (5.0, 5.01)):
            np.testing.assert_array_equal(uniform(dtype, size, low, high)[0],
                                          on_cpu(numbers.uniform, dtype, size, low, high))


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_normal_numbers_are_within_their_bound(dtype):
    each = 4 if dtype is np.float64 else 8
    bound = {2: 0.01, 4: 4e-6, 8: 4e-14}[np.dtype(dtype).itemsize]
    for size in SIZES:
        for mean, std in ((0.0, 1.0), (2.5, 0.3)):
            out, _ = filled("random_normal", dtype, size, each, mean, std, template=", false")
            expected = on_cpu(numbers.normal, dtype, size, mean, std)
            assert np.abs(out.astype(float) - expected.astype(float)).max() < bound
    out, _ = filled("random_normal", dtype, 700, each, 0.5, 0.7, template=", true")
    expected = on_cpu(numbers.normal, np.float32 if np.dtype(dtype).itemsize == 2 else dtype, 700,
                      0.5, 0.7)
    np.testing.assert_allclose(out.astype(float), np.exp(expected.astype(float)), rtol=bound * 4)


def exponential(u):
    return np.maximum(-np.log(u), np.finfo(u.dtype).eps / 2) / u.dtype.type(2.5)


def cauchy(u):
    return 1 + 3 * np.tan(math.pi * (u.astype(np.float64) - 0.5))


def geometric(u):
    return np.maximum(np.ceil(np.log(u.astype(np.float64)) / math.log1p(-0.3)), 1)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.int16], ids=name)
def test_functions_of_a_uniform_number(dtype):
    size, kinds = 700, [("geometric", geometric, math.log1p(-0.3), 0.0)]
    if np.dtype(dtype).kind != "i":
        kinds += [("exponential", exponential, 2.5, 0.0), ("cauchy", cauchy, 1.0, 3.0)]
    each = 4 if np.dtype(dtype).itemsize == 8 else 8
    tolerance = {2: 0.01, 4: 1e-6, 8: 1e-11}[np.dtype(dtype).itemsize]
    for kind, function, a, b in kinds:
        out, _ = filled("random_transformed", dtype, size, each, a, b,
                        template=f", random_{kind}")
        expected = on_cpu(numbers.transformed, dtype, size, function)
        np.testing.assert_allclose(out.astype(float), expected.astype(float), rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_, *FLOATS], ids=name)
def test_integers_and_truth_values_are_the_same(dtype):
    for size in SIZES:
        for low, n in ((0, 2), (0, 100)) if np.dtype(dtype).itemsize < 8 else (
                (-5, 17), (-2**63, 2**64), (7, 2**32), (-3, 2**33 + 5)):
            wide = 2**32 < n < 2**64
            out, _ = filled("random_integers_wide" if wide else "random_integers", dtype, size,
                            2 if wide else 4, low, int(np.uint64(n % 2**64).astype(np.int64)))
            np.testing.assert_array_equal(out, on_cpu(numbers.integers, dtype, size, low, n))
        for p in (0.0, 0.3, 1.0):
            out, _ = filled("random_bernoulli", dtype, size, 8, math.ceil(p * 2**32))
            np.testing.assert_array_equal(out, on_cpu(numbers.bernoulli, dtype, size, p))


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_each_with_its_own_probability(dtype):
    p = np.random.default_rng(0).random(700).astype(dtype)
    p[:2] = 0, 1
    fault, out = np.zeros(3, np.int64), np.empty(700, np.int32)
    launch("random", f"random_bernoulli_each<int, {ctype(p.dtype)}>", 1, 256,
           (out, p, 700, *draw_arguments(), fault, 4))
    np.testing.assert_array_equal(out, on_cpu(numbers.bernoulli_each, np.int32, 700, p))
    assert not fault.any()
    p[300] = -0.1
    p[400] = np.nan
    launch("random", f"random_bernoulli_each<int, {ctype(p.dtype)}>", 1, 256,
           (out, p, 700, *draw_arguments(), fault, 4))
    assert fault[0] == 4 << 32 | 1
    assert fault[1] in (300, 400)


def test_check():
    fault, x = np.zeros(3, np.int64), np.linspace(0, 1, 300, dtype=np.float32)
    launch("random", "random_check<float>", 2, 256, (x, 300, 0.0, 1.0, fault, 2))
    assert not fault.any()
    x[299] = np.nan
    launch("random", "random_check<float>", 2, 256, (x, 300, 0.0, 1.0, fault, 2))
    assert fault.tolist() == [2 << 32 | 1, 299, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=name)
def test_poisson_counts_are_the_same(dtype):
    rates = np.random.default_rng(0).choice([0, 0.01, 1, 7.3, 9.99, 10, 11.5, 60, 1e4], 1200)
    rates = rates.astype(dtype)
    fault, out = np.zeros(3, np.int64), np.empty(rates.size, dtype)
    launch("random", f"random_poisson<{ctype(rates.dtype)}>", 5, 256,
           (out, rates, rates.size, *draw_arguments(), fault, 4))
    expected = cpu_poisson.counts(rates.astype(np.float64), DRAW)
    np.testing.assert_array_equal(out, expected.astype(dtype))
    assert not fault.any()
    rates[7] = np.inf
    launch("random", f"random_poisson<{ctype(rates.dtype)}>", 5, 256,
           (out, rates, rates.size, *draw_arguments(), fault, 4))
    assert fault.tolist() == [4 << 32 | 1, 7, 0]


@pytest.mark.parametrize("n", [1, 33, 1025])
def test_multinomial(n):
    rng = np.random.default_rng(0)
    weights = rng.random((3, n)).astype(np.float32)
    weights[:, 5:9] = 0
    weights[1, n // 2 + 5:] = 0
    fault, last = np.zeros(3, np.int64), np.empty(3, np.int32)
    edges, times = np.empty((3, n)), np.empty((3, n))
    launch("random", "multinomial_edges<float>", 3, 1024, (edges, last, weights, n, fault, 3))
    exact = weights.astype(float) / weights.max(1, keepdims=True)
    np.testing.assert_allclose(edges, np.cumsum(exact, 1), rtol=1e-14)
    assert last.tolist() == [np.flatnonzero(row)[-1] for row in weights]
    out = np.empty((3, 50), np.int64)
    launch("random", "multinomial_draw<long long>", 1, 256,
           (out, edges, last, 150, 50, n, *draw_arguments()))
    u = numbers.opened(DRAW.words(0, 150)).reshape(3, 50)
    for row in range(3):
        assert out[row].tolist() == _with_replacement(weights[row].astype(float), u[row],
                                                      50).tolist()
    launch("random", "multinomial_times<float>", 3, 1024,
           (times, weights, n, *draw_arguments(), fault, 3))
    u = numbers.opened(DRAW.words(0, 3 * n)).reshape(3, n)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(times, np.maximum(-np.log(u), 2.0**-54) / exact, rtol=1e-14)
    assert not fault.any()


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [np.inf, 1.0], [np.nan, 1.0]],
                         ids=str)
def test_weights_that_are_none(weights):
    weights = np.array([[1.0, 2.0], weights], np.float32)
    fault, last, edges = np.zeros(3, np.int64), np.empty(2, np.int32), np.empty((2, 2))
    launch("random", "multinomial_edges<float>", 2, 1024, (edges, last, weights, 2, fault, 3))
    assert fault.tolist() == [3 << 32 | 1, 1, 0]
    out = np.empty((2, 9), np.int64)
    launch("random", "multinomial_draw<long long>", 1, 256,
           (out, edges, last, 18, 9, 2, *draw_arguments()))
    assert out.min() >= 0
    assert out.max() < 2


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_stores_are_whole_sectors(dtype):
    size, bytes = 1 << 14, np.dtype(dtype).itemsize << 14
    each = 4 if dtype is np.float64 else 8
    for _, report in (uniform(dtype, size, 0.0, 2.0),
                      filled("random_normal", dtype, size, each, 0.0, 1.0, template=", false"),
                      filled("random_bernoulli", dtype, size, 8, 1 << 31),
                      filled("random_integers", dtype, size, 4, 0, 100)):
        metrics = report.metrics
        assert metrics["global_store_sectors"] == bytes // 32
        assert metrics["global_load_sectors"] == metrics["bank_conflicts"] == 0
        assert metrics["spill_stores"] == metrics["spill_loads"] == 0
        assert metrics["stack"] == 0 or dtype is np.float64


@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
def test_elsewhere(arch):
    out, _ = filled("random_normal", np.float32, 700, 8, 0.0, 1.0, template=", false", arch=arch)
    assert np.abs(out - on_cpu(numbers.normal, np.float32, 700, 0.0, 1.0)).max() < 4e-6
