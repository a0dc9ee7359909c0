"""Custom Functions: contexts, flags, in-place, views, double backward, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.autograd import Function, grad
from mlgpu.autograd.function import once_differentiable
from mlgpu.testing import gradcheck, gradgradcheck

F64 = mlgpu.float64


def leaf(*values):
    return mlgpu.tensor(list(values), dtype=F64, requires_grad=True)


def function(forward, backward=None, **more):
    """A Function with these static methods."""
    methods = {"forward": forward, "backward": backward, **more}
    return type("Custom", (Function,), {name: staticmethod(method)
                                        for name, method in methods.items() if method})


class Scale(Function):
    """x * y * factor, with everything saved."""

    @staticmethod
    def forward(ctx, x, factor, y):
        ctx.save_for_backward(x, None, y)
        ctx.factor = factor
        return x * y * factor

    @staticmethod
    def backward(ctx, dz):
        x, nothing, y = ctx.saved_tensors
        assert nothing is None
        return dz * y * ctx.factor, None, dz * x * ctx.factor


class Exp(Function):
    """With its output saved."""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.saved_tensors[0]


def test_values_gradients_and_second_derivatives():
    rng = np.random.default_rng(0)
    x, y = (mlgpu.tensor(rng.standard_normal((2, 3)), requires_grad=True) for _ in range(2))
    for call, inputs in ((lambda x, y: Scale.apply(x, 3.0, y), (x, y)), (Exp.apply, (x,)),
                         (lambda x: Exp.apply(Exp.apply(x * 0.3)) * x, (x,))):
        assert gradcheck(call, inputs)
        assert gradgradcheck(call, inputs)


def test_third_derivative_through_a_saved_output():
    x = leaf(0.5)
    value = Exp.apply(x)
    for _ in range(3):
        (value,) = grad(value.sum(), x, create_graph=True)
    assert value.item() == pytest.approx(np.exp(0.5))


def test_setup_context_gets_all_inputs_and_the_output():
    seen = []

    def setup(ctx, inputs, output):
        seen.append((len(inputs), inputs[1]))
        ctx.save_for_backward(output)
        ctx.n = inputs[1]

    call = function(lambda x, n=2: x ** n,
                    lambda ctx, dy: (dy * ctx.n * ctx.saved_tensors[0] ** (1 - 1 / ctx.n), None),
                    setup_context=setup)
    x = leaf(3)
    call.apply(x).sum().backward()
    assert x.grad.item() == pytest.approx(6)
    call.apply(x, n=3)
    assert seen == [(2, 2), (2, 3)]


def test_keyword_arguments_have_no_gradient():
    call = function(lambda ctx, x, *, factor: x * factor, lambda ctx, dy: dy * 5)
    x = leaf(1)
    call.apply(x, factor=5).sum().backward()
    assert x.grad.tolist() == [5]


def test_modes_of_forward_and_backward():
    modes = []
    call = function(lambda ctx, x: modes.append(mlgpu.is_grad_enabled()) or x * 2,
                    lambda ctx, dy: modes.append(mlgpu.is_grad_enabled()) or dy * 2)
    x = leaf(1)
    call.apply(x).sum().backward()
    grad(call.apply(x).sum(), x, create_graph=True)
    assert modes == [False, False, False, True]
    with mlgpu.no_grad():
        assert not call.apply(x).requires_grad
    assert not call.apply(x.detach()).requires_grad


def test_which_inputs_need_a_gradient():
    seen = []
    call = function(lambda ctx, *xs: seen.append(ctx.needs_input_grad) or xs[0] * xs[1],
                    lambda ctx, dy: (seen.append(ctx.needs_input_grad), dy, None, None, None)[1:])
    x = leaf(1)
    call.apply(x, x.detach(), 3, "text").sum().backward()
    assert seen == [(True, False, False, False)] * 2


def test_outputs_without_derivative():
    def forward(ctx, x):
        a, b, c = x * 2, x * 3, x.long()
        ctx.mark_non_differentiable(b)
        return a, b, c, "text", None

    seen = []
    call = function(forward, lambda ctx, da, *rest: seen.append(rest) or da * 2)
    x = leaf(1, 2)
    a, b, c, text, nothing = call.apply(x)
    assert [a.requires_grad, b.requires_grad, c.requires_grad] == [True, False, False]
    assert (text, nothing) == ("text", None)
    a.sum().backward()
    assert x.grad.tolist() == [2, 2]
    ((db, dc, dtext, dnothing),) = seen
    assert db.tolist() == dc.tolist() == [0, 0]
    assert dtext is dnothing is None


@pytest.mark.parametrize("materialize", [True, False])
def test_missing_gradients_are_zeros_or_none(materialize):
    seen = []

    def forward(ctx, x):
        ctx.set_materialize_grads(materialize)
        return x * 2, x.sum()

    call = function(forward, lambda ctx, da, db: seen.append(db) or da * 2)
    call.apply(leaf(1, 2))[0].sum().backward()
    if materialize:
        assert seen[0].item() == 0
        assert tuple(seen[0].shape) == ()
    else:
        assert seen == [None]


# --- in place and views ---------------------------------------------------------------------------


def double(ctx, x):
    x.mul_(2)
    ctx.mark_dirty(x)
    return x


Double = function(double, lambda ctx, dy: dy * 2)


def test_a_dirty_input_goes_on_as_the_output():
    x = leaf(1, 2)
    y = x * 3
    z = Double.apply(y)
    assert z is y
    (y * y).sum().backward()
    assert x.grad.tolist() == [2 * 36 * 1, 2 * 36 * 2]


def test_a_dirty_view_changes_its_base_and_the_other_views():
    x = leaf(1, 2, 3)
    y = x * 1
    v, w = y[1:], y[:2]
    Double.apply(v)
    assert y.tolist() == [1, 4, 6]
    (g,) = grad(y.sum(), x, retain_graph=True)
    assert g.tolist() == [1, 2, 2]
    assert grad(w.sum(), x, retain_graph=True)[0].tolist() == [1, 2, 0]
    assert grad(v.sum(), x)[0].tolist() == [0, 2, 2]


def test_a_dirty_output_may_be_saved():
    def forward(ctx, x):
        x.exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    call = function(forward, lambda ctx, dy: dy * ctx.saved_tensors[0])
    assert gradcheck(lambda x: call.apply(x * 0.5), leaf(0.1, 0.7))
    assert gradgradcheck(lambda x: call.apply(x * 0.5), leaf(0.1, 0.7))


def test_what_is_dirty_must_be_returned_and_no_leaf():
    x = leaf(1)
    for t in (x, x[:1]):
        with pytest.raises(mlgpu.GraphError, match="Custom: a leaf that requires grad"):
            Double.apply(t)
    silent = function(lambda ctx, x: (ctx.mark_dirty(x), x.mul_(2), x * 1)[2], lambda ctx, dy: dy)
    with pytest.raises(mlgpu.GraphError, match="must be returned"):
        silent.apply(leaf(1) * 1)


def test_an_input_returned_unchanged_is_another_tensor():
    call = function(lambda ctx, x: x, lambda ctx, dy: dy * 10)
    x = leaf(1)
    y = call.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [10]
    mixed = function(lambda ctx, x, y: (y, x), lambda ctx, da, db: (db * 2, da * 3))
    a, b = leaf(1), leaf(2)
    c, d = mixed.apply(a, b)
    (c.sum() + 10 * d.sum()).backward()
    assert (a.grad.item(), b.grad.item()) == (20, 3)


def test_views_made_inside_cannot_be_changed():
    for forward in (lambda ctx, x: x[:1], lambda ctx, x: x, lambda ctx, x: x.T):
        call = function(forward, lambda ctx, dy: mlgpu.ones(2, dtype=F64) * dy)
        base = leaf(1, 2) * 1
        view = call.apply(base)
        with pytest.raises(mlgpu.GraphError, match=r"Custom returned cannot follow.*clone"):
            view.mul_(2)
        assert base.tolist() == [1, 2]
        (view * 1).sum().backward()
        base = leaf(1, 2) * 1
        view = call.apply(base)
        base.mul_(2)
        for _ in range(2):
            with pytest.raises(mlgpu.GraphError, match=r"Custom returned cannot follow.*clone"):
                view * 1


# --- double backward ------------------------------------------------------------------------------


def test_once_differentiable():
    calls = []

    @once_differentiable
    def backward(ctx, dy):
        calls.append(mlgpu.is_grad_enabled())
        return dy * 2 * ctx.saved_tensors[0]

    call = function(lambda ctx, x: (ctx.save_for_backward(x), x * x)[1], backward)
    x = leaf(3)
    assert grad(call.apply(x).sum(), x)[0].tolist() == [6]
    (g,) = grad(call.apply(x).sum() * 1, x, create_graph=True)
    assert g.tolist() == [6]
    assert g.requires_grad
    for attempt in (lambda: grad(g.sum(), x), lambda: g.sum().backward()):
        with pytest.raises(mlgpu.DerivativeError, match="Custom: is only once differentiable"):
            attempt()
    assert calls == [False, False]


def test_gradients_that_use_no_recorded_operation_are_constants():
    call = function(lambda ctx, x: 3 * x, lambda ctx, dy: dy * 3)
    x = leaf(1)
    (g,) = grad(call.apply(x).sum(), x, create_graph=True)
    assert not g.requires_grad


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("backward", "error", "match"), [
    (lambda ctx, dy: (dy, dy, dy), mlgpu.ShapeError, "returned 3 gradients for 2 inputs"),
    (lambda ctx, dy: dy, mlgpu.ShapeError, "returned 1 gradients for 2 inputs"),
    (lambda ctx, dy: (dy, dy), mlgpu.GraphError, "a gradient for an argument of forward that is"),
    (lambda ctx, dy: (3.0, None), TypeError, "must return Tensors or None, got float"),
    (lambda ctx, dy: (mlgpu.ones(5), None), mlgpu.ShapeError, r"gradient of shape \(5,\)"),
    (None, mlgpu.DerivativeError, "has no backward")])
def test_wrong_backwards(backward, error, match):
    call = function(lambda ctx, x, n: x * n, backward)
    y = call.apply(leaf(1, 2), 3)
    with pytest.raises(error, match=match):
        y.sum().backward()


def test_gradients_are_made_to_fit():
    call = function(lambda ctx, x: x * 2, lambda ctx, dy: mlgpu.ones(3, 2))
    x = leaf(1, 2)
    call.apply(x).sum().backward()
    assert x.grad.dtype is F64
    assert x.grad.tolist() == [3, 3]
    trailing = function(lambda ctx, x: x * 2, lambda ctx, dy: (dy, None, None))
    trailing.apply(x).sum().backward()


def test_saved_values_are_watched_and_freed():
    x = leaf(1, 2)
    y = x * 1
    z = Scale.apply(y, 2.0, x)
    y.add_(1)
    with pytest.raises(mlgpu.GraphError, match="Scale: a value saved for backward"):
        z.sum().backward()
    z = Exp.apply(x)
    assert z.grad_fn.saved_tensors[0].tolist() == z.tolist()
    z.sum().backward()
    with pytest.raises(mlgpu.GraphError, match="Exp: backward a second time"):
        z.sum().backward()
    with pytest.raises(TypeError, match="save_for_backward keeps Tensors and None only, got int"):
        function(lambda ctx, x: ctx.save_for_backward(5)).apply(x)


def test_a_subclass_needs_a_forward():
    with pytest.raises(mlgpu.DerivativeError, match="must define a static forward"):
        Function.apply(leaf(1))


def test_names():
    assert repr(Exp.apply(leaf(1)).grad_fn).startswith("<ExpBackward at")
    assert "grad_fn=<ScaleBackward>" in repr(Scale.apply(leaf(1), 1.0, leaf(2)))
    assert "grad_fn=<LogSoftmaxBackward>" in repr(leaf(1).log_softmax(0))
