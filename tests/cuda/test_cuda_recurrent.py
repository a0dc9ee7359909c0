"""How many kernels a recurrent layer launches: its products, and one for the gates of each step."""

from __future__ import annotations

import collections
import re

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.cuda import recurrent
from mlgpu.sim.cuda.install import installed

SYSTEM = installed()
counted = pytest.mark.skipif(SYSTEM is None, reason="launches are counted by simulated devices")
N, FEATURES, HIDDEN = 4, 8, 16


def launched(call):
    names = []

    def note(launch, module):
        names.append(re.match(r"(?:_Z\d+)?([a-z0-9_]+)", launch.code.name)[1])

    mlgpu.cuda.synchronize()
    SYSTEM.watchers.append(note)
    try:
        result = call()
        mlgpu.cuda.synchronize()
    finally:
        SYSTEM.watchers.remove(note)
    return result, collections.Counter(names)


def random(*shape):
    values = np.random.default_rng(shape).standard_normal(shape).astype(np.float32)
    return mlgpu.tensor(values, device="cuda", requires_grad=True)


@counted
@pytest.mark.parametrize(("name", "adds"), [("LSTM", 1), ("GRU", 0)])
def test_a_cell(name, adds):
    cell = getattr(nn, f"{name}Cell")(FEATURES, HIDDEN, device="cuda")
    x, *state = random(N, FEATURES), random(N, HIDDEN), random(N, HIDDEN)
    given = tuple(state) if name == "LSTM" else state[0]
    result, names = launched(lambda: cell(x, given))
    # The sum of the biases, the products with the input and the state, and the gates.
    assert names.pop("fused_add_contiguous", 0) == adds
    assert names == {"gemm_simt": 2, f"{name.lower()}_forward": 1}
    results = result if name == "LSTM" else (result,)
    _, names = launched(lambda: mlgpu.autograd.backward(
        results, [mlgpu.ones_like(y) for y in results]))
    # The gradients of the state, its weight (with its bias), the input, and its weight.
    fills = names.pop("fused_fill_contiguous", 0)
    assert fills <= len(results)
    assert names == {f"{name.lower()}_backward": 1, "gemm_simt": 4}


@counted
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_step_is_a_product_and_the_gates(name, keep):
    layer = getattr(nn, name)(FEATURES, HIDDEN, device="cuda")
    state = random(1, N, HIDDEN).detach()
    state = (state, state) if name == "LSTM" else state
    totals = []
    with mlgpu.set_grad_enabled(keep):
        for steps in (3, 5):
            x = random(steps, N, FEATURES)
            (y, _), names = launched(lambda x=x: layer(x, state))
            assert names[f"{name.lower()}_forward"] == steps
            assert names["gemm_simt"] == steps + 1  # the input's is one for all steps
            assert sum(names.values()) <= 2 * steps + 2
            if not keep:
                continue
            dy = mlgpu.ones_like(y)
            layer.zero_grad()
            _, names = launched(lambda y=y, dy=dy: y.backward(dy))
            assert names[f"{name.lower()}_backward"] == steps
            totals.append(sum(names.values()))
    assert not keep or totals[1] - totals[0] == 2 * 2


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("bias", [(0, 0), (1, 1), (1, 0), (0, 1)])
def test_cells_as_on_the_cpu(name, bias):
    gates = {"lstm": 4, "gru": 3, "rnn_tanh": 1}[name] * HIDDEN
    shapes = [(N, FEATURES), *[(N, HIDDEN)] * (1 + (name == "lstm")), (gates, FEATURES),
              (gates, HIDDEN)]
    inputs = [random(*shape) for shape in shapes]
    biases = [random(gates) if there else None for there in bias]

    def results(device):
        x, *rest, w_ih, w_hh = own = [t.detach().to(device).requires_grad_() for t in inputs]
        more = [b if b is None else b.detach().to(device).requires_grad_() for b in biases]
        state = tuple(rest) if name == "lstm" else rest[0]
        out = getattr(mlgpu, f"{name}_cell")(x, state, w_ih, w_hh, *more)
        outs = out if name == "lstm" else (out,)
        loss = sum((y * (k + 1)).sin().sum() for k, y in enumerate(outs))
        first = mlgpu.autograd.grad(loss, [*own, *[b for b in more if b is not None]],
                                    create_graph=True)
        second = mlgpu.autograd.grad(sum(g.square().sum() for g in first), own)
        return [t.detach().cpu().numpy() for t in (*outs, *first, *second)]

    for got, want in zip(results("cuda"), results("cpu"), strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 1e-4)


def test_one_of_two_results_of_an_lstm_cell():
    for used in (0, 1):
        grads = []
        for device in ("cpu", "cuda"):
            mlgpu.manual_seed(0)
            cell = nn.LSTMCell(FEATURES, HIDDEN).to(device)
            x, h, c = (random(N, size).detach().to(device).requires_grad_()
                       for size in (FEATURES, HIDDEN, HIDDEN))
            cell(x, (h, c))[used].sum().backward()
            grads.append([t.grad.cpu().numpy() for t in (x, h, c, *cell.parameters())])
        for want, got in zip(*grads, strict=True):
            np.testing.assert_allclose(got, want, 1e-5, 1e-5)


def test_operands_that_are_broadcast_or_promoted():
    x, h, w_ih, w_hh = (random(*shape).detach() for shape in (
        (1, FEATURES), (N, HIDDEN), (3 * HIDDEN, FEATURES), (3 * HIDDEN, HIDDEN)))
    whole = mlgpu.gru_cell(x.expand(N, FEATURES), h, w_ih, w_hh)
    np.testing.assert_allclose(mlgpu.gru_cell(x, h, w_ih, w_hh).cpu().numpy(),
                               whole.cpu().numpy(), 1e-5, 1e-5)
    mixed = mlgpu.gru_cell(x.expand(N, FEATURES), h.double(), w_ih, w_hh.double())
    assert mixed.dtype is mlgpu.float64
    np.testing.assert_allclose(mixed.cpu().numpy(), whole.cpu().numpy(), 1e-5, 1e-5)


def plain(step, start, stop, moving, period=1):
    for at in range(start, stop):
        step(at)


@pytest.mark.parametrize(("name", "keep", "hidden"), [
    ("RNN", True, 4), ("LSTM", True, 4), ("LSTM", False, 4), ("GRU", True, 4),
    ("GRU", True, 3)])  # whose steps are no whole vectors
def test_repeated_steps_are_those_of_a_loop(name, keep, hidden, monkeypatch):
    layer = getattr(nn, name)(4, hidden, bidirectional=True, device="cuda")
    x, gemm, prepared = random(5, 1, 4), recurrent.gemm, []

    def counted(*arguments, **options):
        prepared.append(0)
        return gemm(*arguments, **options)

    def results():
        layer.zero_grad()
        x.grad = None
        with mlgpu.set_grad_enabled(keep):
            y, state = layer(x)
            found = [y, *(state if isinstance(state, tuple) else (state,))]
            if keep:
                mlgpu.autograd.backward(found, [mlgpu.ones_like(r) for r in found])
                found += [x.grad, *(p.grad for p in layer.parameters())]
        return [r.numpy(force=True) for r in found]

    monkeypatch.setattr(recurrent, "gemm", counted)
    found, few = results(), len(prepared)
    monkeypatch.setattr(recurrent, "repeat", plain)
    for one, other in zip(found, results(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (len(prepared) > 2 * few) == (hidden == 4)
