"""RNN, LSTM, GRU and their cells: the textbook recurrence, PyTorch's results, derivatives."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn
from mlgpu.testing import gradcheck, gradgradcheck

OPTIONS = [
    {}, {"bias": False}, {"num_layers": 3}, {"bidirectional": True}, {"batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}]
LAYERS = [(name, options) for name in ("RNN", "LSTM", "GRU") for options in OPTIONS] + [
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("LSTM", {"proj_size": 2}), ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True})]


def named(name, options):
    return f"{name}-{'-'.join(f'{k}={v}' for k, v in options.items()) or 'defaults'}"


IDS = [named(*layer) for layer in LAYERS]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(layer, suffix, x, state):
    """One step of the recurrence, from the definition, on arrays."""
    def weight(name):
        found = getattr(layer, name + suffix, None)
        return None if found is None else found.detach().numpy()

    def affine(kind, value):
        bias = weight(f"bias_{kind}")
        return value @ weight(f"weight_{kind}").T + (0 if bias is None else bias)

    total = affine("ih", x) + affine("hh", state[0])
    mode = getattr(layer, "mode", type(layer).__name__)
    if mode.startswith("RNN"):
        return (np.maximum(total, 0) if layer.nonlinearity == "relu" else np.tanh(total),)
    if mode.startswith("LSTM"):
        i, f, g, o = np.split(total, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        projection = weight("weight_hr")
        return (h if projection is None else h @ projection.T), c
    r, z, _ = np.split(sigmoid(total), 3, -1)
    from_x, from_h = (np.split(affine(kind, v), 3, -1)[2] for kind, v in (("ih", x),
                                                                        ("hh", state[0])))
    n = np.tanh(from_x + r * from_h)
    return ((1 - z) * n + z * state[0],)


def unrolled(layer, x, states):
    """The layers' outputs and last states; x is (steps, n, features)."""
    last = []
    for number in range(layer.num_layers):
        outputs = []
        for suffix in [f"_l{number}", f"_l{number}_reverse"][:1 + layer.bidirectional]:
            state = tuple(part[len(last)] for part in states)
            order = range(len(x))[::-1] if suffix.endswith("reverse") else range(len(x))
            y = [None] * len(x)
            for t in order:
                state = step(layer, suffix, x[t], state)
                y[t] = state[0]
            outputs.append(np.stack(y))
            last.append(state)
        x = np.concatenate(outputs, -1)
    return x, [np.stack(part) for part in zip(*last, strict=True)]


def problem(layer, steps=5, n=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((steps, n, layer.input_size))
    count = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][:1 + (layer.mode == "LSTM")]
    return x, [rng.standard_normal((count, n, size)) for size in sizes]


def run(layer, x, states, tensor=mlgpu.tensor):
    hx = [tensor(s) for s in states]
    return layer(tensor(x), tuple(hx) if layer.mode == "LSTM" else hx[0])


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
def test_recurrence(name, options):
    mlgpu.manual_seed(0)
    layer = getattr(nn, name)(3, 4, **options).double()
    x, states = problem(layer)
    y, last = unrolled(layer, x, states)
    swap = (lambda a: a.swapaxes(0, 1)) if layer.batch_first else (lambda a: a)
    found, *state = twin.flat(run(layer, swap(x), states))
    np.testing.assert_allclose(found.detach().numpy(), swap(y), rtol=1e-10)
    for a, b in zip(state, last, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-10)
    with mlgpu.no_grad():  # without a graph less is kept, and the results are the same
        again, *_ = twin.flat(run(layer, swap(x), states))
    assert again.tolist() == found.tolist()


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
@pytest.mark.parametrize("given", [True, False], ids=["state", "no state"])
def test_equals_pytorch(name, options, given):
    mine, theirs = twin.twins(name, 3, 4, **options)
    assert repr(mine) == repr(theirs)
    x, states = problem(mine)
    x = x.swapaxes(0, 1).copy() if mine.batch_first else x
    pack = (lambda *hx: (tuple(hx),)) if name == "LSTM" else (lambda *hx: hx)

    class Called:
        def __init__(self, layer):
            self.layer = layer
            self.parameters = layer.parameters

        def __call__(self, x, *hx):
            return self.layer(x, *(pack(*hx) if hx else ()))

    twin.compare(Called(mine), Called(theirs), x, *(states if given else ()))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_without_batch(name):
    mine, theirs = twin.twins(name, 3, 4, num_layers=2, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((5, 3))
    twin.compare(mine, theirs, x)


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
def test_derivatives(name, options):
    """First and second derivatives, of inputs, states and weights."""
    layers = options.get("num_layers", 1)
    if layers > 2 or options.get("batch_first") or (layers > 1 and "proj_size" in options):
        pytest.skip("the layers are alike; two, one order and one projection are enough")
    mlgpu.manual_seed(1)
    layer = getattr(nn, name)(2, 2, **{**options, **({"proj_size": 1} if "proj_size" in options
                                                     else {})}).double()
    x, states = problem(layer, steps=2, n=2, seed=3)
    weights = list(layer.parameters())
    inputs = [mlgpu.tensor(v, requires_grad=True) for v in (x, *states)]

    def function(x, *rest):
        return tuple(twin.flat(layer(x, rest[:2] if name == "LSTM" else rest[0])))

    assert gradcheck(function, (*inputs, *weights))
    if "relu" not in options.values() and (name == "RNN" or "bidirectional" not in options):
        assert gradgradcheck(function, (*inputs, *weights[:2]))


def test_tied_and_truncated_weights():
    """A state that depends on the same weights: nothing is counted twice under create_graph."""
    for name in ("RNN", "LSTM", "GRU"):
        mlgpu.manual_seed(0)
        layer = getattr(nn, name)(2, 3).double()
        x = mlgpu.tensor(np.random.default_rng(0).standard_normal((4, 1, 2)))

        def loss(layer=layer, x=x):
            first, state = layer(x[:2])
            second, _ = layer(x[2:], state)
            return (first * first).sum() + (second * second).sum()

        fast = mlgpu.autograd.grad(loss(), list(layer.parameters()))
        slow = mlgpu.autograd.grad(loss(), list(layer.parameters()), create_graph=True)
        for a, b in zip(fast, slow, strict=True):
            np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_float32_and_half(name):
    mlgpu.manual_seed(0)
    layer = getattr(nn, name)(3, 4, num_layers=2)
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal((5, 2, 3)), dtype=mlgpu.float32)
    exact = twin.flat(layer.double()(x.double()))[0].detach().numpy()
    for dtype, tolerance in ((mlgpu.float32, 1e-6), (mlgpu.float16, 4e-3), (mlgpu.bfloat16, 3e-2)):
        y = twin.flat(layer.to(dtype)(x.to(dtype)))[0]
        assert y.dtype is dtype
        np.testing.assert_allclose(y.detach().double().numpy(), exact, atol=tolerance)
        y.sum().backward()
        assert layer.weight_hh_l0.grad.dtype is dtype
        layer.zero_grad()


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_cells(name, options):
    mine, theirs = twin.twins(name, 3, 4, **options)
    assert repr(mine) == repr(theirs)
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal((2, n)) for n in (3, 4, 4))
    states = (h, c) if name == "LSTMCell" else (h,)
    hx = tuple(map(mlgpu.tensor, states))
    found = twin.flat(mine(mlgpu.tensor(x), hx if len(hx) == 2 else hx[0]))
    for a, b in zip(found, step(mine, "", x, states), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-12)
    twin.compare(mine, theirs, x)
    mine.zero_grad()
    theirs.zero_grad()
    twin.compare(mine, theirs, x[0])


def test_relu_cell():
    mine, theirs = twin.twins("RNNCell", 3, 4, nonlinearity="relu")
    assert repr(mine) == repr(theirs)
    twin.compare(mine, theirs, np.random.default_rng(0).standard_normal((2, 3)))


def test_cell_makes_the_layer():
    mlgpu.manual_seed(0)
    layer, cell = nn.LSTM(3, 4).double(), nn.LSTMCell(3, 4).double()
    cell.load_state_dict({k[:-3]: v for k, v in layer.state_dict().items()})
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal((5, 2, 3)))
    y, (h, c) = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        np.testing.assert_allclose(state[0].detach().numpy(), y[t].detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(state[1].detach().numpy(), c[0].detach().numpy(), rtol=1e-12)
    assert h[0].tolist() == y[-1].tolist()


def test_dropout_between_layers():
    mlgpu.manual_seed(0)
    layer = nn.GRU(3, 40, num_layers=2, dropout=0.5)
    x = mlgpu.ones(4, 2, 3)
    first, second = (twin.flat(layer(x))[0].detach().numpy() for _ in range(2))
    assert (first != second).any()
    layer.eval()
    assert layer(x)[0].tolist() == layer(x)[0].tolist()
    with pytest.warns(UserWarning, match="between layers"):
        nn.LSTM(3, 4, dropout=0.5)


def test_weights_are_listed():
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    names = [name for name, _ in layer.named_parameters()]
    assert names[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
                         "weight_ih_l0_reverse"]
    assert [w for group in layer.all_weights for w in group] == list(layer.parameters())
    layer.flatten_parameters()


def test_nothing_is_kept_without_a_graph():
    layer = nn.LSTM(8, 16)
    x = mlgpu.ones(50, 4, 8)
    gc.collect()
    gc.disable()
    try:
        before = mlgpu.memory.stats().allocated
        with mlgpu.no_grad():
            y, state = layer(x)
        del state
        assert mlgpu.memory.stats().allocated - before == y.nbytes
        del y
        y, state = layer(x)
        y.sum().backward()
        layer.zero_grad()
        del y, state
        assert mlgpu.memory.stats().allocated == before
    finally:
        gc.enable()


@pytest.mark.parametrize(("make", "error"), [
    (lambda: nn.RNN(3, 4, nonlinearity="step"), ValueError),
    (lambda: nn.RNN(3, 0), ValueError),
    (lambda: nn.RNN(3, 4, num_layers=0), ValueError),
    (lambda: nn.RNN(3, 4, dropout=2.0), ValueError),
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError),
    (lambda: nn.RNNBase("CRU", 3, 4), ValueError),
    (lambda: nn.GRU(3, 4)(mlgpu.ones(2, 1, 5)), ValueError),
    (lambda: nn.GRU(3, 4)(mlgpu.ones(3)), ValueError),
    (lambda: nn.GRU(3, 4)(mlgpu.ones(0, 2, 3)), ValueError),
    (lambda: nn.GRU(3, 4)(mlgpu.ones(2, 1, 3, dtype=mlgpu.float64)), TypeError),
    (lambda: nn.GRU(3, 4)(mlgpu.ones(2, 1, 3), mlgpu.ones(1, 2, 4)), ValueError),
    (lambda: nn.LSTM(3, 4)(mlgpu.ones(2, 3), (mlgpu.ones(1, 1, 4), mlgpu.ones(1, 4))), ValueError),
    (lambda: nn.RNNCell(3, 4, nonlinearity="step"), ValueError),
    (lambda: nn.GRUCell(3, 4)(mlgpu.ones(2, 5)), ValueError),
    (lambda: nn.GRUCell(3, 4)(mlgpu.ones(2, 3), mlgpu.ones(1, 4)), ValueError),
])
def test_wrong_use(make, error):
    with pytest.raises(error):
        make()
