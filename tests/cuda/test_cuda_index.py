"""Indexing on CUDA beyond the op table: wrong indices, repeats, what is held for gradients."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DeviceError, PositionError
from mlgpu.nn import functional as F


def on(values, **options):
    return mlgpu.tensor(values, device="cuda", **options)


X = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x, i: x[i], "index: 9 is out of range for dimension 0 of length 4"),
    (lambda x, i: x[:, i], "index: 9 is out of range for dimension 1 of length 6"),
    (lambda x, i: x[i, i], "index: 9 is out of range for dimension 0 of length 4"),
    (lambda x, i: x.index_select(1, i), "index_select: index 9 is out of range for length 6"),
    (lambda x, i: x.gather(0, i[None]), "gather: index 9 is out of range for length 4"),
    (lambda x, i: x.take(i * 5), "take: index 45 is out of range for length 24"),
    (lambda x, i: x.scatter_add(1, i[None], x[:1, :3]), "scatter_add: index 9 is out of range"),
    (lambda x, i: x.index_add(0, i, x[:3]), "index_add_: index 9 is out of range for length 4"),
    (lambda x, i: x.index_fill(0, i, 1), "index_fill_: index 9 is out of range for length 4"),
    (lambda x, i: F.embedding(i, x), "embedding: index 9 is out of range for 4 rows"),
    (lambda x, i: F.embedding(i, x.clone(), max_norm=1.0), "embedding_renorm: index 9 is out of"),
    (lambda x, i: F.embedding_bag(i[None], x, mode="sum"), "embedding_bag: index 9 is out of"),
    (lambda x, i: F.one_hot(i, 4), "one_hot: class 9 is not among the 4 classes"),
    (lambda x, i: F.embedding_bag(on([0, 1, 2]), x, on([0, 9, 1]), mode="sum"),
     "offsets must begin with 0, not decrease, and end within the 3 elements of input, got 9"),
])
def test_wrong_indices_are_raised_by_what_waits_next(call, message):
    x, index = on(X), on([1, 9, 0])
    result = call(x, index)
    with pytest.raises(PositionError, match=message):
        result.cpu()
    np.testing.assert_array_equal(x[index.remainder(4)].cpu().numpy(), X[[1, 1, 0]])


def test_what_is_wrong_gives_zeros_and_leaves_the_rest():
    x, index = on(X), on([1, 9, 0])
    got, put = x[index], x.index_fill(0, index, -1)
    with pytest.raises(IndexError):
        mlgpu.cuda.synchronize()
    np.testing.assert_array_equal(got.cpu().numpy(), [X[1], 0 * X[0], X[0]])
    want = X.copy()
    want[:2] = -1
    np.testing.assert_array_equal(put.cpu().numpy(), want)


def test_named_forms_take_no_negative_indices():
    result = on(X).index_select(0, on([-1]))
    with pytest.raises(PositionError, match="index_select: index -1 is out of range"):
        result.cpu()


def test_lists_are_checked_at_once():
    with pytest.raises(IndexError, match="index: 7 is out of range for dimension 0 of length 4"):
        on(X)[[0, 7]]


def test_index_tensors_are_where_the_tensor_is():
    with pytest.raises(DeviceError, match="index tensor on cpu cannot index a tensor on cuda:0"):
        on(X)[mlgpu.tensor([0, 1], device="cpu")]
    with pytest.raises(DeviceError, match="cuda:0 cannot index a tensor on cpu"):
        mlgpu.tensor(X, device="cpu")[on([0, 1])]
    np.testing.assert_array_equal(on(X)[mlgpu.tensor(2, device="cpu")].cpu().numpy(), X[2])


def test_an_index_may_change_after_its_use():
    x, index = on(X, requires_grad=True), on([3, 1])
    y = x[index]
    index.fill_(0)
    y.sum().backward()
    assert x.grad.sum(1).tolist() == [0, 6, 0, 6]


@pytest.mark.parametrize("columns", [1, 64])
def test_repeated_indices_give_the_same_bits_again(columns):
    rng = np.random.default_rng(0)
    index = on(rng.integers(0, 3, 3000))
    values = on(rng.standard_normal((3000, columns)).astype(np.float32))
    zero = mlgpu.zeros(3, columns, device="cuda")
    first, second = (zero.index_add(0, index, values).cpu().numpy() for _ in range(2))
    assert (first == second).all()
    want = np.zeros((3, columns))
    np.add.at(want, index.cpu().numpy(), values.cpu().numpy().astype(np.float64))
    np.testing.assert_allclose(first, want, rtol=1e-4, atol=1e-4)


def test_the_last_of_equal_indices_wins():
    x, index = mlgpu.zeros(5, device="cuda"), np.tile([3, 1, 3], 1000)
    x[on(index)] = mlgpu.arange(3000, device="cuda", dtype=mlgpu.float32)
    assert x.tolist() == [0, 2998, 0, 2999, 0]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_views_that_do_not_lie_in_order(shape):
    """Puts into a transposed view, by an index, by a mask, and added up."""
    x = on(X.reshape(shape)).t()
    want = X.reshape(shape).T.copy()
    rows = np.array([2, 0, 2])
    x[:, on(rows)] = -1
    want[:, rows] = -1
    x[on(want > 20)] = -2
    want[want > 20] = -2
    x.index_add_(0, on(rows), mlgpu.ones(3, shape[0], device="cuda"))
    np.add.at(want, rows, 1)
    np.testing.assert_array_equal(x.cpu().numpy(), want)


def test_rows_that_lie_apart_are_not_copied_first():
    x, index = on(np.arange(1000, dtype=np.float32).reshape(10, 100)), on([3, 1])
    with mlgpu.memory.budget(2 * 60 * 4 + 512):
        y = x[:, 20:80][index]
        x[:, 20:80][index] = 0
    np.testing.assert_array_equal(y.cpu().numpy(), 100 * np.array([[3], [1]]) + np.arange(20, 80))
    assert int((x == 0).sum()) == 121
    table = mlgpu.nn.functional.embedding(index, x[:, :16])
    assert table[:, 15].tolist() == [315, 115]


@pytest.mark.parametrize("dim", [0, 1])
def test_an_expanded_index_moves_rows(dim):
    """gather, scatter and their reductions with an index that is the same for all of a row."""
    rng = np.random.default_rng(0)
    shape = (5, 3, 8)
    x = rng.integers(0, 9, shape).astype(np.float32)
    lead = rng.integers(0, shape[dim], (4, 3) if dim == 0 else (2, 6))
    wide = np.broadcast_to(lead[..., None], (*lead.shape, 8)) if dim else np.broadcast_to(
        lead[:, :1, None], (4, 3, 8))
    index = on(lead)[..., None].expand(*lead.shape, 8) if dim else on(
        lead)[:, :1, None].expand(4, 3, 8)
    source = rng.integers(0, 9, wide.shape).astype(np.float32)
    leaf = on(x, requires_grad=True)
    got = leaf.gather(dim, index)
    (got * on(source)).sum().backward()
    rest = x[:2] if dim else x
    np.testing.assert_array_equal(got.detach().cpu().numpy(), np.take_along_axis(rest, wide, dim))
    added = np.zeros_like(x)
    for place in np.ndindex(*wide.shape):
        to = list(place)
        to[dim] = wide[place]
        added[tuple(to)] += source[place]
    np.testing.assert_array_equal(leaf.grad.cpu().numpy(), added)
    np.testing.assert_array_equal(on(x).scatter_add(dim, index, on(source)).cpu().numpy(),
                                  x + added)
    put = x.copy()
    np.put_along_axis(put[:2] if dim else put, wide, source, dim)
    np.testing.assert_array_equal(on(x).scatter(dim, index, on(source)).cpu().numpy(), put)


def test_indices_apart_go_first():
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    i, j = np.array([1, 0, 1]), np.array([[4], [2]])
    got = on(x, requires_grad=True)
    y = got[on(i), :, :, on(j)]
    np.testing.assert_array_equal(y.detach().cpu().numpy(), x[i, :, :, j])
    y.sum().backward()
    want = np.zeros_like(x)
    np.add.at(want, (i, slice(None), slice(None), j), 1)
    np.testing.assert_array_equal(got.grad.cpu().numpy(), want)


def test_other_streams_wait_for_the_index():
    x = on(X)
    stream = mlgpu.cuda.Stream()
    index = on([2, 1])
    with mlgpu.cuda.stream(stream):
        y = x[index]
    np.testing.assert_array_equal(y.cpu().numpy(), X[[2, 1]])


def test_nothing_waits_for_an_index():
    """No synchronisation hides in a gather, a scatter or their gradients: they can be captured."""
    x, index = on(X, requires_grad=True), on([0, 2, 2])

    def step():
        y = x[index].sum() + F.embedding(index, x).sum()
        (grad,) = mlgpu.autograd.grad(y, x)
        return grad.index_add(0, index, x.detach()[:3])

    want = step().cpu().numpy()
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        y = step()
    graph.replay()
    np.testing.assert_array_equal(y.cpu().numpy(), want)


def test_more_dimensions_than_kernels_take():
    x = mlgpu.zeros(*[2] * 10, device="cuda")
    for call in (lambda: x.flip([0, 2, 4, 6, 8]), lambda: F.pad(x, [1] * 20)):
        with pytest.raises(mlgpu.ShapeError, match=r"on CUDA at most 8 dimensions.*reshape"):
            call()
