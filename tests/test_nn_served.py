"""Small layers in turn without a graph: the usual result, and the usual way for all else."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import memory, nn
from mlgpu.errors import OutOfMemoryError, ReleasedError, ShapeError
from mlgpu.nn import containers
from mlgpu.nn import functional as F


def model(dtype=mlgpu.float32, inplace=False):
    mlgpu.manual_seed(3)
    return nn.Sequential(nn.Linear(7, 5), nn.ReLU(inplace), nn.Linear(5, 6, bias=False), nn.Tanh(),
                         nn.Linear(6, 2)).to(dtype)


def usual(m, x, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(containers, "served", lambda modules, x: None)
        return m(x)


@pytest.fixture
def taken(monkeypatch):
    """Whether the short way was taken, call by call."""
    found, real = [], containers.served

    def watched(modules, x):
        made = real(modules, x)
        found.append(made is not None)
        return made

    monkeypatch.setattr(containers, "served", watched)
    return found


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 0])
def test_the_result_is_the_usual_one(monkeypatch, taken, dtype, inplace, rows):
    m, x = model(dtype, inplace), mlgpu.randn(rows, 7, dtype=dtype)
    before = x.clone()
    with mlgpu.no_grad():
        y = m(x)
        np.testing.assert_allclose(y.numpy(), usual(m, x, monkeypatch).numpy(), rtol=1e-6)
    assert taken == [True]
    assert mlgpu.equal(x, before)
    assert y.dtype is dtype
    assert not y.requires_grad


def test_nan_and_inf_pass():
    m = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
    m[0].weight.data.copy_(mlgpu.tensor([[1.0], [-1.0], [0.0]]))
    m[0].bias.data.zero_()
    with mlgpu.no_grad():
        assert m(mlgpu.tensor([[float("inf")]]))[0, :2].tolist() == [float("inf"), 0.0]
        assert m(mlgpu.tensor([[float("nan")]])).isnan().all()


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def hooked():
    m = model()
    m[0].register_forward_hook(lambda module, args, output: output * 3)
    return m


CASES = {
    "a hook": (hooked, lambda: mlgpu.randn(2, 7)),
    "a subclass": (lambda: nn.Sequential(Doubled(7, 3)), lambda: mlgpu.randn(2, 7)),
    "another layer": (lambda: nn.Sequential(nn.Linear(7, 3), nn.GELU()), lambda: mlgpu.randn(2, 7)),
    "no product first": (lambda: nn.Sequential(nn.ReLU(True)), lambda: mlgpu.randn(2, 7)),
    "three dimensions": (model, lambda: mlgpu.randn(2, 2, 7)),
    "one dimension": (model, lambda: mlgpu.randn(7)),
    "half": (lambda: model(mlgpu.bfloat16), lambda: mlgpu.randn(2, 7, dtype=mlgpu.bfloat16)),
    "many rows": (model, lambda: mlgpu.randn(9000, 7)),
    "nothing": (nn.Sequential, lambda: mlgpu.randn(2, 7)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_goes_the_usual_way(monkeypatch, taken, name):
    make, sample = CASES[name]
    m, x = make(), sample()
    with mlgpu.no_grad():
        y, expected = m(x.clone()), usual(m, x.clone(), monkeypatch)
    assert taken == [False]
    assert mlgpu.equal(y, expected)


def test_with_a_graph_there_is_a_graph(taken):
    y = model()(mlgpu.randn(1, 7))
    assert y.requires_grad
    assert taken == []


@pytest.mark.parametrize("x", [mlgpu.randn(1, 6), mlgpu.randn(1, 7, dtype=mlgpu.float64)],
                         ids=["shape", "dtype"])
def test_errors_are_the_usual_ones(x):
    m = model()
    with mlgpu.no_grad():
        with pytest.raises((ShapeError, TypeError)) as short:
            m(x)
        with pytest.raises((ShapeError, TypeError)) as long:
            F.linear(x, m[0].weight, m[0].bias)
    assert str(short.value) == str(long.value)


def test_what_was_released_is_refused():
    m = model()
    m[2].weight.data.release()
    with mlgpu.no_grad(), pytest.raises(ReleasedError):
        m(mlgpu.randn(1, 7))


def test_the_result_is_on_the_books_and_budgets_hold():
    m, x = model(), mlgpu.randn(1, 7)
    with mlgpu.no_grad():
        before = memory.stats("cpu")
        y = m(x)
        after = memory.stats("cpu")
        assert after.allocated - before.allocated == y.nbytes
        assert after.count - before.count == 1
        with memory.budget(8), pytest.raises(OutOfMemoryError):
            m(x)
