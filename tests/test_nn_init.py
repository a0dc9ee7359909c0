"""Initialisation: distributions, structure, and the layers' defaults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn
from mlgpu.nn import init

SHAPE = (60, 40, 3, 3)
FAN_IN, FAN_OUT = 40 * 9, 60 * 9

# how it is drawn, its mean, its standard deviation, its bound (None for a normal)
DRAWS = {
    "uniform": (lambda t, **o: init.uniform_(t, -1, 3, **o), 1, 4 / math.sqrt(12), 3),
    "normal": (lambda t, **o: init.normal_(t, 2, 0.5, **o), 2, 0.5, None),
    "xavier_uniform": (lambda t, **o: init.xavier_uniform_(t, 2, **o), 0,
                       2 * math.sqrt(2 / (FAN_IN + FAN_OUT)),
                       2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "xavier_normal": (lambda t, **o: init.xavier_normal_(t, **o), 0,
                      math.sqrt(2 / (FAN_IN + FAN_OUT)), None),
    "kaiming_uniform": (lambda t, **o: init.kaiming_uniform_(t, nonlinearity="relu", **o), 0,
                        math.sqrt(2 / FAN_IN), math.sqrt(6 / FAN_IN)),
    "kaiming_uniform_slope": (lambda t, **o: init.kaiming_uniform_(t, 2, "fan_out", **o), 0,
                              math.sqrt(2 / 5 / FAN_OUT), math.sqrt(6 / 5 / FAN_OUT)),
    "kaiming_normal": (lambda t, **o: init.kaiming_normal_(t, mode="fan_out", **o), 0,
                       math.sqrt(2 / FAN_OUT), None),
    "trunc_normal": (lambda t, **o: init.trunc_normal_(t, **o), 0, 0.87963, 2),
    # The moments of a normal cut to 1 to 2 standard deviations above its mean.
    "trunc_normal_tail": (lambda t, **o: init.trunc_normal_(t, 0, 2, 2, 4, **o), 2.76634, 0.53942,
                          4),
}


@pytest.mark.parametrize("name", DRAWS)
def test_distribution(name):
    draw, mean, std, bound = DRAWS[name]
    generator = mlgpu.Generator().manual_seed(3)
    tensor = nn.Parameter(mlgpu.empty(*SHAPE))
    assert draw(tensor, generator=generator) is tensor
    values = tensor.detach().numpy()
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(values.size)
    assert abs(values.std() / std - 1) < 0.02
    if bound is not None:
        assert bound * 0.99 < values.max() <= bound * (1 + 1e-6)
    again = draw(mlgpu.empty(*SHAPE), generator=mlgpu.Generator().manual_seed(3))
    assert again.tolist() == tensor.tolist()


def test_trunc_normal_of_half_types_and_impossible_intervals():
    values = init.trunc_normal_(mlgpu.empty(1000, dtype=mlgpu.bfloat16)).float().numpy()
    assert abs(values).max() <= 2
    assert abs(values.mean()) < 0.1
    assert init.trunc_normal_(mlgpu.empty(100), 0, 1, 5, 6).min().item() >= 5
    with pytest.raises(ValueError, match="too far"):
        init.trunc_normal_(mlgpu.empty(3), 0, 1, 100, 101)
    with pytest.raises(ValueError, match="empty"):
        init.trunc_normal_(mlgpu.empty(3), 0, 1, 1, -1)


def test_constants():
    assert init.constant_(mlgpu.empty(2), 3).tolist() == [3, 3]
    assert init.ones_(mlgpu.empty(2)).tolist() == [1, 1]
    assert init.zeros_(nn.Parameter(mlgpu.ones(2))).tolist() == [0, 0]
    assert init.eye_(mlgpu.ones(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 2, 3), (5, 5)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_orthogonal(shape, dtype):
    mlgpu.manual_seed(0)
    weight = init.orthogonal_(mlgpu.empty(*shape, dtype=getattr(mlgpu, dtype)), gain=2)
    matrix = weight.double().numpy().reshape(shape[0], -1) / 2
    product = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    tolerance = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(product, np.eye(len(product)), atol=tolerance)


@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 3), 1), ((4, 2, 5, 3), 2),
                                               ((2, 3, 2, 2, 2), 1)])
def test_dirac(shape, groups):
    weight = init.dirac_(mlgpu.ones(*shape), groups)
    assert set(np.unique(weight.numpy())) == {0, 1}
    torch = twin.torch()
    assert weight.tolist() == torch.nn.init.dirac_(torch.ones(*shape), groups).tolist()


def test_sparse():
    mlgpu.manual_seed(0)
    values = init.sparse_(mlgpu.empty(50, 20), 0.3, 0.1).numpy()
    assert ((values == 0).sum(0) == 15).all()
    assert abs(values[values != 0].std() / 0.1 - 1) < 0.1


def test_gain():
    assert init.calculate_gain("tanh") == pytest.approx(5 / 3)
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))
    torch = twin.torch()
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)


# Layers large enough for statistics; PyTorch draws each of their parameters alike.
LAYERS = [
    ("Linear", (300, 200), {}), ("Bilinear", (30, 20, 40), {}), ("Embedding", (300, 50), {}),
    ("EmbeddingBag", (300, 50), {}), ("Conv1d", (64, 96, 5), {"groups": 2}),
    ("Conv2d", (32, 64, 3), {}), ("ConvTranspose2d", (32, 64, 3), {}),
    ("MultiheadAttention", (96, 4), {"add_bias_kv": True}),
    ("MultiheadAttention", (96, 4), {"kdim": 32}),
    ("RNN", (40, 60), {}), ("LSTM", (40, 60), {"bidirectional": True, "proj_size": 50}),
    ("GRUCell", (40, 60), {}), ("TransformerEncoderLayer", (64, 4, 128), {}),
    ("LayerNorm", (50,), {}), ("RMSNorm", (50,), {}), ("BatchNorm2d", (50,), {}),
    ("GroupNorm", (5, 50), {}), ("PReLU", (20,), {})]


@pytest.mark.parametrize(("name", "args", "options"), LAYERS, ids=lambda v: str(v))
def test_defaults_are_pytorchs(name, args, options):
    torch = twin.torch()
    mlgpu.manual_seed(0)
    torch.manual_seed(0)
    mine = getattr(nn, name)(*args, **options).state_dict()
    theirs = getattr(torch.nn, name)(*args, **options).state_dict()
    assert list(mine) == list(theirs)
    for key, expected in theirs.items():
        a, b = mine[key].double().numpy(), expected.double().numpy()
        assert mine[key].requires_grad == expected.requires_grad
        assert a.shape == b.shape
        spread = b.std()
        if spread == 0:
            np.testing.assert_array_equal(a, b)
            continue
        assert abs(a.mean() - b.mean()) < 8 * spread / math.sqrt(a.size)
        assert abs(a.std() / spread - 1) < 8 / math.sqrt(a.size)
        if b.max() < 2 * spread:  # uniform: the bounds are what matters
            # The largest of n falls short by 2k/n of the bound, or more, with probability exp(-k).
            assert a.max() == pytest.approx(b.max(), rel=30 / a.size + 1e-3)


@pytest.mark.parametrize("make", [
    lambda: init.calculate_gain("step"),
    lambda: init.calculate_gain("leaky_relu", True),
    lambda: init.xavier_uniform_(mlgpu.empty(3)),
    lambda: init.kaiming_normal_(mlgpu.empty(3, 3), mode="fan"),
    lambda: init.eye_(mlgpu.empty(3)),
    lambda: init.dirac_(mlgpu.empty(3, 3)),
    lambda: init.dirac_(mlgpu.empty(3, 3, 3), 2),
    lambda: init.orthogonal_(mlgpu.empty(3)),
    lambda: init.sparse_(mlgpu.empty(3), 0.1),
])
def test_wrong_use(make):
    with pytest.raises(ValueError):
        make()


def test_no_elements():
    assert init.kaiming_uniform_(mlgpu.empty(0, 3)).shape == (0, 3)
    assert init.orthogonal_(mlgpu.empty(0, 3)).shape == (0, 3)
    assert nn.Linear(0, 3).bias.tolist() == [0, 0, 0]
