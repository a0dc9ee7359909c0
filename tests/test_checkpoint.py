"""Activation checkpointing: the same gradients from less memory, and the same random numbers."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.autograd import grad, saved_tensors_hooks
from mlgpu.testing import gradcheck, gradgradcheck
from mlgpu.utils.checkpoint import checkpoint, checkpoint_sequential

F64 = mlgpu.float64


def leaf(*shape, seed=0):
    return mlgpu.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def block(x, w, scale=1.0):
    return ((x @ w).tanh() * scale).exp() * x


def same(call):
    """What `call(run)` gives with a plain and with a checkpointed run, with all gradients."""
    results = []
    for run in (lambda f, *a, **k: f(*a, **k), checkpoint):
        x, w = leaf(3, 4), leaf(4, 4, seed=1)
        y = call(run, x, w)
        y.sum().backward()
        results.append([t.tolist() for t in (y, x.grad, w.grad)])
    assert results[0] == results[1]


def test_same_results_and_gradients_bit_for_bit():
    same(lambda run, x, w: run(block, x, w))
    same(lambda run, x, w: run(block, x, w, scale=0.5) * 2 + x)
    same(lambda run, x, w: run(lambda x: block(x, w), x))  # w comes with the closure
    same(lambda run, x, w: run(block, run(block, x * 1, w) * 0.1, w))
    same(lambda run, x, w: run(lambda *, given: block(given, w), given=x))
    same(lambda run, x, w: run(lambda x: (x.exp(), 5, [x.sin()]), x)[2][0] @ w)


def test_derivatives():
    def call(x, w):
        return checkpoint(block, x, w)

    inputs = (leaf(2, 3), leaf(3, 3, seed=1))
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)
    x = leaf(2)
    value = checkpoint(lambda x: x.exp() * x, x)
    for n in range(1, 4):
        (value,) = grad(value.sum(), x, create_graph=True)
        np.testing.assert_allclose(value.tolist(), ((x + n) * x.exp()).tolist())


def test_nested_checkpoints():
    runs = []

    def inner(x, w):
        runs.append("inner")
        return block(x, w)

    def outer(x, w):
        runs.append("outer")
        return checkpoint(inner, checkpoint(inner, x, w) * 0.1, w)

    same(lambda run, x, w: run(outer, x, w))
    runs.clear()
    x, w = leaf(3, 4), leaf(4, 4, seed=1)
    y = checkpoint(outer, x, w)
    assert runs == ["outer", "inner", "inner"]
    y.sum().backward()
    assert runs.count("outer") == 2


def test_the_function_runs_twice_and_only_if_needed():
    runs = []

    def f(x):
        runs.append(mlgpu.is_grad_enabled())
        return x.exp()

    x = leaf(3)
    y = checkpoint(f, x)
    (x * 2).sum().backward()
    assert runs == [True]
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert runs == [True, True]
    with mlgpu.no_grad():
        checkpoint(f, x)
    assert runs == [True, True, False]
    with pytest.raises(mlgpu.GraphError, match="backward a second time"):
        y.sum().backward()


def test_arguments_without_gradient_stay_so():
    seen = []

    def f(x, n, c, name):
        seen.append((x.requires_grad, x.is_leaf, n, c.requires_grad, name))
        return x ** n * c

    x = leaf(3)
    checkpoint(f, x * 1, 2, mlgpu.ones(3, dtype=F64), "name").sum().backward()
    assert seen == [(True, False, 2, False, "name"), (True, True, 2, False, "name")]


def test_random_numbers_are_the_same_in_the_second_run():
    masks = []

    def noisy(x):
        mask = mlgpu.rand(x.shape, dtype=F64) < 0.5
        masks.append(mask.tolist())
        return nn.functional.dropout((x * mask).exp(), 0.5)

    mlgpu.manual_seed(3)
    x = leaf(4, 5)
    y = checkpoint(noisy, x)
    after = mlgpu.rand(3).tolist()
    y.sum().backward()
    assert masks[0] == masks[1]
    mlgpu.manual_seed(3)
    plain = x.detach().requires_grad_()
    noisy(plain).sum().backward()
    assert plain.grad.tolist() == x.grad.tolist()
    assert mlgpu.rand(3).tolist() == after
    mlgpu.manual_seed(3)
    z = checkpoint(noisy, x, preserve_rng_state=False)
    mlgpu.rand(7)
    z.sum().backward()
    assert masks[-1] != masks[-2]


def test_backward_leaves_the_random_numbers_alone():
    mlgpu.manual_seed(0)
    y = checkpoint(lambda x: nn.functional.dropout(x, 0.5).exp(), leaf(8))
    state = mlgpu.get_rng_state().tolist()
    y.sum().backward()
    assert mlgpu.get_rng_state().tolist() == state


# --- memory ---------------------------------------------------------------------------------------


def deep(x, w, run, blocks=8):
    for _ in range(blocks):
        x = run(block, x, w, 0.01)
    return x


def live(call):
    """Bytes that a graph holds between forward and backward, and the peak of backward."""
    gc.collect()
    before = mlgpu.memory.stats().allocated
    y = call().sum()
    held = mlgpu.memory.stats().allocated - before
    mlgpu.memory.reset_peak()
    y.backward()
    return held, mlgpu.memory.stats().peak - before


def test_less_memory():
    x, w = leaf(64, 64), leaf(64, 64, seed=1)
    size = x.nbytes
    plain, plain_peak = live(lambda: deep(x, w, lambda f, *a: f(*a)))
    saving, peak = live(lambda: deep(x, w, checkpoint))
    assert plain > 20 * size
    assert saving < 9 * size  # the blocks' inputs
    assert peak < 0.75 * plain_peak
    outer, _ = live(lambda: checkpoint(deep, x, w, checkpoint))
    assert outer < 2 * size  # an outer checkpoint drops what the inner ones keep
    sequential, _ = live(lambda: checkpoint_sequential([lambda x: block(x, w, 0.01)] * 8, 4, x))
    assert saving / 2 < sequential < plain / 2


def test_nothing_stays_behind():
    gc.collect()
    gc.disable()
    try:
        x, w = leaf(16, 16), leaf(16, 16, seed=1)
        x.grad, w.grad = mlgpu.zeros_like(x), mlgpu.zeros_like(w)
        before = mlgpu.memory.stats()
        for step in range(6):
            y = checkpoint(deep, x, w, checkpoint)
            if step % 3 == 0:
                y.sum().backward()
            elif step % 3 == 1:
                y = y.clone()
                y += checkpoint(block, y.clone(), w)
            else:
                grad(y.sum(), x, create_graph=True)
            del y
        after = mlgpu.memory.stats()
        assert (after.allocated, after.count) == (before.allocated, before.count)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_no_cycle_where_the_argument_is_changed_by_the_result():
    gc.collect()
    gc.disable()
    try:
        before = mlgpu.memory.stats().allocated
        h = leaf(4) * 2
        h += checkpoint(mlgpu.exp, h)
        del h
        assert mlgpu.memory.stats().allocated == before
    finally:
        gc.enable()


# --- what is refused ------------------------------------------------------------------------------


def test_a_second_run_that_differs_is_an_error():
    state = {"n": 0}

    def more(x):
        state["n"] += 1
        for _ in range(state["n"]):
            x = x.exp()
        return x

    with pytest.raises(mlgpu.GraphError, match="saved 2 values where the first run saved 1"):
        checkpoint(more, leaf(3)).sum().backward()

    def other(x):
        state["n"] += 1
        return x[:state["n"]].exp()

    state["n"] = 0
    with pytest.raises(mlgpu.GraphError, match=r"saved a .* tensor of shape \(2,\) where"):
        checkpoint(other, leaf(3)).sum().backward()


def test_changed_arguments_are_an_error():
    x = leaf(3)
    h = x * 2
    y = checkpoint(mlgpu.exp, h)
    h.add_(1)
    with pytest.raises(mlgpu.GraphError, match="checkpoint: a value saved for backward"):
        y.sum().backward()
    h = x * 2
    y = checkpoint(mlgpu.exp, h)
    h.release()
    with pytest.raises(mlgpu.ReleasedError):
        y.sum().backward()


def test_a_needed_value_changed_by_the_function_is_an_error():
    with pytest.raises(mlgpu.GraphError, match="changed in place by the function"):
        checkpoint(lambda x: x.exp().add_(1), leaf(3)).sum().backward()


def test_an_error_in_the_second_run_leaves_everything_as_it_was():
    state = {"fail": False}

    def f(x):
        if state["fail"]:
            raise ZeroDivisionError
        return nn.functional.dropout(x, 0.5).exp()

    x = leaf(3)
    y = checkpoint(f, x)
    state["fail"] = True
    random = mlgpu.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert mlgpu.get_rng_state().tolist() == random
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        pass
    assert mlgpu.is_grad_enabled()
    x.exp().sum().backward()


def test_a_function_may_itself_differentiate():
    def force(run, x):
        def f(x):
            energy = nn.functional.dropout(x ** 3, 0.2).sum()
            return grad(energy, x, create_graph=True)[0] * x.sin()

        return run(f, x)

    results = []
    for run in (lambda f, x: f(x), checkpoint):
        mlgpu.manual_seed(0)
        x = leaf(5)
        y = force(run, x)
        y.sum().backward()
        results.append([t.tolist() for t in (y, x.grad, mlgpu.rand(2))])
    assert results[0] == results[1]


def test_sequential_runs_every_function_in_order():
    x = leaf(3)
    steps = [lambda x: x * 2, mlgpu.exp, lambda x: x + 1, mlgpu.log]
    expected = steps[3](steps[2](steps[1](steps[0](x))))
    for segments in (1, 2, 3, 4, 9):
        found = checkpoint_sequential(steps, segments, x)
        assert found.tolist() == expected.tolist()
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    assert checkpoint_sequential(model, 2, x).tolist() == model(x).tolist()
