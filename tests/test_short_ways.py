"""Short ways of what fits the cache: tensors above the smallest, losses of few scores, updates."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
import mlgpu.nn.functional as F
from mlgpu.cpu.pool import SMALLEST
from mlgpu.errors import ShapeError
from mlgpu.ops import loss_class, pointwise
from mlgpu.ops.pointwise import SHORT, Short

FUNCTIONS = {
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "relu": lambda a, b: F.relu(a),
    "gelu": lambda a, b: F.gelu(a, approximate="tanh"), "where": lambda a, b: a.clamp(min=0.25),
    "scaled": lambda a, b: 2.5 * a, "power": lambda a, b: a**2, "compare": lambda a, b: a > b,
    "row": lambda a, b: a * b[0], "both": lambda a, b: a[:1] - b[:, :1].sigmoid()}


def found(function, dtype, rows):
    rng = np.random.default_rng(0)
    a, b = [mlgpu.tensor(rng.standard_normal((rows, 128)).astype(dtype), requires_grad=True)
            for _ in range(2)]
    y = function(a, b)
    node = y.grad_fn
    if node is not None:
        (y * y).sum().backward()
    grads = [None if t.grad is None else t.grad.numpy() for t in (a, b)]
    return node, [y.detach().numpy(), *grads]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_those_of_the_long_way(name, dtype):
    rows = 400
    node, short = found(FUNCTIONS[name], dtype, rows)
    assert SMALLEST < rows * 128 * np.dtype(dtype).itemsize < SHORT
    assert name == "compare" or isinstance(node, Short)
    with mlgpu.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        node, long = found(FUNCTIONS[name], dtype, rows)
    assert not isinstance(node, Short)
    for ours, theirs in zip(short, long, strict=True):
        if theirs is None:
            assert ours is None
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_where_the_short_way_ends():
    a = mlgpu.ones(SHORT // 4, requires_grad=True)
    assert not isinstance((a * 2).grad_fn, Short)
    assert isinstance((a[1:] * 2).grad_fn, Short)


def test_second_derivatives():
    a = mlgpu.linspace(-2, 2, 20_000, dtype=mlgpu.float64).requires_grad_()
    (first,) = mlgpu.autograd.grad((a**3).sum(), a, create_graph=True)
    (second,) = mlgpu.autograd.grad(first.sum(), a)
    np.testing.assert_allclose(second.numpy(), 6 * a.detach().numpy(), rtol=1e-14)


def test_memory_comes_from_the_pool_and_goes_back():
    a = mlgpu.ones(20_000, requires_grad=True)
    mlgpu.memory.empty_cache()
    before = mlgpu.memory.stats("cpu")
    y = a * a
    assert mlgpu.memory.stats("cpu").allocated - before.allocated == y.nbytes
    y.backward(y.detach())
    del y
    a.grad = None
    assert mlgpu.memory.stats("cpu").allocated == before.allocated
    assert mlgpu.memory.stats("cpu").cached > before.cached


def test_changed_values_are_refused():
    a = mlgpu.ones(20_000, requires_grad=True)
    b = mlgpu.ones(20_000)
    y = a * b
    b.add_(1)
    with pytest.raises(mlgpu.errors.GraphError, match="mul"):
        y.sum().backward()
    with pytest.raises(ShapeError, match="broadcast"):
        a * mlgpu.ones(20_001)


# -- cross_entropy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1, 300])
def test_few_scores(monkeypatch, reduction, dtype, scale):
    rng = np.random.default_rng(1)
    scores = (scale * rng.standard_normal((33, 7))).astype(dtype)
    classes = mlgpu.tensor(rng.integers(0, 7, 33))

    def both():
        x = mlgpu.tensor(scores, requires_grad=True)
        loss = F.cross_entropy(x, classes, reduction=reduction)
        (loss * loss).sum().backward()
        return loss.detach().numpy(), x.grad.numpy()

    short = both()
    monkeypatch.setattr(loss_class, "FEW", 0)
    for ours, theirs in zip(short, both(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5 if dtype == "float32" else 1e-13,
                                   atol=np.finfo(dtype).eps * abs(theirs).max())


def test_few_scores_are_checked():
    x = mlgpu.zeros(3, 4, requires_grad=True)
    with pytest.raises(IndexError, match="target 4 is out of range for 4 classes"):
        F.cross_entropy(x, mlgpu.tensor([0, 4, 1]))
    left_out = F.cross_entropy(x, mlgpu.tensor([0, -100, 1]), reduction="sum")
    assert left_out.item() == pytest.approx(2 * np.log(4))
    assert F.cross_entropy(x, mlgpu.tensor([0, 2, 2]), ignore_index=2).item() == pytest.approx(
        np.log(4))
    assert np.isnan(F.cross_entropy(mlgpu.full((2, 3), float("nan")),
                                    mlgpu.tensor([0, 1])).item())


# -- SGD -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.5, "dampening": 0.25, "maximize": True}], ids=str)
def test_large_parameters_in_one_pass(monkeypatch, options):
    """As BLAS updates them, and as NumPy does."""
    monkeypatch.setattr("mlgpu.cpu.fast.load", lambda *args: None)

    def trained():
        rng = np.random.default_rng(2)
        p = mlgpu.tensor(rng.standard_normal(40_000).astype(np.float32), requires_grad=True)
        optimizer = mlgpu.optim.SGD([p], lr=0.3, **options)
        for _ in range(3):
            p.grad = mlgpu.tensor(rng.standard_normal(40_000).astype(np.float32))
            optimizer.step()
        return p.detach().numpy()

    short = trained()
    monkeypatch.setattr("mlgpu.cpu.optimizer.axpby", lambda *args: False)
    np.testing.assert_allclose(short, trained(), rtol=2e-6, atol=1e-6)


def test_the_limit_is_below_that_of_compiled_loops():
    from mlgpu.cpu.fast import ENOUGH

    assert not ENOUGH or SHORT // 4 <= ENOUGH
    assert pointwise.SHORT > SMALLEST
