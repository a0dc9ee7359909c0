"""What rows of the op table cannot show of look-ups: gradients that are not the true ones."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.nn import functional as F

INDEX = np.array([3, 0, 3, 3, 1, 0, 2])
OFFSETS = [0, 2, 2, 6]
BAG = np.array([0, 0, 2, 2, 2, 2, 3])
RNG = np.random.default_rng(0)
TABLE, SCALE = RNG.standard_normal((5, 3)), RNG.standard_normal(7)


def scattered(rows):
    """The gradient of the table: a row for each element of INDEX added at its place."""
    out = np.zeros(TABLE.shape)
    np.add.at(out, INDEX, rows)
    return out


def by_frequency(gradient):
    return gradient / np.maximum(np.bincount(INDEX, minlength=len(TABLE)), 1)[:, None]


def test_embedding_scaled_by_frequency():
    table = mlgpu.tensor(TABLE, requires_grad=True)
    dy = RNG.standard_normal((7, 3))
    F.embedding(mlgpu.tensor(INDEX), table, scale_grad_by_freq=True).backward(mlgpu.tensor(dy))
    np.testing.assert_allclose(table.grad.numpy(), by_frequency(scattered(dy)), rtol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "weights"])
def test_bags_scaled_by_frequency(mode):
    """As documented: PyTorch 2.13 divides by the frequency of another row on the CPU."""
    table = mlgpu.tensor(TABLE, requires_grad=True)
    scale = mlgpu.tensor(SCALE, requires_grad=True)
    dy = RNG.standard_normal((4, 3))
    options = {"mode": mode} if mode != "weights" else {"mode": "sum", "per_sample_weights": scale}
    F.embedding_bag(mlgpu.tensor(INDEX), table, mlgpu.tensor(OFFSETS), scale_grad_by_freq=True,
                    **options).backward(mlgpu.tensor(dy))
    factor = {"sum": 1, "mean": (1 / np.bincount(BAG)[BAG])[:, None], "weights": SCALE[:, None]}
    np.testing.assert_allclose(table.grad.numpy(), by_frequency(scattered(dy[BAG] * factor[mode])),
                               rtol=1e-12)
    if mode == "weights":
        np.testing.assert_allclose(scale.grad.numpy(), (TABLE[INDEX] * dy[BAG]).sum(1), rtol=1e-12)


@pytest.mark.parametrize("padding", [3, -2])
def test_padding_row_has_no_gradient(padding):
    table = mlgpu.tensor(TABLE, requires_grad=True)
    dy = RNG.standard_normal((7, 3))
    F.embedding(mlgpu.tensor(INDEX), table, padding).backward(mlgpu.tensor(dy))
    expected = scattered(dy)
    expected[padding] = 0
    np.testing.assert_allclose(table.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{"padding_idx": 3}, {"scale_grad_by_freq": True}], ids=str)
@pytest.mark.parametrize("bags", [False, True])
def test_second_derivative(options, bags):
    """The gradient is linear in dy: differentiated again it is the same map, transposed."""
    table = mlgpu.tensor(TABLE, requires_grad=True)
    if bags:
        y = F.embedding_bag(mlgpu.tensor(INDEX), table, mlgpu.tensor(OFFSETS), **options)
    else:
        y = F.embedding(mlgpu.tensor(INDEX), table, **options)
    dy = mlgpu.tensor(RNG.standard_normal(tuple(y.shape)), requires_grad=True)
    gradient, = mlgpu.autograd.grad(y, table, dy, create_graph=True)
    probe = mlgpu.tensor(RNG.standard_normal(TABLE.shape))
    again, = mlgpu.autograd.grad(gradient, dy, probe)
    np.testing.assert_allclose((again * dy).sum().item(), (gradient * probe).sum().item(),
                               rtol=1e-12)


@pytest.mark.parametrize("name", ["embedding", "embedding_bag"])
def test_max_norm_shortens_the_table_in_place(name):
    table = mlgpu.tensor(TABLE * 3, requires_grad=True)
    getattr(F, name)(mlgpu.tensor([[0, 2]]), table, max_norm=1.0).sum().backward()
    lengths = np.linalg.norm(table.detach().numpy(), axis=1)
    np.testing.assert_allclose(lengths[[0, 2]], 1, atol=1e-6)
    np.testing.assert_array_equal(table.detach().numpy()[[1, 3, 4]], TABLE[[1, 3, 4]] * 3)
    assert (table.grad.numpy()[[0, 2]] == (1 if name == "embedding" else 0.5)).all()


@pytest.mark.parametrize("first", [False, True])
def test_largest_ignores_nan_but_in_front(first):
    """As PyTorch's bags do on every device: a value replaces the one before if it is larger."""
    table = np.array([[1.0], [np.nan], [-np.inf], [3.0]])
    index = [[1, 0, 3]] if first else [[2, 1, 0, 3, 1]]
    found = F.embedding_bag(mlgpu.tensor(index), mlgpu.tensor(table), mode="max")
    np.testing.assert_array_equal(found.numpy(), [[np.nan if first else 3.0]])
