"""A GRU's compiled steps, with the batch cut among threads, are those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.cpu import fast, gru

pytest.importorskip("numba")


def results(dtype, n, hidden, threads=1, **options):
    before = mlgpu.get_num_threads()
    mlgpu.manual_seed(0)
    layer = nn.GRU(6, hidden, **options).to(dtype)
    x = mlgpu.randn(17, n, 6, dtype=mlgpu.float64).to(dtype).requires_grad_()
    first = mlgpu.randn(1 + layer.bidirectional, n, hidden, dtype=mlgpu.float64).to(dtype)
    first.requires_grad_()
    mlgpu.set_num_threads(threads)
    try:
        y, last = layer(x, first)
        shape = mlgpu.linspace(-1, 1, y.numel(), dtype=mlgpu.float64).reshape(y.shape).to(dtype)
        ((y * shape).sum() + (last * last).sum()).backward()
        with mlgpu.no_grad():  # which keeps the gates of no step
            alone = layer(x, first)[0]
    finally:
        mlgpu.set_num_threads(before)
    assert (alone == y).all()
    return [t.detach().numpy().astype(np.float64)
            for t in (y, last, x.grad, first.grad, *(p.grad for p in layer.parameters()))]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize(("n", "hidden"), [(1, 1), (3, 5), (9, 64)])
@pytest.mark.parametrize(("dtype", "tolerance"), [
    (mlgpu.float32, 2e-6), (mlgpu.float64, 1e-14), (mlgpu.bfloat16, 2e-2)], ids=str)
def test_compiled_steps(options, n, hidden, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(fast, "ENOUGH", 0)
    found = [results(dtype, n, hidden, threads, **options) for threads in (1, 2, 3)]
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    monkeypatch.setattr(gru, "loops", lambda *sizes: None)
    expected = results(mlgpu.float64 if dtype is mlgpu.float32 else dtype, n, hidden, **options)
    for ours, theirs in zip(found[0], expected, strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * max(1, np.abs(theirs).max())


def test_no_steps_and_no_rows(monkeypatch):
    monkeypatch.setattr(fast, "ENOUGH", 0)
    cell = nn.GRUCell(3, 4)
    assert cell(mlgpu.zeros(0, 3)).shape == (0, 4)
    y, last = nn.GRU(3, 4)(mlgpu.zeros(5, 0, 3))
    assert y.shape == (5, 0, 4)
    assert last.shape == (1, 0, 4)
