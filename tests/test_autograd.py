"""backward and grad: accumulation, what is freed, hooks, modes, threads, orders, refusals."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu import autograd
from mlgpu.testing import gradcheck, gradgradcheck

F64 = mlgpu.float64


def leaf(*values, **options):
    return mlgpu.tensor(list(values), dtype=F64, requires_grad=True, **options)


# --- backward -------------------------------------------------------------------------------------


def test_backward_adds_to_the_gradients_of_leaves():
    x, y = leaf(1, 2), leaf(3, 4)
    (x * y).sum().backward()
    assert x.grad.tolist() == [3, 4]
    assert y.grad.tolist() == [1, 2]
    first = x.grad
    (x * x).sum().backward()
    assert x.grad is first
    assert x.grad.tolist() == [5, 8]
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_a_leaf_used_many_times_gets_the_sum():
    x = leaf(2)
    y = x * x + x * 3 + x
    (y * y).sum().backward()
    assert x.grad.tolist() == [2 * 12 * 8]


def test_gradients_do_not_share_memory():
    x, y = leaf(1, 2), leaf(3, 4)
    z = x + y
    seed = mlgpu.ones(2, dtype=F64)
    z.backward(seed)
    x.grad.mul_(10)
    assert y.grad.tolist() == [1, 1]
    assert seed.tolist() == [1, 1]


def test_a_leaf_may_be_the_root():
    x = leaf(5)
    x.sum().backward()
    x.backward()
    assert x.grad.tolist() == [2]
    x.backward(mlgpu.tensor([3.0], dtype=F64))
    assert x.grad.tolist() == [5]


def test_backward_of_several_tensors():
    x = leaf(1, 2)
    a, b = x * 2, (x * x).sum()
    autograd.backward([a, b], [mlgpu.tensor([1.0, 10.0], dtype=F64), None])
    assert x.grad.tolist() == [2 + 2, 20 + 4]
    x.grad = None
    a = x * 2
    autograd.backward((a, a), (mlgpu.ones(2, dtype=F64), mlgpu.ones(2, dtype=F64)))
    assert x.grad.tolist() == [4, 4]


def test_backward_into_some_inputs_only():
    x, y = leaf(1, 2), leaf(3, 4)
    h = x * y
    (h * x).sum().backward(inputs=[x], retain_graph=True)
    assert y.grad is None
    assert x.grad.tolist() == [2 * 1 * 3, 2 * 2 * 4]
    (h * h).sum().backward(inputs=h)  # a non-leaf, and not through it
    assert h.grad.tolist() == [6, 16]
    assert y.grad is None
    with pytest.raises(mlgpu.GraphError, match="cannot be empty"):
        (x * 2).sum().backward(inputs=[])


def test_gradients_have_the_dtype_and_shape_of_their_tensors():
    x = mlgpu.ones(3, 1, dtype=mlgpu.float32, requires_grad=True)
    y = mlgpu.ones(2, dtype=F64, requires_grad=True)
    z = mlgpu.ones(2, dtype=mlgpu.complex128, requires_grad=True)
    ((x * y) * z).real.sum().backward()
    for t in (x, y, z):
        assert (t.grad.dtype, tuple(t.grad.shape)) == (t.dtype, tuple(t.shape))
    assert x.grad.tolist() == [[2], [2], [2]]
    assert y.grad.tolist() == [3, 3]


def test_what_backward_refuses():
    x = leaf(1, 2)
    with pytest.raises(mlgpu.GraphError, match="one element"):
        (x * 2).backward()
    with pytest.raises(mlgpu.GraphError, match="does not require grad"):
        mlgpu.ones(1).backward()
    with pytest.raises(mlgpu.ShapeError, match=r"a gradient has shape \(3,\), its tensor \(2,\)"):
        (x * 2).backward(mlgpu.ones(3))
    with pytest.raises(mlgpu.DTypeError, match="complex"):
        (x * 2).backward(mlgpu.ones(2, dtype=mlgpu.complex64))
    with pytest.raises(mlgpu.GraphError, match="only for real"):
        (x.sum() * 1j).backward()
    with pytest.raises(mlgpu.ShapeError, match="2 tensors but 1 gradients"):
        autograd.backward([x * 2, x * 3], [mlgpu.ones(2)])
    y = x * 2
    with mlgpu.inference_mode(), pytest.raises(mlgpu.GraphError, match="inference_mode"):
        y.backward(mlgpu.ones(2, dtype=F64))
    assert x.grad is None


# --- the graph's life -----------------------------------------------------------------------------


def test_backward_twice_is_an_error_unless_the_graph_is_retained():
    x = leaf(2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(mlgpu.GraphError, match=r"backward a second time.*retain_graph=True"):
        y.backward()
    z = x + 1  # nothing was saved: nothing is missing
    z.sum().backward()
    z.sum().backward()


def test_a_graph_shared_by_two_losses():
    x = leaf(2)
    h = x.exp()
    (h * 2).sum().backward(retain_graph=True)
    (h * 3).sum().backward()
    assert x.grad.item() == pytest.approx(5 * math.exp(2))
    with pytest.raises(mlgpu.GraphError, match="exp: backward a second time"):
        (h * 3).sum().backward()


def test_grad_frees_only_what_it_walked():
    x, y = leaf(2), leaf(3)
    a, b = x.exp(), y.exp()
    loss = (a * b).sum()
    assert autograd.grad(loss, a, retain_graph=True)[0].item() == pytest.approx(math.exp(3))
    assert autograd.grad(loss, b)[0].item() == pytest.approx(math.exp(2))
    a.sum().backward()  # exp itself was never walked
    assert x.grad.item() == pytest.approx(math.exp(2))


def test_an_error_in_backward_leaves_the_mode_as_it_was():
    x = leaf(1)
    y = x * 2
    y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert mlgpu.is_grad_enabled()
    assert (x * 2).requires_grad


# --- grad -----------------------------------------------------------------------------------------


def test_grad_returns_and_leaves_the_leaves_alone():
    x, y = leaf(1, 2), leaf(3, 4)
    h = x * y
    gx, gh = autograd.grad((h * h).sum(), (x, h))
    assert gx.tolist() == [2 * 1 * 9, 2 * 2 * 16]
    assert gh.tolist() == [6, 16]
    assert x.grad is None
    assert y.grad is None
    assert not gx.requires_grad
    assert autograd.grad(x, x, mlgpu.ones(2, dtype=F64))[0].tolist() == [1, 1]


def test_grad_with_respect_to_a_view_or_the_same_input_twice():
    x = leaf(1, 2)
    v = (x * 1)[0]
    assert autograd.grad(v * v, v)[0].item() == 2
    a, b = autograd.grad((x * x).sum(), (x, x))
    assert a.tolist() == b.tolist() == [2, 4]


def test_unused_inputs():
    x, y = leaf(1), leaf(1, 2)
    with pytest.raises(mlgpu.GraphError, match=r"input 1 was not used.*allow_unused=True"):
        autograd.grad((x * 2).sum(), (x, y))
    assert autograd.grad((x * 2).sum(), (x, y), allow_unused=True)[1] is None
    zeros = autograd.grad((x * 2).sum(), (x, y), materialize_grads=True)[1]
    assert zeros.tolist() == [0, 0]
    assert zeros.dtype is F64
    with pytest.raises(ValueError, match="materialize_grads"):
        autograd.grad((x * 2).sum(), y, allow_unused=False, materialize_grads=True)
    with pytest.raises(mlgpu.GraphError, match="does not require grad"):
        autograd.grad((x * 2).sum(), mlgpu.ones(1))


def test_an_input_behind_a_cut_is_unused():
    x = leaf(1, 2)
    y = x * 2
    assert autograd.grad(y.detach().requires_grad_().sum(), x, allow_unused=True) == (None,)
    assert autograd.grad((y.detach() * y).sum(), x)[0].tolist() == [4, 8]


# --- higher orders --------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "orders"), [
    (lambda x: x ** 4, [lambda x: 4 * x ** 3, lambda x: 12 * x ** 2, lambda x: 24 * x]),
    (mlgpu.sin, [np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)]),
    (lambda x: x.exp() * x, [lambda x, n=n: (x + n) * np.exp(x) for n in (1, 2, 3)]),
    (lambda x: 1 / x, [lambda x: -x ** -2, lambda x: 2 * x ** -3, lambda x: -6 * x ** -4]),
    (mlgpu.tanh, [lambda x: 1 - np.tanh(x) ** 2,
                  lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
                  lambda x: (1 - np.tanh(x) ** 2) * (6 * np.tanh(x) ** 2 - 2)])],
    ids=["pow", "sin", "exp", "reciprocal", "tanh"])
def test_three_orders(function, orders):
    x = leaf(0.3, 1.1, -0.7)
    value = function(x)
    for formula in orders:
        (value,) = autograd.grad(value.sum(), x, create_graph=True)
        np.testing.assert_allclose(value.detach().numpy(), formula(x.detach().numpy()), 1e-9)


def test_create_graph_in_backward_gives_gradients_with_a_graph():
    x = leaf(2)
    with pytest.warns(UserWarning, match="keep each other alive"):
        (x ** 3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    penalty = (x.grad ** 2).sum()
    x.grad = None
    penalty.backward()
    assert x.grad.tolist() == [2 * 12 * 12]  # d(9x⁴)/dx = 36x³


@pytest.mark.parametrize("place", [0, 1, 2])
def test_constant_and_variable_gradients_add_up_with_their_graph(place):
    """Two constant gradients, then one with a graph: what is added in place keeps no graph."""
    x = leaf(0.5, 1)
    h = x * 1
    parts = [h.sin() if k == place else h * k for k in range(3)]
    (g,) = autograd.grad(sum(part.sum() for part in parts), x, create_graph=True)
    assert g.requires_grad
    np.testing.assert_allclose(autograd.grad(g.sum(), x)[0].numpy(), -np.sin([0.5, 1]))


def test_second_derivatives_flow_to_the_seeds():
    x = leaf(3)
    seed = leaf(1)
    (g,) = autograd.grad(x * x, x, seed, create_graph=True)
    assert autograd.grad(g.sum(), (x, seed))[1].tolist() == [6]


def test_mixed_shapes_to_the_second_order():
    def loss(w, b, x):
        h = (x @ w + b).tanh()
        return (h.softmax(-1) * h).sum(0), h.mean()

    rng = np.random.default_rng(0)
    inputs = [mlgpu.tensor(rng.standard_normal(s), requires_grad=True)
              for s in ((3, 2), (2,), (4, 3))]
    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients_in_order():
    x = leaf(1, 2)
    h = x * 3
    seen = []
    h.register_hook(lambda g: seen.append(("first", g.tolist())))
    h.register_hook(lambda g: g * 2)
    h.register_hook(lambda g: seen.append(("last", g.tolist())))
    x.register_hook(lambda g: g + 100)
    h.sum().backward()
    assert seen == [("first", [1, 1]), ("last", [2, 2])]
    assert x.grad.tolist() == [106, 106]


def test_a_hook_sees_the_sum_of_all_uses_once():
    x = leaf(1)
    seen = []
    h = x * 1
    h.register_hook(lambda g: seen.append(g.item()))
    x.register_hook(lambda g: seen.append(-g.item()))
    (h * 2 + h * 3 + x * 4).sum().backward()
    assert seen == [5, -9]


def test_hooks_can_be_removed():
    x = leaf(1)
    seen = []
    handle = x.register_hook(seen.append)
    with x.register_hook(seen.append):
        (x * 1).sum().backward()
    assert len(seen) == 2
    handle.remove()
    handle.remove()
    (x * 1).sum().backward()
    assert len(seen) == 2


def test_a_gradient_kept_by_a_hook_does_not_change_later():
    x = leaf(1)
    kept = []
    h = x * 1
    h.register_hook(kept.append)
    (h * 2 + h * 3).sum().backward()
    (x * 7).sum().backward()
    x.grad.mul_(0)
    assert kept[0].tolist() == [5]


def test_hooks_of_outputs_of_one_node():
    x = mlgpu.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=F64, requires_grad=True)
    values, _ = x.max(1)
    a, b = (x * 1).unbind(0)
    a.register_hook(lambda g: g * 10)
    values.register_hook(lambda g: g * 100)
    (a.sum() + b.sum() + values.sum()).backward()
    assert x.grad.tolist() == [[10, 110], [101, 1]]


def test_post_accumulate_hooks_run_after_the_gradient_is_there():
    x = leaf(1)
    seen = []
    handle = x.register_post_accumulate_grad_hook(lambda t: seen.append((t is x, t.grad.item())))
    (x * 2 + x * 3).sum().backward()
    assert seen == [(True, 5)]
    (x * 2).sum().backward()
    assert seen[-1] == (True, 7)
    handle.remove()
    (x * 2).sum().backward()
    assert len(seen) == 2
    autograd.grad((x * 2).sum(), x)
    with pytest.raises(mlgpu.GraphError, match="only for leaves"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_a_post_accumulate_hook_may_take_the_gradient():
    x = leaf(1)

    def step(t):
        with mlgpu.no_grad():
            t -= 0.5 * t.grad
        t.grad = None

    x.register_post_accumulate_grad_hook(step)
    (x * 2).sum().backward()
    assert x.tolist() == [0]
    assert x.grad is None


def test_hooks_need_a_graph():
    for register in (mlgpu.ones(1).register_hook,
                     mlgpu.ones(1).register_post_accumulate_grad_hook):
        with pytest.raises(mlgpu.GraphError, match="require"):
            register(print)


def test_hooks_take_part_in_second_derivatives():
    x = leaf(3)
    h = x * 1
    h.register_hook(lambda g: g * x)
    (g,) = autograd.grad((h * h).sum(), x, create_graph=True)
    assert g.item() == 18
    assert autograd.grad(g.sum(), x)[0].item() == 2 * 3 + 2 * 3 * 3  # d(2hx)/dx, the hook again


def test_a_hooks_gradient_must_fit():
    x = leaf(1, 2)
    h = x * 2
    h.register_hook(lambda g: mlgpu.ones(3, dtype=F64))
    with pytest.raises(mlgpu.ShapeError, match="hook"):
        h.sum().backward()
    y = leaf(1, 2)
    y.register_hook(lambda g: 5)
    with pytest.raises(TypeError, match="hook"):
        (y * 2).sum().backward()


def test_retained_gradients():
    x = leaf(1, 2)
    h = x * 2
    y = h * h
    h.retain_grad()
    h.retain_grad()
    assert h.retains_grad
    assert not x.retains_grad
    x.retain_grad()
    y.sum().backward()
    assert h.grad.tolist() == [4, 8]
    assert y.grad is None
    with pytest.raises(mlgpu.GraphError, match="does not require grad"):
        mlgpu.ones(1).retain_grad()


def test_a_retained_gradient_is_that_of_the_value_after_changes_in_place():
    x = leaf(1, 2)
    y, z, w = x * 1, x * 1, x * 1
    view = w[0]
    for t in (y, z, view):
        t.retain_grad()
    y.mul_(3)
    z[0].mul_(3)
    w.mul_(3)
    assert y.retains_grad
    ((y + z + view) * 10).sum().backward()
    assert y.grad.tolist() == z.grad.tolist() == [10, 10]
    assert view.grad.item() == 20
    assert x.grad.tolist() == [30 + 30 + 60, 30 + 10]


def test_a_hook_set_before_a_change_in_place_sees_the_value_before_it():
    seen = []
    y = leaf(1, 2) * 1
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.mul_(3)
    (y * 10).sum().backward()
    assert seen == [[30, 30]]


def test_hooks_of_nodes():
    log = []
    x = leaf(1, 2)
    y = x.exp() * 2
    node = y.grad_fn
    node.register_prehook(lambda outs: log.append(("before", [g.tolist() for g in outs])))
    handle = node.register_hook(
        lambda ins, outs: log.append(("after", [g.tolist() for g in (*ins, *outs)])))
    y.register_hook(lambda g: log.append("tensor") or g * 2)
    y.sum().backward(retain_graph=True)
    assert log == ["tensor", ("before", [[2, 2]]), ("after", [[4, 4], [2, 2]])]
    handle.remove()
    y.sum().backward()
    assert len(log) == 5


def test_hooks_of_nodes_replace_gradients():
    x = leaf(1, 2)
    y = x * 2
    y.grad_fn.register_prehook(lambda outs: (outs[0] * 10,))
    y.grad_fn.register_hook(lambda ins, outs: (ins[0] + 1,))
    assert autograd.grad(y.sum(), y, retain_graph=True)[0].tolist() == [1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [21, 21]
    for wrong in (5, (x, x)):
        z = x * 2
        z.grad_fn.register_hook(lambda ins, outs, wrong=wrong: wrong)
        with pytest.raises(TypeError, match="a tuple of 1 gradients"):
            z.sum().backward()


def test_nodes_show_the_graph():
    x = leaf(1)
    y = (x * 2).exp()
    assert x.grad_fn is None
    assert "Backward" in repr(y.grad_fn)
    (mul, index), = y.grad_fn.next_functions
    assert index == 0
    assert mul is not None
    assert y.output_nr == 0


def test_the_gradient_can_be_set_and_must_fit():
    x = leaf(1, 2)
    x.grad = mlgpu.ones(2, dtype=F64)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [3, 3]
    for wrong, error in ((mlgpu.ones(3, dtype=F64), mlgpu.ShapeError),
                         (mlgpu.ones(2), mlgpu.DTypeError), (1.0, TypeError),
                         (x, mlgpu.GraphError)):
        with pytest.raises(error, match="grad"):
            x.grad = wrong


# --- modes ----------------------------------------------------------------------------------------


def test_nothing_is_recorded_where_recording_is_off():
    x = leaf(1)
    with mlgpu.no_grad():
        assert not (x * 2).requires_grad
        with mlgpu.enable_grad():
            assert (x * 2).requires_grad
        assert not mlgpu.is_grad_enabled()
        assert leaf(1).requires_grad
    assert mlgpu.is_grad_enabled()
    with mlgpu.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_set_grad_enabled_works_at_once():
    try:
        mlgpu.set_grad_enabled(False)
        assert not mlgpu.is_grad_enabled()
    finally:
        mlgpu.set_grad_enabled(True)
    assert mlgpu.is_grad_enabled()


@pytest.mark.parametrize("mode", [mlgpu.no_grad, mlgpu.no_grad(), mlgpu.inference_mode(),
                                  mlgpu.inference_mode],
                         ids=["bare", "called", "inference", "bare inference"])
def test_modes_as_decorators(mode):
    @mode
    def compute(x, scale=2):
        """Doc."""
        return x * scale

    assert compute.__name__ == "compute"
    assert not compute(leaf(1), scale=3).requires_grad
    assert mlgpu.is_grad_enabled()

    @mlgpu.no_grad()
    def outer(x):
        return mlgpu.enable_grad()(lambda y: y * 2)(x), x * 2

    inner, mine = outer(leaf(1))
    assert inner.requires_grad
    assert not mine.requires_grad


def test_set_grad_enabled_as_a_decorator():
    @mlgpu.set_grad_enabled(False)
    def compute(x):
        return x * 2

    assert mlgpu.is_grad_enabled()
    assert not compute(leaf(1)).requires_grad
    assert mlgpu.is_grad_enabled()


def test_decorated_generators_switch_only_while_they_run():
    @mlgpu.no_grad()
    def numbers(x):
        for _ in range(2):
            yield x * 2

    x = leaf(1)
    for value in numbers(x):
        assert not value.requires_grad
        assert (x * 2).requires_grad


def test_contexts_are_reusable_and_reentrant_and_survive_errors():
    off = mlgpu.no_grad()
    with off, off:
        assert not mlgpu.is_grad_enabled()
    assert mlgpu.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), off:
        raise ZeroDivisionError
    assert mlgpu.is_grad_enabled()


def test_inference_mode():
    x = leaf(1)
    with mlgpu.inference_mode():
        assert mlgpu.is_inference_mode_enabled()
        assert not mlgpu.is_grad_enabled()
        y = x * 2
        assert y.is_inference()
        with mlgpu.inference_mode(False):
            assert mlgpu.is_grad_enabled()
            assert (x * 2).requires_grad
        y.add_(1)
    assert not mlgpu.is_inference_mode_enabled()
    assert not y.requires_grad
    assert not (y + 1).requires_grad
    with pytest.raises(mlgpu.GraphError, match="inference_mode"):
        y.requires_grad_()
    with pytest.raises(mlgpu.GraphError, match="saved for backward"):
        x * y
    (x * y.clone()).sum().backward()
    assert x.grad.item() == 3


def test_threads_have_their_own_mode():
    started, release, seen = threading.Event(), threading.Event(), []

    def work():
        with mlgpu.no_grad():
            started.set()
            release.wait(10)
            seen.append(mlgpu.is_grad_enabled())

    with mlgpu.inference_mode():
        fresh = threading.Thread(target=lambda: seen.append(mlgpu.is_inference_mode_enabled()))
        fresh.start()
        fresh.join()
    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    assert mlgpu.is_grad_enabled()
    assert (leaf(1) * 2).requires_grad
    release.set()
    thread.join()
    assert seen == [False, False]


def test_threads_differentiate_at_once():
    weights = mlgpu.tensor(np.arange(64.0).reshape(8, 8) / 64, requires_grad=True)
    results = [None] * 8

    def work(k):
        x = mlgpu.full((8,), float(k), dtype=F64)
        total = mlgpu.zeros(8, 8, dtype=F64)
        for _ in range(20):
            total += autograd.grad((weights @ x).tanh().sum(), weights)[0]
        results[k] = total

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parallel, results[:] = list(results), [None] * 8
    for k in range(8):
        work(k)
        assert results[k].tolist() == parallel[k].tolist()


# --- tensors and the graph ------------------------------------------------------------------------


def test_flags():
    x = mlgpu.ones(2)
    assert x.is_leaf
    assert not x.requires_grad
    x.requires_grad = True
    y = x * 2
    assert y.requires_grad
    assert not y.is_leaf
    assert y.detach().is_leaf
    assert not y.detach().requires_grad
    assert y.requires_grad_() is y
    x.requires_grad_(False)
    assert not (x * 2).requires_grad
    with pytest.raises(mlgpu.GraphError, match="detach"):
        y.requires_grad_(False)
    for dtype in (mlgpu.int64, mlgpu.bool):
        with pytest.raises(mlgpu.DTypeError, match="floating and complex"):
            mlgpu.ones(2, dtype=dtype).requires_grad_()
    assert not x.bool().requires_grad


def test_detach_shares_memory_and_cuts():
    x = leaf(1, 2)
    d = x.detach()
    d[0] = 5
    assert x.tolist() == [5, 2]
    (x * d).sum().backward()
    assert x.grad.tolist() == [5, 2]


def test_results_without_derivative_do_not_require_grad():
    x = leaf(1, -2)
    for result in (x > 0, x.argmax(), x.sign().bool(), x.long(), x.isnan()):
        assert not result.requires_grad
    assert x.sign().requires_grad  # as in PyTorch: a gradient of zeros
    assert autograd.grad(x.sign().sum(), x)[0].tolist() == [0, 0]


def test_an_operation_without_second_derivative_raises_by_name():
    from mlgpu.op import Op, run

    class OnlyFast(Op):
        def forward(self, x):
            return x * 1

        def backward_cpu(self, dy):
            return dy * 1

    x = leaf(1)
    run(OnlyFast(), x).sum().backward()
    assert x.grad.tolist() == [1]
    with pytest.raises(mlgpu.DerivativeError, match="only_fast: has no second derivative"):
        autograd.grad(run(OnlyFast(), x).sum(), x, create_graph=True)


def test_an_operation_without_derivative_raises_by_name():
    from mlgpu.op import Op, run

    class NoDerivative(Op):
        def forward(self, x):
            return x * 1

    with pytest.raises(mlgpu.DerivativeError, match=r"no_derivative: has no derivative.*detach"):
        run(NoDerivative(), leaf(1))
    run(NoDerivative(), leaf(1).detach())
    with mlgpu.no_grad():
        run(NoDerivative(), leaf(1))


def test_release_of_a_saved_value_is_an_error_in_backward():
    x = leaf(1, 2)
    y = x * 2
    z = (y * y).sum()
    y.release()
    with pytest.raises(mlgpu.ReleasedError, match="mul: backward needs"):
        z.backward()


# --- saved_tensors_hooks --------------------------------------------------------------------------


def test_saved_values_pass_through_hooks():
    packed = []

    def pack(t):
        packed.append(t.requires_grad)
        return t.numpy().copy()

    x = leaf(1, 2)
    assert autograd.graph.saved_tensors_hooks is autograd.saved_tensors_hooks
    with autograd.saved_tensors_hooks(pack, lambda a: mlgpu.tensor(a)):
        y = x.exp() * x
    assert packed
    assert not any(packed)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1, 2]) * [2, 3])


def test_hooks_of_saved_values_nest_and_allow_second_derivatives():
    names = []
    x = leaf(2)
    with autograd.saved_tensors_hooks(lambda t: names.append("outer") or t, lambda t: t):
        x * x
        with autograd.saved_tensors_hooks(lambda t: names.append("inner") or t, lambda t: t):
            y = x * x * x
        x * x
    assert names == ["outer"] * 2 + ["inner"] * 4 + ["outer"] * 2
    (g,) = autograd.grad(y.sum(), x, create_graph=True)
    assert autograd.grad(g.sum(), x)[0].item() == 12


# --- against PyTorch ------------------------------------------------------------------------------


def test_the_order_of_hooks_and_gradients_is_pytorchs():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    logs = []
    for lib in (mlgpu, torch):
        log = []
        x = lib.tensor([1.0, 2.0], dtype=lib.float64, requires_grad=True)
        a = x * 2
        b = a.exp()
        c = a * b
        for name, t in (("x", x), ("a", a), ("b", b), ("c", c)):
            t.register_hook(lambda g, name=name, log=log: log.append((name, g.tolist())))
        x.register_post_accumulate_grad_hook(
            lambda t, log=log: log.append(("post", t.grad.tolist())))
        (c.sum() + (b * b).sum() + (x * x).sum()).backward()
        logs.append(log)
    assert [name for name, _ in logs[0]] == [name for name, _ in logs[1]]
    for (_, mine), (_, theirs) in zip(*logs, strict=True):
        np.testing.assert_allclose(mine, theirs)


CUTS = {"unbind": lambda t: t.unbind(1), "split": lambda t: t.split(2, 1),
        "sizes": lambda t: t.split([1, 0, 3], 1), "chunk": lambda t: t.chunk(3, 1),
        "iterate": lambda t: tuple(t.mT)}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_one_node(name):
    """All parts' gradients go into one array; parts that nobody used count as zeros."""
    x = mlgpu.arange(12.0).reshape(3, 4).requires_grad_()
    parts = CUTS[name](x)
    assert len({part.grad_fn for part in parts}) == 1
    (parts[-1] * 3).sum().backward()
    expected = mlgpu.zeros(3, 4)
    CUTS[name](expected)[-1].fill_(3)
    assert mlgpu.equal(x.grad, expected)
    x.grad = None
    sum(((i + 1) * part ** 2).sum() for i, part in enumerate(CUTS[name](x))).backward()
    for i, (grad, part) in enumerate(zip(CUTS[name](x.grad), CUTS[name](x.detach()), strict=True)):
        assert mlgpu.equal(grad, 2 * (i + 1) * part)


@pytest.mark.parametrize("name", CUTS)
def test_parts_of_a_cut_follow_changes_in_place(name):
    x = mlgpu.arange(12.0).reshape(3, 4).requires_grad_()
    y = x * 1
    parts = CUTS[name](y)
    parts[0].mul_(5)
    (y.sum() + parts[0].sum() + parts[-1].sum()).backward()
    expected = mlgpu.ones(3, 4)
    CUTS[name](expected)[-1].add_(1)
    CUTS[name](expected)[0].fill_(10)
    assert mlgpu.equal(x.grad, expected)
