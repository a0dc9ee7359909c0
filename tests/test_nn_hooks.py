"""Hooks around forward and backward."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu import nn
from mlgpu.errors import GraphError


class Scale(nn.Module):
    def __init__(self, factor=3.0):
        super().__init__()
        self.factor = factor

    def forward(self, x, *more, plus=0.0):
        y = x * self.factor + plus
        return (y, *more) if more else y


def test_forward_pre_hook():
    module = Scale()
    handle = module.register_forward_pre_hook(lambda m, args: args[0] + 1)
    assert module(mlgpu.tensor(1.0)).item() == 6
    module.register_forward_pre_hook(lambda m, args: (args[0] * 10,), prepend=True)
    assert module(mlgpu.tensor(1.0)).item() == 33
    handle.remove()
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"plus": 0.5}),
                                     with_kwargs=True)
    assert module(mlgpu.tensor(1.0), plus=100.0).item() == 30.5
    module.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(TypeError, match="args, kwargs"):
        module(mlgpu.tensor(1.0))


def test_forward_hook():
    seen = []
    module = Scale()
    module.register_forward_hook(lambda m, args, output: seen.append(output.item()))
    module.register_forward_hook(lambda m, args, output: output + 1)
    module.register_forward_hook(lambda m, args, kwargs, output: output * kwargs["plus"],
                                 with_kwargs=True)
    first = module.register_forward_hook(lambda m, args, output: output * 2, prepend=True)
    assert module(mlgpu.tensor(1.0), plus=1.0).item() == 9
    first.remove()
    assert module(mlgpu.tensor(1.0), plus=1.0).item() == 5
    assert seen == [8, 4]
    with mlgpu.no_grad():
        assert module(mlgpu.tensor(2.0), plus=1.0).item() == 8


def test_always_called():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("broken")

    seen = []
    module = Broken()
    module.register_forward_hook(lambda m, args, output: seen.append("plain"))
    module.register_forward_hook(lambda m, args, output: seen.append(output), always_call=True)
    module.register_forward_hook(lambda m, args, kwargs, output: seen.append(kwargs),
                                 with_kwargs=True, always_call=True)
    with pytest.raises(ValueError, match="broken"):
        module(1)
    assert seen == [None, {}]


def test_full_backward_hook_sees_and_replaces():
    seen = []
    module = Scale()

    def hook(m, grad_input, grad_output):
        assert m is module
        seen.append((grad_input[0].item(), grad_output[0].item()))
        return (grad_input[0] * 10,)

    handle = module.register_full_backward_hook(hook)
    x = mlgpu.tensor(1.0, requires_grad=True)
    (module(x) * 2).backward()
    assert seen == [(6.0, 2.0)]
    assert x.grad.item() == 60
    handle.remove()
    x.grad = None
    module(x).backward()
    assert x.grad.item() == 3


def test_full_backward_pre_hook():
    module = Scale()
    module.register_full_backward_pre_hook(lambda m, grads: grads[0] * 5)
    x = mlgpu.tensor(1.0, requires_grad=True)
    module(x).backward()
    assert x.grad.item() == 15


def test_full_backward_hook_of_several_tensors():
    seen = []
    module = Scale()
    module.register_full_backward_hook(lambda m, dx, dy: seen.append((dx, dy)))
    x, other = mlgpu.tensor(1.0, requires_grad=True), mlgpu.tensor(1.0, requires_grad=True)
    y, same, constant, text = module(x, other, mlgpu.tensor(1.0), "text")
    assert text == "text"
    assert not constant.requires_grad
    (y + 7 * same).backward()
    (dx, dy), = seen
    assert [g if g is None else g.item() for g in dx] == [3, 7, None, None]
    assert [g if g is None else g.item() for g in dy] == [1, 7, None, None]
    y, same, *_ = module(x, other, 1)
    y.backward()  # the other output has no gradient
    assert [g if g is None else g.item() for g in seen[1][0]] == [3, None, None]


def test_full_backward_hook_without_input_gradient():
    seen = []
    module = nn.Linear(1, 1)
    module.register_full_backward_hook(lambda m, dx, dy: seen.append((dx, dy[0].item())))
    module(mlgpu.ones(1, 1)).sum().backward()
    assert seen == [((None,), 1.0)]
    assert module.weight.grad is not None


def test_full_backward_hook_with_second_derivative():
    module = Scale()
    module.register_full_backward_hook(lambda m, dx, dy: (dx[0] * 2,))
    x = mlgpu.tensor(2.0, requires_grad=True)
    y = module(x * x)
    (gradient,) = mlgpu.autograd.grad(y, x, create_graph=True)
    assert gradient.item() == 24  # 2 * 3 * 2x
    gradient.backward()
    assert x.grad.item() == 12


def test_module_in_place_within_hooks():
    """The copy at the module's border keeps what is outside as it was."""
    module = nn.ReLU(inplace=True)
    module.register_full_backward_hook(lambda m, dx, dy: None)
    x = mlgpu.tensor([-1.0, 2.0], requires_grad=True)
    hidden = x * 1
    y = module(hidden)
    (y * hidden).sum().backward()
    assert hidden.tolist() == [-1.0, 2.0]
    assert x.grad.tolist() == [0.0, 4.0]


def test_wrong_number_of_gradients():
    module = Scale()
    module.register_full_backward_hook(lambda m, dx, dy: (dx[0], dx[0]))
    x = mlgpu.tensor(1.0, requires_grad=True)
    with pytest.raises(GraphError, match="1 gradients, got 2"):
        module(x).backward()


def test_same_calls_as_pytorch():
    torch = pytest.importorskip("torch")

    def trace(library):
        calls = []
        inner, outer = library.nn.Linear(2, 2), library.nn.ReLU()
        model = library.nn.Sequential(inner, outer)
        for name, module in (("inner", inner), ("model", model)):
            module.register_forward_pre_hook(
                lambda m, a, name=name: calls.append((name, "forward pre", len(a))))
            module.register_forward_hook(
                lambda m, a, y, name=name: calls.append((name, "forward", tuple(y.shape))))
            module.register_full_backward_pre_hook(
                lambda m, dy, name=name: calls.append((name, "backward pre", len(dy))))
            module.register_full_backward_hook(
                lambda m, dx, dy, name=name: calls.append(
                    (name, "backward", [None if g is None else tuple(g.shape) for g in dx])))
        x = library.ones(3, 2, requires_grad=True)
        model(x).sum().backward()
        return calls

    assert trace(mlgpu) == trace(torch)
