"""kernels/gemm.cu and gemm_simt.cu through mlgpu.cuda.gemm: values however operands lie, and what
the launches count."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cuda import gemm

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16, C64, C128 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.complex64), np.dtype(np.complex128)
TOLERANCE = {F32: 2e-6, F64: 1e-14, F16: 1e-3, BF16: 8e-3, C64: 2e-6, C128: 1e-14}


@pytest.fixture
def on(monkeypatch):
    """The product of mlgpu.cuda.gemm on a machine of the given architecture."""

    def chosen(arch="sm_80", precision="highest"):
        host = hosted(monkeypatch, gemm, arch=arch)
        gemm._plans.clear()
        monkeypatch.setattr(gemm, "_capability", lambda: int(arch[3:]))
        monkeypatch.setattr(gemm.backend, "precision", precision)

        def product(*operands, **options):
            given = {name: host.array(x) if type(x) is np.ndarray else x
                     for name, x in options.items()}
            return host.wrap(gemm.gemm)(*operands, **given)

        return host, product

    return chosen


def random(dtype, *shape):
    x = np.random.default_rng(len(shape)).standard_normal(shape)
    if dtype.kind == "c":
        x = x + 1j * x[::-1]
    return np.rint(3 * x).astype(dtype) if dtype.kind in "iu" else x.astype(dtype)


def exact(x):
    return x.astype({"c": np.complex128, "i": np.int64, "u": np.int64}.get(x.dtype.kind, F64))


def check(found, expected, tolerance=None):
    if found.dtype.kind in "iu":
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
    else:
        bound = (tolerance or TOLERANCE[found.dtype]) * max(1, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(exact(np.asarray(found)), expected, 0, bound)


def turned(x):
    """`x` with its columns as neighbours."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def gapped(x):
    """`x` with gaps between rows that vectors of 16 bytes do not divide."""
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
    wide[..., :x.shape[-1]] = x
    return wide[..., :x.shape[-1]]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "arch", "m", "n", "k", "lies"), [
    (F16, "sm_80", 70, 72, 40, (0, 0)), (F16, "sm_80", 70, 72, 40, (2, 1)),
    (F16, "sm_80", 70, 72, 40, (1, 2)), (F16, "sm_75", 70, 72, 40, (1, 1)),
    (BF16, "sm_90", 65, 67, 35, (0, 1)), (BF16, "sm_75", 34, 18, 40, (0, 0)),
    (F32, "sm_80", 70, 68, 36, (0, 1)), (F32, "sm_80", 70, 67, 36, (1, 2))], ids=str)
def test_every_way_operands_lie(on, dtype, arch, m, n, k, lies):
    form = (np.asarray, turned, gapped)
    a, b = form[lies[0]](random(dtype, m, k)), form[lies[1]](random(dtype, k, n))
    host, product = on(arch)
    check(product(a, b), exact(a) @ exact(b))
    assert len(host.reports) == 1  # nothing was copied


@pytest.mark.parametrize("dtype", [np.dtype(t) for t in (
    np.int8, np.int64, np.float64, C64)], ids=str)
def test_plain_dtypes(on, dtype):
    a, b, c = random(dtype, 17, 13), turned(random(dtype, 13, 9)), random(dtype, 9)
    _, product = on()
    check(product(a, b, bias=c, alpha=2, beta=-3), 2 * (exact(a) @ exact(b)) - 3 * exact(c))


@pytest.mark.parametrize(("a", "b", "bias"), [
    ((4, 3, 5), (5, 2), (2,)), ((2, 1, 3, 5), (4, 5, 2), (4, 1, 2)), ((3, 5), (4, 5, 2), (3, 1)),
    ((3, 0), (0, 2), (2,)), ((1, 5), (5, 1), ()),
    ((0, 3, 5), (5, 2), (2,)), ((3, 5), (5, 0), None)], ids=str)
def test_batches_and_empty_operands(on, a, b, bias):
    a, b = random(F32, *a), random(F32, *b)
    c = None if bias is None else random(F32, *bias)
    _, product = on()
    check(product(a, b, bias=c), a.astype(F64) @ b + (0 if c is None else c))


@pytest.mark.parametrize(("dtype", "n"), [(F16, 8), (F32, 7)], ids=str)
@pytest.mark.parametrize("k", [40, 1032])  # of which the longer is split
def test_epilogue(on, dtype, n, k):
    a, b, c, r = (random(dtype, *s) for s in ((9, k), (k, n), (n,), (9, n)))
    host, product = on()
    sums = host.empty((9,), dtype)
    y, pre = product(a, b, bias=c, activation="silu", residual=r, keep=True, row_sums=sums)
    assert len(host.reports) == 1 + (k > 512)
    x = exact(a) @ exact(b) + exact(c)
    check(pre, x)
    check(y, x / (1 + np.exp(-x)) + exact(r))
    check(sums, exact(a).sum(1))


@pytest.mark.parametrize(("dtype", "m", "n", "k", "form"), [
    (F16, 1, 100, 264, turned), (BF16, 3, 67, 131, turned), (F32, 4, 96, 260, turned),
    (F64, 150, 1, 190, np.asarray), (F16, 2, 264, 100, np.asarray), (F32, 1, 70, 300, np.asarray),
    (F32, 131, 1, 150, turned)], ids=lambda value: getattr(value, "__name__", str(value)))
def test_few_rows(on, dtype, m, n, k, form):
    a, b, c, r = (random(dtype, *s) for s in ((2, m, k), (2, k, n), (n,), (2, m, n)))
    host, product = on()
    y = product(a if n > 1 else form(a), form(b), bias=c, activation="relu", residual=r)
    check(y, np.maximum(exact(a) @ exact(b) + exact(c), 0) + exact(r))
    assert len(host.reports) <= 2
    for report in host.reports:
        assert report.metrics["bank_conflicts"] == 0


@pytest.mark.parametrize("activation", [a for a in gemm.ACTIVATIONS if a])
def test_activations_and_their_slopes(on, activation):
    host, product = on()
    x, one, dy = np.linspace(-4, 4, 37, dtype=F64)[:, None], np.ones((1, 1)), np.full((37, 1), 2.0)

    def value(at):
        return np.asarray(product(at, one, activation=activation))

    slopes = host.wrap(gemm.activation_backward)(dy, x, activation)
    smooth = np.abs(x) > 1e-3
    steps = value(x + 1e-6) - value(x - 1e-6)
    np.testing.assert_allclose(slopes[smooth], steps[smooth] / 1e-6, 1e-8, 1e-8)


def test_tf32(on):
    a, b = turned(random(F32, 70, 36)), random(F32, 36, 68)
    host, product = on(precision="high")
    sums = host.empty((70,), F32)
    y = product(a, b, row_sums=sums)
    check(sums, exact(a).sum(1))
    error = np.abs(y - a.astype(F64) @ b).max()
    assert 1e-4 < error < 1e-2
    check(on()[1](a, b), a.astype(F64) @ b)


@pytest.mark.parametrize(("rows", "columns"), [(5, 136), (20, 136), (40, 24), (20, 24)])
def test_the_same_bits_whatever_the_tile(on, rows, columns):
    a, b = random(F16, 70, 64), random(F16, 64, 136)
    whole, part = on()[1](a, b), on()[1](a[:rows], b[:, :columns])
    np.testing.assert_array_equal(part, whole[:rows, :columns])


# --- counters ------------------------------------------------------------------------------------

LARGE = (128, 128, 32, 64, 64, 4)


def measured(on, monkeypatch, dtype, tile, m, n, k, forms, **options):
    if tile is not None:
        monkeypatch.setattr(gemm, "_tensor_tile", lambda *_: tile)
    gemm._plans.clear()
    a, b = (f(random(dtype, *s)) for f, s in zip(forms, ((m, k), (k, n)), strict=True))
    host, product = on(**options)
    coarse = options.get("precision") == "high"
    check(product(a, b), exact(a) @ exact(b), 1e-3 if coarse else None)
    gemm._plans.clear()
    (report,) = host.reports
    return report.metrics


@pytest.mark.parametrize("forms", [(np.asarray, turned), (turned, np.asarray)], ids=["xw", "dw"])
def test_large_tiles(on, monkeypatch, forms):
    short, long = (measured(on, monkeypatch, F16, LARGE, 128, 128, k, forms) for k in (32, 96))
    assert long["tensor_instructions"] == 128 * 128 * 96 // 2048
    assert long["bank_conflicts"] == long["async_copy_bank_conflicts"] == 0
    assert long["global_load_sectors"] * 32 == (128 + 128) * 96 * 2
    assert long["global_store_efficiency"] == 100
    count = long["tensor_instructions"] - short["tensor_instructions"]
    assert (long["shared_wavefronts"] - short["shared_wavefronts"]) / count <= 1.5
    assert (long["instructions"] - short["instructions"]) / count <= 5
    if forms[0] is turned:  # the assembler takes long
        assert long["spill_stores"] == 0


@pytest.mark.parametrize(("dtype", "arch", "more", "sectors", "instructions"), [
    (F16, "sm_80", 4, 4, 11), (F16, "sm_80", 2, 4, 16.5), (F16, "sm_80", 1, 9, 25),
    (F32, "sm_80", 2, 4, 15.5), (F32, "sm_80", 1, 4, 20), (F16, "sm_75", 1, 4.5, 14.5)], ids=str)
@pytest.mark.parametrize("forms", [(np.asarray, turned), (turned, np.asarray)], ids=["xw", "dw"])
def test_lines_that_16_bytes_do_not_divide(on, monkeypatch, dtype, arch, more, sectors,
                                           instructions, forms):
    """Loads for each product on tensor cores; where 16 bytes divide lines, these are 4 sectors
    (2 of sm_75, whose products are half as large)."""
    options = {"arch": arch, "precision": "high"}
    long = measured(on, monkeypatch, dtype, None, 128 + more, 128 + more, 160, forms, **options)
    short = measured(on, monkeypatch, dtype, None, 128 + more, 128 + more, 64, forms, **options)
    count = long["tensor_instructions"] - short["tensor_instructions"]
    for name, most in (("global_load_sectors", sectors), ("instructions", instructions),
                       ("shared_wavefronts", 3)):
        assert (long[name] - short[name]) / count <= most, name
    assert long["bank_conflicts"] == long["async_copy_bank_conflicts"] == 0
    assert long["spill_stores"] == 0


def test_few_rows_read_the_matrix_once(on, monkeypatch):
    metrics = measured(on, monkeypatch, F16, None, 1, 64, 2048, (np.asarray, turned))
    assert metrics["shared_wavefronts"] == 0
    assert metrics["global_load_sectors"] * 32 == 2 * 64 * 2048 * 2  # and the row for each column
    assert metrics["unique_bytes_read"] == 65 * 2048 * 2


def test_plain_tiles(on, monkeypatch):
    monkeypatch.setattr(gemm, "_tiles_needed", 1)
    metrics = measured(on, monkeypatch, F32, None, 128, 128, 32, (np.asarray, turned))
    assert metrics["fp32_instructions"] >= 128 * 128 * 32
    assert metrics["bank_conflicts"] == 0
    assert metrics["global_load_sectors"] * 32 == (128 + 128) * 32 * 4
    assert metrics["global_store_efficiency"] == 100
    assert metrics["spill_stores"] == 0
    assert metrics["registers"] <= 128
