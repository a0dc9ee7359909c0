"""A recurrent layer whose batch is cut among threads is what float64 says it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlgpu
from mlgpu import nn


def results(dtype, threads, *, kind="LSTM", projection=0, reverse=False, n=9, **more):
    before = mlgpu.get_num_threads()
    mlgpu.manual_seed(0)
    if projection:
        more["proj_size"] = projection
    layer = getattr(nn, kind)(20, 64, bidirectional=reverse, **more).to(mlgpu.float64)
    x = mlgpu.randn(30, n, 20, dtype=mlgpu.float64)
    layer, x = layer.to(dtype), x.to(dtype).requires_grad_()
    mlgpu.set_num_threads(threads)
    try:
        y, state = layer(x)
        h, c = state if kind == "LSTM" else (state, state)
        shape = mlgpu.linspace(-1, 1, y.numel(), dtype=mlgpu.float64).reshape(y.shape).to(dtype)
        ((y * shape).sum() + (h * h).sum() + c.sum()).backward()
    finally:
        mlgpu.set_num_threads(before)
    return [t.detach().numpy() for t in (y, h, c, x.grad, *(p.grad for p in layer.parameters()))]


@pytest.mark.parametrize("options", [
    {}, {"projection": 24}, {"reverse": True}, {"n": 1},
    {"kind": "GRU", "n": 33}, {"kind": "GRU", "n": 33, "reverse": True, "bias": False},
    {"kind": "RNN", "n": 50}, {"kind": "RNN", "n": 50, "reverse": True, "nonlinearity": "relu"},
], ids=str)
def test_against_float64(options):
    expected = results(mlgpu.float64, 1, **options)
    for threads in (1, 2, 4):
        for ours, theirs in zip(results(mlgpu.float32, threads, **options), expected, strict=True):
            assert np.abs(ours - theirs).max() <= 3e-5 * max(1, np.abs(theirs).max())


def test_repeats_bit_by_bit():
    for first, second in itertools.pairwise([results(mlgpu.float32, 2) for _ in range(3)]):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_changed_between_forward_and_backward():
    before = mlgpu.get_num_threads()
    found = []
    try:
        for later in (2, 1, 3):
            mlgpu.set_num_threads(2)
            mlgpu.manual_seed(0)
            layer, x = nn.LSTM(20, 64), mlgpu.randn(30, 7, 20, requires_grad=True)
            y, _ = layer(x)
            mlgpu.set_num_threads(later)
            y.sum().backward()
            found.append(x.grad.numpy())
    finally:
        mlgpu.set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n", "hidden"), [(1, 1), (3, 5), (11, 17), (2, 40)])
@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64], ids=str)
def test_sizes_that_fill_no_register(n, hidden, dtype):
    mlgpu.manual_seed(0)
    layer, x = nn.LSTM(6, hidden).to(dtype), mlgpu.randn(5, n, 6, dtype=dtype)
    cell = nn.LSTMCell(6, hidden).to(dtype)
    cell.load_state_dict({name.removesuffix("_l0"): value.clone()
                          for name, value in layer.state_dict().items()})
    y, _ = layer(x)
    y.sin().sum().backward()
    state, outputs = None, []
    for t in range(len(x)):
        state = cell(x[t], state)
        outputs.append(state[0])
    mlgpu.stack(outputs).sin().sum().backward()
    close = {"rtol": 0, "atol": 1e-5 if dtype == mlgpu.float32 else 1e-13}
    for t, output in enumerate(outputs):
        np.testing.assert_allclose(y[t].detach().numpy(), output.detach().numpy(), **close)
    for ours, theirs in zip(layer.parameters(), cell.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), **close)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(bad):
    mlgpu.manual_seed(0)
    layer, x = nn.LSTM(6, 20), np.ones((4, 9, 6), np.float32)
    clean, _ = layer(mlgpu.tensor(x))
    x[1, 3, 2] = bad
    found, (_, cell) = layer(mlgpu.tensor(x))
    rest = np.arange(9) != 3
    np.testing.assert_array_equal(found.detach().numpy()[:, rest], clean.detach().numpy()[:, rest])
    assert np.isnan(found[1:, 3].detach().numpy()).all() == np.isnan(bad)
    assert np.isfinite(cell[0, 3].detach().numpy()).all() != np.isnan(bad)
