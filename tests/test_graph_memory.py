"""What a graph holds and for how long: no cycles, nothing left behind, no recursion."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.autograd import Function, functional, grad, saved_tensors_hooks
from mlgpu.utils.checkpoint import checkpoint

F64 = mlgpu.float64


def leaf(*shape, seed=0):
    return mlgpu.tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape), requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        y = x ** 3
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, _ = ctx.saved_tensors
        return 3 * x * x * dy


class CubeInPlace(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.clone())
        x.pow_(3)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return 3 * x * x * dy


# --- graphs: of a leaf x of shape (4, 6), each gives what to differentiate ------------------------


def pointwise(x):
    return (x.exp() * x.sin() + x.tanh() / x).sigmoid()


def reductions(x):
    return x.softmax(1).log().sum(0) + x.std(0) + x.max(0)[0] + x.norm()


def linear_algebra(x):
    m = x @ x.T + 5 * mlgpu.eye(4, dtype=F64)
    return mlgpu.linalg.solve(m, x).sum() + m.logdet() + mlgpu.linalg.cholesky(m).sum()


def views(x):
    a, b = x.T.reshape(3, 8).unbind(0)[:2]
    return a.view(2, 4).expand(3, 2, 4).sum(0)[0, ::2] * b[None].squeeze(0)[:2]


def in_place(x):
    y = x.clone()
    v = y[1:]
    v.mul_(x[0]).cos_()
    y[0] = v[1]
    w = y.T[2:4]
    y.sin_()
    return w * v.sum(), y, v


def in_place_of_constant(x):
    y = mlgpu.zeros(4, 6, dtype=F64)
    v = y[0]
    y.copy_(x)
    y += x
    return v, y


def functions(x):
    return Cube.apply(x) + CubeInPlace.apply(x * 1) + CubeInPlace.apply((x * 1)[0])


def checkpoints(x):
    return checkpoint(lambda x: checkpoint(pointwise, x).exp() * x, x * 1)


def hooked(x):
    y = x * 2
    factor = y.detach()
    y.register_hook(lambda g: g * factor)
    y.retain_grad()
    z = y.exp()
    z.register_hook(lambda g: None)
    return z


def packed(x):
    with saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        return pointwise(x)


def constants(x):
    with mlgpu.no_grad():
        scale = x.mean() * 2
    return x * scale + (x * 2).detach() * (x > 1)


def layers(x):
    mlgpu.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.5),
                          nn.Linear(8, 6)).double()
    h = nn.functional.conv1d(model(x)[None], mlgpu.ones(4, 4, 3, dtype=F64), padding=1)
    return nn.functional.batch_norm(nn.functional.max_pool1d(h, 2), None, None, training=True)


def recurrence(x):
    mlgpu.manual_seed(0)
    return nn.LSTM(6, 3).double()(x[:, None])[0]


def complex_numbers(x):
    z = mlgpu.complex(x, x.sin())
    z = mlgpu.fft.fft(z * z.conj())
    z.real.mul_(2)
    return z.abs()


GRAPHS = [pointwise, reductions, linear_algebra, views, in_place, in_place_of_constant, functions,
          checkpoints, hooked, packed, constants, layers, recurrence, complex_numbers]


# --- uses -----------------------------------------------------------------------------------------


def total(outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    parts = [(y * y).sum() for y in outputs]
    return sum(parts[1:], parts[0])


def only_forward(graph, x):
    graph(x)


def backward(graph, x):
    total(graph(x)).backward()


def retained(graph, x):
    y = total(graph(x))
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)


def partial(graph, x):
    h = x * 1
    grad(total(graph(h)), h)


def second_order(graph, x):
    (g,) = grad(total(graph(x)), x, create_graph=True)
    (g * g).sum().backward()


def created_and_dropped(graph, x):
    y = total(graph(x))
    with pytest.warns(UserWarning, match="keep each other alive"):
        y.backward(create_graph=True, inputs=x)
    x.grad = None  # which has a graph that leads to x


def failing(graph, x):
    h = x * 1
    h.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        total(graph(h)).backward()


USES = [only_forward, backward, retained, partial, second_order, created_and_dropped, failing]


@pytest.fixture
def no_collector():
    """Without the garbage collector: what is freed, is freed by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USES, ids=lambda u: u.__name__)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.__name__)
def test_nothing_is_left(graph, use):
    x = leaf(4, 6)
    use(graph, x)  # once before, for what is made on first use
    x.grad = None
    gc.collect()
    before = mlgpu.memory.stats()
    for _ in range(3):
        use(graph, x)
        x.grad = None
    after = mlgpu.memory.stats()
    assert (after.allocated, after.count) == (before.allocated, before.count)
    if use is not failing:  # an error's traceback and its frames hold each other
        assert gc.collect() == 0


@pytest.mark.usefixtures("no_collector")
def test_functional_derivatives_leave_nothing():
    x = leaf(4)
    gc.collect()
    before = mlgpu.memory.stats()
    for call in (functional.jacobian, functional.hessian, functional.vjp):
        call(lambda x: (x ** 3).sum(), x)
    functional.hvp(lambda x: (x ** 3).sum(), x, x)
    functional.jvp(lambda x: x ** 3, x, x)
    after = mlgpu.memory.stats()
    assert (after.allocated, after.count) == (before.allocated, before.count)
    assert gc.collect() == 0


@pytest.mark.usefixtures("no_collector")
def test_a_training_loop_is_flat():
    mlgpu.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = mlgpu.optim.AdamW(model.parameters())
    x, y = mlgpu.rand(32, 6), mlgpu.rand(32, 1)
    seen = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        stats = mlgpu.memory.stats()
        seen.append((stats.allocated, stats.count))
    assert len(set(seen[5:])) == 1
    del loss
    assert gc.collect() == 0


# --- what backward frees --------------------------------------------------------------------------


def test_saved_values_are_freed_during_backward():
    x = leaf(1000)
    h = [x * 1]
    for _ in range(20):
        h[0] = h[0].sin()
    y = h.pop().sum()
    del h
    before = mlgpu.memory.stats().allocated
    seen = []
    first = x.register_hook(lambda g: seen.append(mlgpu.memory.stats().allocated))
    y.backward()
    first.remove()
    assert before - seen[0] > 18 * x.nbytes  # all inputs of sin but a gradient or two
    assert mlgpu.memory.stats().allocated <= before - 19 * x.nbytes


def test_what_was_saved_stays_if_retained_and_goes_with_the_graph():
    x = leaf(1000)
    before = mlgpu.memory.stats().allocated
    y = (x.exp() * x.sin()).sum()
    held = mlgpu.memory.stats().allocated
    y.backward(retain_graph=True)
    assert mlgpu.memory.stats().allocated == held + x.nbytes
    del y
    assert mlgpu.memory.stats().allocated == before + x.nbytes


def test_nothing_is_saved_that_backward_does_not_need():
    x, w = leaf(1000), mlgpu.ones(1000, dtype=F64)
    size = x.nbytes

    def held(call):
        before = mlgpu.memory.stats().allocated
        y = call()
        found = mlgpu.memory.stats().allocated - before
        del y
        return found / size

    for call, blocks in ((lambda: x + 1, 1), (lambda: (x + 1) + 2, 1), (lambda: (x * 2) * 3, 1),
                         (lambda: (x * w) * w, 1), (lambda: (x + 1).exp(), 1),
                         (lambda: (x + 1).exp() + 1, 2), (lambda: (x + 1) * (x + 2), 3),
                         (lambda: (x + 1).relu().relu(), 2), (lambda: (x + 1).sum(), 0)):
        assert held(call) == pytest.approx(blocks, abs=0.01)
    with mlgpu.no_grad():
        assert held(lambda: (x + 1).exp() * (x + 2)) == pytest.approx(1)


def test_intermediate_tensors_die_as_their_last_user_does():
    x = leaf(10)
    y = x + 1
    ref = weakref.ref(y)
    z = y * 2
    del y
    assert ref() is None
    z.sum().backward()
    node = weakref.ref(z.grad_fn)
    del z
    assert node() is None


def test_a_leaf_lives_as_long_as_its_graph():
    x = leaf(10)
    ref = weakref.ref(x)
    y = (x * 2).sum()
    del x
    assert ref() is not None
    del y
    assert ref() is None


def test_gradients_are_added_in_place():
    x = leaf(1000)
    (x * 2).sum().backward()
    grad_before, base = x.grad, mlgpu.memory.stats().allocated
    for _ in range(3):
        (x * x).sum().backward()
    assert x.grad is grad_before
    assert mlgpu.memory.stats().allocated == base


# --- depth ----------------------------------------------------------------------------------------

DEPTH = 20_000


def chain(x):
    for _ in range(DEPTH):
        x = x + 1
    return x


def branching(x):
    for _ in range(DEPTH // 3):
        x = x * 0.5 + x.sin()
    return x


def in_place_chain(x):
    y = x * 1
    for _ in range(DEPTH):
        y.add_(1)
    return y


def in_place_views(x):
    y = x * 1
    for _ in range(DEPTH // 4):
        y[0].mul_(1.0001)
    return y


def chain_of_views(x):
    for _ in range(DEPTH // 2):
        x = x.view(-1)
    return x


def chain_of_functions(x):
    for _ in range(DEPTH // 4):
        x = Cube.apply(x * 0 + 1)
    return x


def chain_of_indices(x):
    y = x * 1
    for _ in range(DEPTH // 8):
        y = y.clone()
        y[0] = y[1] * 0.5
    return y


DEEP = [chain, branching, in_place_chain, in_place_views, chain_of_views, chain_of_functions,
        chain_of_indices]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("graph", DEEP, ids=lambda g: g.__name__)
def test_depth_is_no_limit(graph):
    assert sys.getrecursionlimit() < DEPTH
    x = leaf(3)
    before = mlgpu.memory.stats().allocated
    y = graph(x)
    del y  # without backward
    assert mlgpu.memory.stats().allocated == before
    graph(x).sum().backward()
    assert x.grad.isfinite().all()
    x.grad = None
    assert mlgpu.memory.stats().allocated == before


@pytest.mark.usefixtures("no_collector")
def test_a_deep_graph_of_gradients():
    x = leaf(3)
    y = x
    for _ in range(3000):
        y = y * 0.999 + y.sin() * 0.001
    (g,) = grad(y.sum(), x, create_graph=True)
    (g * g).sum().backward()
    assert x.grad.isfinite().all()
    del y, g
    assert gc.collect() == 0
