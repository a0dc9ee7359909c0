"""Chains of small operations of one layout, whose gradients are carried as bare arrays."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import GraphError, ReleasedError
from mlgpu.ops.link import Pointwise


def leaf(*values):
    return mlgpu.tensor(values, requires_grad=True)


def chain(x, w, b, length=3):
    for _ in range(length):
        x = (x * w).tanh() + b
    return x


def gradients(back):
    """Of x, w and b, by `back(y, g)`, and of the long way, which an observer enforces."""
    found = []
    for long in (False, True):
        x, w, b = leaf(0.5, -2.0), leaf(1.5, 0.25), leaf(0.1, 3.0)
        if long:
            with mlgpu.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                y = chain(x, w, b)
                assert not isinstance(y.grad_fn, Pointwise)
        else:
            y = chain(x, w, b)
            assert isinstance(y.grad_fn, Pointwise)
        back(y, mlgpu.tensor([1.0, -0.5]))
        found.append([t.grad.numpy() for t in (x, w, b)])
    return found


def twice(y, g):
    y.backward(g, retain_graph=True)
    y.backward(g)


def joined(y, g):
    (y * y + y.exp()).sum().backward()


def of_another_kind(y, g):
    (y.reshape(1, 2) * 2.0).sum().backward()


def in_double(y, g):
    y.backward(g.double())


@pytest.mark.parametrize("back", [
    lambda y, g: y.backward(g), twice, joined, of_another_kind, in_double,
    lambda y, g: y.backward(g[::1].expand(2)), lambda y, g: y.backward(mlgpu.ones(1).expand(2))],
    ids=["once", "twice", "joined", "of another kind", "in double", "view", "expanded"])
def test_a_chain_gives_what_the_long_way_gives(back):
    short, long = gradients(back)
    for a, b in zip(short, long, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=2e-6)


def test_gradients_of_leaves_are_their_own():
    x, w, g = leaf(1.0, 2.0), leaf(3.0, 4.0), mlgpu.tensor([1.0, 1.0])
    (x + w).backward(g)  # the very same gradient for both
    x.grad.add_(5)
    assert (w.grad.tolist(), g.tolist(), x.grad.tolist()) == ([1, 1], [1, 1], [6, 6])
    y = x * 2.0
    y.backward(g)
    assert x.grad.tolist() == [8, 8]
    (x * w).backward(x.grad)  # what comes in is what is added to
    assert x.grad.tolist() == [8 + 8 * 3, 8 + 8 * 4]


def test_what_was_saved_is_checked():
    x, w = leaf(1.0, 2.0), mlgpu.tensor([3.0, 4.0])
    y = x * w + w
    y.backward(w)
    with pytest.raises(GraphError, match="mul: backward a second time"):
        y.backward(w)
    assert x.grad.tolist() == [9, 16]
    y = x * w + 1.0
    w.add_(1)
    with pytest.raises(GraphError, match=r"mul: a value saved.*in place \(version 1"):
        y.backward(w)
    y = x * w + 1.0
    w.release()
    with pytest.raises(ReleasedError, match=r"mul: backward needs a tensor of shape \(2,\)"):
        y.backward(mlgpu.ones(2))
    assert x.grad.tolist() == [9, 16]


def test_a_layout_is_taken_back():
    x = mlgpu.ones(2)
    assert (x * x).tolist() == [1, 1]  # known from here on
    kept = x.detach()
    assert (kept * x).tolist() == [1, 1]
    x.data = mlgpu.full((3,), 2.0)
    assert (x * x).tolist() == [4, 4, 4]
    kept.release()
    with pytest.raises(ReleasedError):
        kept * mlgpu.ones(2)
    base = mlgpu.zeros(4, requires_grad=True).clone()
    assert (base * base).requires_grad
    view = base[:2]
    base.mul_(2.0)
    assert (view * mlgpu.ones(2)).grad_fn is not None
    with mlgpu.inference_mode():
        made = x * x
    assert made.is_inference()
    with pytest.raises(GraphError, match="inference_mode"):
        leaf(1.0, 1.0, 1.0) * made


def test_hooks_in_a_chain_are_called():
    seen = []
    x = leaf(1.0, 2.0)
    middle = x * mlgpu.tensor([3.0, 4.0])
    middle.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    middle.retain_grad()
    y = middle + 1.0
    y.grad_fn.register_hook(lambda given, came: seen.append("node"))
    y.backward(mlgpu.ones(2))
    assert seen == ["node", [1, 1], [30, 40]]
    assert middle.grad.tolist() == [10, 10]


def test_events_of_numpy_stay_as_hooks_and_users_set_them():
    x = leaf(3e38, 1.0)
    states = []
    y = x * x
    y.register_hook(lambda g: states.append(np.geterr()["over"]))
    with np.errstate(over="raise"):
        (y * y).backward(mlgpu.full((2,), 1e30))
    assert states == ["raise"]
    assert x.grad.isinf()[0]


def test_small_blocks_stand_in_the_books():
    gc.collect()
    before = mlgpu.memory.stats("cpu")
    x, w = mlgpu.ones(8, requires_grad=True), mlgpu.ones(8)
    y = x * w
    y = y + w
    now = mlgpu.memory.stats("cpu")
    assert now.allocated - before.allocated == 3 * 32  # what was in between is needed for nothing
    mlgpu.memory.reset_peak("cpu")
    y.backward(w)
    after = mlgpu.memory.stats("cpu")
    assert after.peak == now.allocated + 32  # the gradient of x, alone in the end
    assert after.allocated == now.allocated + 32
    assert [(b.nbytes, b.shape, b.dtype) for b in mlgpu.memory.snapshot("cpu")
            if b.age < 60].count((32, (8,), "float32")) >= 4
    array = y.detach().numpy()
    del x, w, y
    gc.collect()
    assert mlgpu.memory.stats("cpu").allocated == before.allocated + 32  # lent to NumPy
    del array
    gc.collect()
    assert mlgpu.memory.stats("cpu").allocated == before.allocated
    assert mlgpu.memory.stats("cpu").count == before.count


def test_threads_record_and_walk_at_once():
    w = mlgpu.tensor([1.5, 0.5])
    found = {}

    def work(number):
        x = mlgpu.full((2,), float(number), requires_grad=True)
        for _ in range(200):
            x.grad = None
            chain(x, w, w, 5).backward(w)
        found[number] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, gradient in found.items():
        x = mlgpu.full((2,), float(number), requires_grad=True)
        chain(x, w, w, 5).backward(w)
        assert x.grad.tolist() == gradient
