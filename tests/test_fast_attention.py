"""Attention in several blocks, by NumPy and by compiled loops, is what float64 says it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import attention as blocks
from mlgpu.cpu import fast
from mlgpu.nn import functional as F

FORMS = ["numpy", pytest.param("numba", marks=pytest.mark.skipif(
    fast.problem() is not None, reason=str(fast.problem())))]
SHAPES = [(2, 3, 150, 150), (3, 40, 170), (5, 170, 33), (200, 190), (2, 2, 2, 70, 70),
          (2, 5, 8, 40, 40)]


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    enough = 0 if request.param == "numba" else 1 << 62
    monkeypatch.setattr(fast, "ENOUGH", enough)
    return request.param


def exact(q, k, v, dy, causal, scale):
    q, k, v, dy = (x.astype(np.float64) for x in (q, k, v, dy))
    scores = q @ k.swapaxes(-1, -2) * scale
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
    return p @ v, ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy


def arrays(shape, dtype=np.float32):
    *lead, queries, keys = shape
    random = np.random.default_rng(0)
    return [random.standard_normal((*lead, n, 16)).astype(dtype)
            for n in (queries, keys, keys, queries)]


def results(q, k, v, dy, **options):
    inputs = [mlgpu.tensor(x, requires_grad=True) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*inputs, **options)
    y.backward(mlgpu.tensor(dy))
    return [y.detach().numpy(), *(x.grad.numpy() for x in inputs)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks(shape, causal, form):
    given = arrays(shape)
    found = results(*given, is_causal=causal, scale=0.3)
    for ours, theirs in zip(found, exact(*given, causal, 0.3), strict=True):
        assert np.abs(ours - theirs).max() <= 3e-6 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("options", [
    {"is_causal": True}, {"dropout_p": 0.3}, {"dropout_p": 0.3, "is_causal": True}], ids=str)
def test_the_same_again_and_by_other_numbers_of_threads(options, form):
    given = arrays((2, 6, 256, 256))
    before = mlgpu.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 2, 3):
            mlgpu.set_num_threads(threads)
            mlgpu.manual_seed(1)
            found.append(results(*given, **options))
    finally:
        mlgpu.set_num_threads(before)
    for first, second in itertools.pairwise(found):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dropout_in_blocks_is_the_differentiable_form(form):
    given = arrays((2, 100, 90))
    found = []
    for graph in (False, True):
        mlgpu.manual_seed(5)
        inputs = [mlgpu.tensor(x, requires_grad=True) for x in given[:3]]
        y = F.scaled_dot_product_attention(*inputs, dropout_p=0.4)
        grads = mlgpu.autograd.grad(y, inputs, mlgpu.tensor(given[3]), create_graph=graph)
        found.append([y.detach().numpy(), *(g.detach().numpy() for g in grads)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(b).max())


def test_nan_and_infinity_stay_in_their_rows(form):
    q, k, v, _ = arrays((1, 100, 100))
    q[0, 7] = np.nan
    k[0, 90] = np.inf  # seen by the last ten queries alone
    y = F.scaled_dot_product_attention(*map(mlgpu.tensor, (q, k, v)), is_causal=True).numpy()
    assert np.isnan(y[0, 7]).all()
    assert np.isnan(y[0, 90:]).all()
    assert np.isfinite(np.delete(y[0, :90], 7, axis=0)).all()


def test_queries_without_keys(form):
    q, k, v, dy = arrays((4, 80, 70))
    seen = np.random.default_rng(1).random((4, 80, 70)) < 0.5
    seen[:, 10:30] = False
    found = results(q, k, v, dy, attn_mask=mlgpu.tensor(seen))
    for array in found:
        assert np.isfinite(array).all()
    assert not found[0][:, 10:30].any()
    assert not found[1][:, 10:30].any()


def test_lengths_in_blocks(form):
    given = arrays((3, 2, 100, 150))
    lengths = [0, 77, 150]
    found = results(*given, key_lengths=mlgpu.tensor(lengths))
    for place, length in enumerate(lengths):
        q, k, v, dy = (x[place] for x in given)
        y, dq, dk, dv = (x[place] for x in found)
        assert not dk[:, length:].any()
        assert not dv[:, length:].any()
        if not length:
            assert not y.any()
            assert not dq.any()
            continue
        kept = exact(q, k[:, :length], v[:, :length], dy, False, 0.25)
        for ours, theirs in zip((y, dq, dk[:, :length], dv[:, :length]), kept, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6 * np.abs(theirs).max())


def test_several_tasks():
    """What the tests above run is in fact cut."""
    q = np.empty((2, 3, 150, 16), np.float32)
    plan = blocks.Plan((2, 3), q, q, q, True, None)
    assert plan.rows < 150
    assert plan.heads(plan.rows * 150).count > 1


CUTS = {
    "unpacked": lambda x: x.view(2, 40, 3, 4, 16).permute(2, 0, 3, 1, 4),
    "chunk": lambda x: [y.view(2, 40, 4, 16).transpose(1, 2) for y in x.chunk(3, -1)],
    "one twice": lambda x: [x.view(2, 40, 3, 4, 16).permute(2, 0, 3, 1, 4)[i] for i in (0, 1, 1)],
}


@pytest.mark.parametrize("cut", CUTS)
def test_gradients_of_what_was_cut_are_those_of_copies(cut, form):
    random = np.random.default_rng(0)
    values = random.standard_normal((2, 40, 192)).astype(np.float32)
    dy = mlgpu.tensor(random.standard_normal((2, 4, 40, 16)).astype(np.float32))
    found = []
    for copied in (False, True):
        leaf = mlgpu.tensor(values, requires_grad=True)
        before = mlgpu.memory.stats().allocated
        pieces = CUTS[cut](leaf * 1)
        y = F.scaled_dot_product_attention(*(x.clone() if copied else x for x in pieces))
        y.backward(dy)
        del y, pieces
        found.append(leaf.grad.numpy())
        assert mlgpu.memory.stats().allocated == before + leaf.grad.nbytes
    np.testing.assert_array_equal(*found)
