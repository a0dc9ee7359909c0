"""Softmax, norms and class losses at sizes of several blocks and threads, in NumPy and compiled."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import fast, rows
from mlgpu.nn import functional

FORMS = ["numpy", pytest.param("compiled", marks=pytest.mark.skipif(
    fast.problem() is not None, reason=f"compiled loops: {fast.problem()}"))]
DTYPES = ["float32", "float64", "float16", "bfloat16"]
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(fast, "load", lambda family, work: None)
    return request.param


@pytest.fixture(autouse=True)
def threads():
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(2)
    yield
    mlgpu.set_num_threads(before)


def numbers(shape, seed=0, spread=1.0, level=0.0):
    return drawn(shape, seed) * spread + level


@functools.lru_cache(maxsize=8)
def drawn(shape, seed):
    """The same for each dtype."""
    return np.random.default_rng(seed).standard_normal(shape)


def softmax(x, dim=-1):
    power = np.exp(x - x.max(dim, keepdims=True))
    return power / power.sum(dim, keepdims=True)


def log_softmax(x, dim=-1):
    x = x - x.max(dim, keepdims=True)
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


def given(array, dtype, grad=True):
    """A tensor, and what it holds, in float64."""
    x = mlgpu.tensor(array, dtype=getattr(mlgpu, dtype)).requires_grad_(grad)
    return x, x.detach().double().numpy()


def close(result, expected, dtype, factor=8):
    result = result.detach().double().numpy()
    largest = np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=factor * EPS[dtype],
                               atol=factor * EPS[dtype] * largest)


def bits(function):
    """The arrays of a call."""
    return [np.asarray(t.detach().numpy()).copy() for t in function()]


SHAPES = [((1000, 700), -1), ((3, 300000), -1), ((100000, 9), -1), ((700, 1000), 0),
          ((6, 21, 5000), 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_softmax(form, shape, dim, dtype):
    x, exact = given(numbers(shape), dtype)
    grad, dy = given(numbers(shape, 1), dtype, grad=False)
    y = functional.softmax(x, dim)
    expected = softmax(exact, dim)
    close(y, expected, dtype)
    y.backward(grad)
    y = y.detach().double().numpy()  # the gradient is of what was rounded
    close(x.grad, y * (dy - (dy * y).sum(dim, keepdims=True)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_log_softmax(form, shape, dim, dtype):
    x, exact = given(numbers(shape), dtype)
    grad, dy = given(numbers(shape, 1), dtype, grad=False)
    y = functional.log_softmax(x, dim)
    close(y, log_softmax(exact, dim), dtype)
    y.backward(grad)
    y = y.detach().double().numpy()
    close(x.grad, dy - np.exp(y) * dy.sum(dim, keepdims=True), dtype, 64)


@pytest.mark.parametrize(("spread", "level"), [(1, 0), (30, -300), (3, 200), (40, 0), (1, -90),
                                               (200, 1e4)])
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_wherever_the_numbers_are(form, spread, level, dim):
    """The shift that takes the maximum's place is found for rows of any level."""
    x, exact = given(numbers((800, 700), 0, spread, level), "float32", grad=False)
    result = functional.softmax(x, dim)
    close(result, softmax(exact, dim), "float32", 16)
    target = mlgpu.tensor(np.arange(800 if dim else 700) % 700)
    scores = x if dim else x.T.contiguous()
    loss = functional.cross_entropy(scores, target, reduction="none")
    losses = -log_softmax(exact if dim else exact.T)[np.arange(len(target)), target.numpy()]
    np.testing.assert_allclose(loss.numpy(), losses, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_that_are_not_finite_spoil_no_other(form, dim):
    x = numbers((900, 600)).astype(np.float32)
    x[::7, :400] = -np.inf
    spoilt = {3: (5, np.nan), 450: (599, np.inf), 451: (slice(None), -np.inf), 899: (0, np.nan)}
    for row, (place, value) in spoilt.items():
        x[row, place] = value
    whole = [i for i in range(len(x)) if i not in spoilt]
    tensor = mlgpu.tensor(x if dim else x.T.copy())
    for function, exact in ((functional.softmax, softmax), (functional.log_softmax, log_softmax)):
        result = function(tensor, dim).numpy()
        result = result if dim else result.T
        assert np.isnan(result[list(spoilt)]).all()
        np.testing.assert_allclose(result[whole], exact(x[whole].astype(np.float64)), rtol=4e-6,
                                   atol=1e-9)
    if dim:
        loss = functional.cross_entropy(tensor, mlgpu.tensor(np.full(900, 500)), reduction="none")
        assert np.isnan(loss.numpy()[list(spoilt)]).all()
        assert np.isfinite(loss.numpy()[whole]).all()


def test_a_rows_result_is_a_matter_of_that_row(form):
    x = numbers((600, 800)).astype(np.float32)
    before = functional.softmax(mlgpu.tensor(x), -1).numpy().copy()
    x[::2] += 500
    x[1::4, 0] = 40  # as the first number: its row is shifted, and no other
    after = functional.softmax(mlgpu.tensor(x), -1).numpy()
    np.testing.assert_array_equal(before[3::4], after[3::4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(1500, 300), (5, 200000), (60000, 8)])
def test_norms_of_rows(form, name, affine, shape, dtype):
    n = shape[1]
    x, exact = given(numbers(shape, 0, 2.0, 0.5), dtype)
    dy, g = given(numbers(shape, 1), dtype, grad=False)
    vectors = [given(numbers(n, 2 + i), dtype) for i in range(2 if name == "layer_norm" else 1)]
    y = getattr(functional, name)(x, (n,), *(t for t, _ in vectors if affine), eps=1e-5)
    mean = exact.mean(1, keepdims=True) if name == "layer_norm" else 0
    rstd = 1 / np.sqrt(((exact - mean) ** 2).mean(1, keepdims=True) + 1e-5)
    normal = (exact - mean) * rstd
    scale = vectors[0][1] if affine else 1
    shift = vectors[1][1] if affine and len(vectors) > 1 else 0
    close(y, normal * scale + shift, dtype)
    y.backward(dy)
    h = g * scale
    dx = h - normal * (h * normal).mean(1, keepdims=True)
    if name == "layer_norm":
        dx = dx - h.mean(1, keepdims=True)
    close(x.grad, dx * rstd, dtype)
    if affine:
        for (vector, _), expected in zip(vectors, (g * normal, g), strict=False):
            close(vector.grad, expected.sum(0), dtype, 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(16, 24, 40, 40), (4000, 12, 7), (3, 8, 40000)])
def test_group_norm(form, shape, dtype):
    x, exact = given(numbers(shape), dtype)
    dy, g = given(numbers(shape, 1), dtype, grad=False)
    (weight, scale), (bias, shift) = (given(numbers(shape[1], 2 + i), dtype) for i in range(2))
    y = functional.group_norm(x, 4, weight, bias)
    rows = exact.reshape(shape[0], 4, -1)
    mean = rows.mean(2, keepdims=True)
    rstd = 1 / np.sqrt(((rows - mean) ** 2).mean(2, keepdims=True) + 1e-5)
    normal = ((rows - mean) * rstd).reshape(shape)
    per_channel = (1, -1, *(1,) * (len(shape) - 2))
    close(y, normal * scale.reshape(per_channel) + shift.reshape(per_channel), dtype)
    y.backward(dy)
    h, z = (v.reshape(rows.shape) for v in (g * scale.reshape(per_channel), normal))
    dx = (h - h.mean(2, keepdims=True) - z * (h * z).mean(2, keepdims=True)) * rstd
    close(x.grad, dx.reshape(shape), dtype)
    axes = (0, *range(2, len(shape)))
    close(weight.grad, (g * normal).sum(axes), dtype, 64)
    close(bias.grad, g.sum(axes), dtype, 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(16, 24, 40, 40), (500, 40, 30), (9000, 70)])
def test_batch_norm(form, shape, dtype):
    x, exact = given(numbers(shape, 0, 2.0, 0.5), dtype)
    dy, g = given(numbers(shape, 1), dtype, grad=False)
    (weight, scale), (bias, shift) = (given(numbers(shape[1], 2 + i), dtype) for i in range(2))
    y = functional.batch_norm(x, None, None, weight, bias, training=True)
    axes = (0, *range(2, len(shape)))
    mean = exact.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(((exact - mean) ** 2).mean(axes, keepdims=True) + 1e-5)
    normal = (exact - mean) * rstd
    scale, shift = (v.reshape(rstd.shape) for v in (scale, shift))
    close(y, normal * scale + shift, dtype)
    y.backward(dy)
    dx = g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True)
    close(x.grad, dx * rstd * scale, dtype)
    close(weight.grad, (g * normal).sum(axes), dtype, 64)
    close(bias.grad, g.sum(axes), dtype, 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(900, 700), (7, 90000), (60000, 10), (5, 17, 6000)])
def test_cross_entropy(form, shape, smoothing, dtype):
    x, exact = given(numbers(shape, 0, 2.0), dtype)
    weight, share = given(np.abs(numbers(shape[1], 1)) + 0.5, dtype, grad=False)
    target = np.random.default_rng(2).integers(0, shape[1], (shape[0], *shape[2:]))
    target[::5] = -100
    loss = functional.cross_entropy(x, mlgpu.tensor(target), weight, label_smoothing=smoothing)
    counted = (target != -100)[:, None]
    index = np.where(counted, target[:, None], 0)
    labels = np.zeros(shape)
    np.put_along_axis(labels, index, 1 - smoothing, 1)
    labels = labels + smoothing / shape[1]
    per_class = (1, -1, *(1,) * (len(shape) - 2))
    labels = labels * share.reshape(per_class) * counted
    total = (share[index] * counted).sum()
    losses = -(labels * log_softmax(exact, 1)).sum()
    np.testing.assert_allclose(float(loss.detach()), losses / total, rtol=8 * EPS[dtype])
    loss.backward()
    expected = (softmax(exact, 1) * labels.sum(1, keepdims=True) - labels) / total
    np.testing.assert_allclose(x.grad.double().numpy(), expected, rtol=8 * max(
        EPS[dtype], 2.0**-23), atol=max(8 * EPS[dtype] * np.abs(expected).max(), 6e-8))


def steps():
    """Calls of every operation, each with its gradients."""
    def one(call, *shapes):
        def run():
            inputs = [mlgpu.tensor(numbers(s, i).astype(np.float32)).requires_grad_(True)
                      for i, s in enumerate(shapes)]
            y = call(*inputs)
            y.backward(mlgpu.tensor(numbers(y.shape, 9).astype(np.float32)))
            return [y, *(x.grad for x in inputs)]
        return run

    target = mlgpu.tensor(np.arange(3000) % 300)
    yield "softmax", one(lambda x: functional.softmax(x, 1), (3000, 300))
    yield "softmax of columns", one(lambda x: functional.softmax(x, 0), (3000, 300))
    yield "log_softmax", one(lambda x: functional.log_softmax(x, 1), (3000, 300))
    yield "layer_norm", one(lambda x, w, b: functional.layer_norm(x, (300,), w, b), (3000, 300),
                            300, 300)
    yield "group_norm", one(lambda x, w, b: functional.group_norm(x, 4, w, b), (20, 40, 900), 40,
                            40)
    yield "batch_norm", one(lambda x, w, b: functional.batch_norm(x, None, None, w, b, True),
                            (20, 40, 900), 40, 40)
    yield "cross_entropy", one(lambda x: functional.cross_entropy(x, target), (3000, 300))
    spoken = mlgpu.tensor(np.arange(20).reshape(4, 5)), *map(mlgpu.tensor, (
        [30, 30, 20, 1], [5, 3, 5, 0]))
    yield "rnnt_loss", one(lambda x: functional.rnnt_loss(x, *spoken, clamp=0.3), (4, 30, 6, 300))


@pytest.mark.parametrize(("name", "run"), [pytest.param(*s, id=s[0]) for s in steps()])
def test_threads_change_nothing(form, name, run):
    first = bits(run)
    for again in (bits(run), bits(run)):
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
    mlgpu.set_num_threads(1)
    for a, b in zip(first, bits(run), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max())


@pytest.mark.skipif(fast.problem() is not None, reason=f"compiled loops: {fast.problem()}")
@pytest.mark.parametrize(("name", "run"), [pytest.param(*s, id=s[0]) for s in steps()])
def test_forms_agree(monkeypatch, name, run):
    compiled = bits(run)
    monkeypatch.setattr(fast, "load", lambda family, work: None)
    for a, b in zip(compiled, bits(run), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize("level", [0.0, 0.7, 3.0, 100.0])
def test_layer_norm_wherever_the_rows_are(form, level):
    """A mean far from 0 costs no digits beyond those of the mean itself."""
    levels = np.where(np.arange(900) % 3 == 0, 0, level)[:, None]
    (x, exact), (w, scale) = given(numbers((900, 700)) + levels, "float32"), given(
        numbers(700, 1), "float32")
    dy, g = given(numbers((900, 700), 2), "float32", grad=False)
    y = functional.layer_norm(x, (700,), w)
    centered = exact - exact.mean(1, keepdims=True)
    rstd = 1 / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5)
    normal = centered * rstd
    factor = 8 + level
    close(y, normal * scale, "float32", factor)
    y.backward(dy)
    h = g * scale
    dx = h - h.mean(1, keepdims=True) - normal * (h * normal).mean(1, keepdims=True)
    close(x.grad, dx * rstd, "float32", factor)
    close(w.grad, (g * normal).sum(0), "float32", factor)


def test_a_row_that_is_not_finite_spoils_no_other_of_layer_norm(form):
    """And a row's result is a matter of that row, also where others are far from 0."""
    x = numbers((900, 700)).astype(np.float32)
    weight, bias = (mlgpu.tensor(numbers(700, i).astype(np.float32)) for i in (1, 2))
    before = functional.layer_norm(mlgpu.tensor(x), (700,), weight, bias).numpy().copy()
    x[3, 5], x[450, 0], x[899] = np.nan, np.inf, -np.inf
    x[10::50] += 1000
    after = functional.layer_norm(mlgpu.tensor(x), (700,), weight, bias).numpy()
    assert np.isnan(after[[3, 450, 899]]).all()
    others = np.setdiff1d(np.arange(900), [3, 450, 899, *range(10, 900, 50)])
    np.testing.assert_array_equal(before[others], after[others])


@pytest.mark.skipif(fast.problem() is not None, reason=f"compiled loops: {fast.problem()}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_sent_past_the_caches_are_the_same_within_rounding(monkeypatch, dtype):
    from mlgpu.cpu.fast import norm, streams

    def run():
        x, _ = given(numbers((2200, 1024)), dtype)
        vectors = [given(numbers(1024, i), dtype)[0] for i in (1, 2)]
        y = functional.layer_norm(x, (1024,), *vectors)
        assert norm.sends(y.detach().numpy()) is streams._PAYS
        y.backward(given(numbers((2200, 1024), 3), dtype, grad=False)[0])
        return [y, x.grad, *(v.grad for v in vectors)]

    monkeypatch.setattr(streams, "_PAYS", True)
    sent = run()
    monkeypatch.setattr(streams, "_PAYS", False)
    for a, b in zip(sent, run(), strict=True):  # sums of gradients are taken in other parts
        a, b = a.detach().numpy(), b.detach().numpy()
        assert np.abs(a - b).max() <= 8 * np.finfo(dtype).eps * np.abs(b).max()


@pytest.mark.parametrize("loop", [False, True])
def test_sums_over_rows_are_cut_by_shape_alone(loop):
    """Also of rows so long that there are many blocks of few elements."""
    shape = (40, 300_000)
    x = np.broadcast_to(np.float32(1), shape)
    found = []
    for threads in (1, 2, 16):
        mlgpu.set_num_threads(threads)
        parts = rows.partial_sums(shape, (1,), np.float32)

        def count(out, part):
            part += len(out)

        rows.each_block(count, x, parts=[parts], loop=loop)
        found.append(parts.ravel().tolist())
    assert found[0] == found[1] == found[2]
    assert sum(found[0]) == len(x)
    assert len([part for part in found[0] if part]) == rows.GROUPS
