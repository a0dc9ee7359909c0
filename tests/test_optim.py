"""Optimizers against their textbook updates and PyTorch's, and the handling of their state."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.cpu.optimizer import PIECE
from mlgpu.errors import MlgpuError, ShapeError

SHAPES = [(3, 5), (7,), (), (0, 3), (PIECE + 1,), (1, 1)]


def sgd(p, g, state, t, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False,
        maximize=False):
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        state["v"] = g if t == 1 else momentum * state["v"] + (1 - dampening) * g
        g = g + momentum * state["v"] if nesterov else state["v"]
    return p - lr * g


def adam(p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
         maximize=False, decoupled=False):
    g = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    if amsgrad:
        v = state["peak"] = np.maximum(state.get("peak", 0), v)
    return p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def adamw(p, g, state, t, weight_decay=1e-2, **options):
    return adam(p, g, state, t, weight_decay=weight_decay, decoupled=True, **options)


TEXTBOOK = {"SGD": sgd, "Adam": adam, "AdamW": adamw}
SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"maximize": True, "lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"amsgrad": True, "maximize": True, "weight_decay": 0.3}),
]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in SETTINGS]


def problem(steps: int, dtype=np.float64):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    grads = [[rng.standard_normal(shape).astype(dtype) for shape in SHAPES] for _ in range(steps)]
    return start, grads


def trained(optimizer, parameters, grads, tensor):
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = tensor(grad)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


def ours(name, options, start):
    parameters = [nn.Parameter(mlgpu.tensor(value)) for value in start]
    return getattr(optim, name)(parameters, **options), parameters


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-6)])
def test_textbook(name, options, dtype, tolerance):
    start, grads = problem(20, dtype)
    optimizer, parameters = ours(name, options, start)
    found = trained(optimizer, parameters, grads, mlgpu.tensor)
    for number, value in enumerate(start):
        expected, state = value.astype(np.float64), {}
        for t, step in enumerate(grads, 1):
            expected = TEXTBOOK[name](expected, step[number].astype(np.float64), state, t,
                                      **options)
        np.testing.assert_allclose(found[number], expected, rtol=tolerance, atol=tolerance)
        assert found[number].dtype == dtype


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
# After 100 steps in float32 PyTorch is up to 1e-5 from float64, and the compiled loops no more.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_equals_pytorch(name, options, dtype, tolerance):
    torch = pytest.importorskip("torch")
    start, grads = problem(100, dtype)
    optimizer, parameters = ours(name, options, start)
    found = trained(optimizer, parameters, grads, mlgpu.tensor)
    twins = [torch.tensor(value).requires_grad_() for value in start]
    reference = getattr(torch.optim, name)(twins, **options)
    for a, b in zip(found, trained(reference, twins, grads, torch.tensor), strict=True):
        scale = max(1.0, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)
    mine, other = optimizer.state_dict(), reference.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert {k: set(v) for k, v in mine["state"].items()} == {
        k: set(v) for k, v in other["state"].items()}
    for key, value in other["state"].items():
        for entry, tensor in value.items():
            np.testing.assert_allclose(mine["state"][key][entry].numpy(), tensor.numpy(),
                                       rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
def test_state_from_pytorch(name, options):
    """PyTorch's state_dict, taken over in the middle, goes on as PyTorch does."""
    torch = pytest.importorskip("torch")
    start, grads = problem(10)
    twins = [torch.tensor(value).requires_grad_() for value in start]
    reference = getattr(torch.optim, name)(twins, **options)
    middle = trained(reference, twins, grads[:5], torch.tensor)
    state = copy.deepcopy(reference.state_dict())
    for entry in state["state"].values():
        entry.update({k: mlgpu.tensor(v.numpy()) for k, v in entry.items()})
    optimizer, parameters = ours(name, {**options, "lr": 123.0}, middle)
    optimizer.load_state_dict(state)
    found = trained(optimizer, parameters, grads[5:], mlgpu.tensor)
    for a, b in zip(found, trained(reference, twins, grads[5:], torch.tensor), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
def test_save_and_go_on(name, options, tmp_path):
    start, grads = problem(6, np.float32)
    optimizer, parameters = ours(name, options, start)
    trained(optimizer, parameters, grads[:3], mlgpu.tensor)
    mlgpu.save(optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    other, twins = ours(name, {**options, "lr": 123.0}, [p.detach().numpy() for p in parameters])
    other.load_state_dict(mlgpu.load(tmp_path / "optimizer.safetensors"))
    ends = [trained(o, p, grads[3:], mlgpu.tensor) for o, p in ((optimizer, parameters),
                                                               (other, twins))]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_loaded_state_is_a_copy():
    optimizer, parameters = ours("Adam", {}, [np.ones(3, np.float32)])
    trained(optimizer, parameters, [[np.ones(3, np.float32)]], mlgpu.tensor)
    saved = optimizer.state_dict()
    other, _ = ours("Adam", {}, [np.ones(3, np.float32)])
    other.load_state_dict(saved)
    theirs = other.state_dict()
    assert theirs["state"][0]["exp_avg"].data_ptr() != saved["state"][0]["exp_avg"].data_ptr()
    assert theirs["param_groups"] == saved["param_groups"]
    assert theirs["param_groups"][0] is not saved["param_groups"][0]


def test_loaded_state_fits_its_parameter():
    optimizer, parameters = ours("Adam", {}, [np.ones(3, np.float32)])
    trained(optimizer, parameters, [[np.ones(3, np.float32)]], mlgpu.tensor)
    other, _ = ours("Adam", {}, [np.ones(3, np.float64)])
    other.load_state_dict(optimizer.state_dict())
    state = other.state_dict()["state"][0]
    assert state["exp_avg"].dtype is mlgpu.float64
    assert state["step"].dtype is mlgpu.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
def test_half_types_compute_in_float32(name, options, dtype):
    """One step is the float32 step, rounded once."""
    kind = getattr(mlgpu, dtype)
    rng = np.random.default_rng(0)
    wide = [mlgpu.tensor(rng.standard_normal(50).astype(np.float32)).to(kind) for _ in range(2)]
    ends = []
    for d in (kind, mlgpu.float32):
        parameter = nn.Parameter(wide[0].to(d, copy=True))
        parameter.grad = wide[1].to(d, copy=True)
        optimizer = getattr(optim, name)([parameter], **options)
        optimizer.step()
        ends.append(parameter.detach().to(kind).float().numpy())
        assert parameter.dtype is d
        for entry, tensor in optimizer.state_dict()["state"].get(0, {}).items():
            assert tensor.dtype is (mlgpu.float32 if entry == "step" else d)
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_complex_is_two_reals(name):
    rng = np.random.default_rng(0)
    value, grad = (rng.standard_normal(5) + 1j * rng.standard_normal(5) for _ in range(2))
    optimizer, parameters = ours(name, {"lr": 0.1}, [value])
    found = trained(optimizer, parameters, [[grad]] * 3, mlgpu.tensor)[0]
    parts = [trained(*ours(name, {"lr": 0.1}, [part(value)]), [[part(grad)]] * 3, mlgpu.tensor)[0]
             for part in (np.real, np.imag)]
    np.testing.assert_allclose(found, parts[0] + 1j * parts[1], rtol=1e-12)


@pytest.mark.parametrize("view", [
    lambda t: t.T, lambda t: t[::2], lambda t: t[:, 1:], lambda t: t.T[3:, ::2]])
@pytest.mark.parametrize("shape", [(6, 7), (200, 300), (3, 20_000)])
def test_strided_parameters(view, shape):
    """Parameters, gradients and state of any layout, and larger than a block."""
    rng = np.random.default_rng(0)
    value, grad = (rng.standard_normal(shape) for _ in range(2))
    base = mlgpu.tensor(value)
    parameter = nn.Parameter(view(base))
    parameter.grad = view(mlgpu.tensor(grad))
    untouched = base.detach().clone()
    optimizer = optim.Adam([parameter], lr=0.1)
    optimizer.step()
    expected = adam(view(value), view(grad), {}, 1, lr=0.1)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)
    view(untouched).copy_(mlgpu.tensor(expected))
    np.testing.assert_allclose(base.numpy(), untouched.numpy(), rtol=1e-12)


def test_counts_as_a_change():
    """A value saved for backward is refused after a step, and hooks cannot see a stale one."""
    parameter = nn.Parameter(mlgpu.ones(3))
    loss = (parameter * parameter).sum()
    parameter.grad = mlgpu.ones(3)
    optimizer = optim.Adam([parameter])
    optimizer.step()
    assert parameter._version == 1
    assert optimizer.state[parameter]["exp_avg"]._version == 1
    assert parameter.is_leaf
    assert parameter.requires_grad
    with pytest.raises(mlgpu.GraphError, match="changed in place"):
        loss.backward()


def test_parameters_without_gradient_are_left_alone():
    first, second = (nn.Parameter(mlgpu.ones(2)) for _ in range(2))
    optimizer = optim.Adam([first, second])
    first.grad = mlgpu.ones(2)
    optimizer.step()
    assert second.tolist() == [1.0, 1.0]
    assert list(optimizer.state_dict()["state"]) == [0]


def test_groups():
    first, second, third = (nn.Parameter(mlgpu.ones(2)) for _ in range(3))
    optimizer = optim.SGD([{"params": [first]}, {"params": second, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": [third], "lr": 1.0, "maximize": True})
    for parameter in (first, second, third):
        parameter.grad = mlgpu.ones(2)
    optimizer.step()
    assert [round(p[0].item(), 6) for p in (first, second, third)] == [0.9, 0.5, 2.0]
    assert [group["params"] for group in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]


def test_named_parameters():
    model = nn.Linear(2, 3)
    optimizer = optim.AdamW(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="named"):
        optimizer.add_param_group({"params": [nn.Parameter(mlgpu.ones(1))]})


def test_closure():
    parameter = nn.Parameter(mlgpu.tensor([2.0]))
    optimizer = optim.SGD([parameter], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()
        return loss

    with mlgpu.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert parameter.item() == 1.0


def test_zero_grad():
    parameter = nn.Parameter(mlgpu.ones(2))
    optimizer = optim.SGD([parameter])
    parameter.grad = grad = mlgpu.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert parameter.grad is grad
    assert grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert parameter.grad is None


def test_hooks():
    calls = []
    optimizer = optim.SGD([nn.Parameter(mlgpu.ones(1))])
    before = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("after"))
    optimizer.step()
    before.remove()
    optimizer.step()
    assert calls == ["before", "after", "after"]


def test_own_optimizer():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def update(self, group):
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.sign() * group["lr"])

    parameter = nn.Parameter(mlgpu.tensor([1.0, 1.0]))
    parameter.grad = mlgpu.tensor([3.0, -2.0])
    Sign([parameter], 0.5).step()
    assert parameter.tolist() == [0.5, 1.5]


def test_deepcopy():
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = mlgpu.ones(parameter.shape)
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    twin.step()
    assert twin.param_groups[0]["params"][0] is twin_model.weight
    assert twin_model.weight in twin.state
    assert optimizer.state[model.weight]["step"].item() == 1


def test_repr():
    optimizer = optim.SGD([nn.Parameter(mlgpu.ones(1))], lr=0.1)
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
    torch = pytest.importorskip("torch")
    assert repr(optimizer) == repr(torch.optim.SGD([torch.ones(1)], lr=0.1))


def leaf(*shape):
    return nn.Parameter(mlgpu.ones(*shape))


@pytest.mark.parametrize(("make", "error"), [
    (lambda: optim.SGD(leaf(2)), TypeError),
    (lambda: optim.SGD([]), ValueError),
    (lambda: optim.SGD([1]), TypeError),
    (lambda: optim.SGD([leaf(2) * 2]), ValueError),
    (lambda: optim.SGD([p := leaf(2), p]), ValueError),
    (lambda: optim.SGD([{"params": {leaf(2)}}]), TypeError),
    (lambda: optim.SGD([{"params": [p := leaf(2)]}, {"params": [p]}]), ValueError),
    (lambda: optim.SGD([leaf(2)]).add_param_group([leaf(2)]), TypeError),
    (lambda: optim.SGD([leaf(2)], lr=-1.0), ValueError),
    (lambda: optim.SGD([leaf(2)], lr=float("nan")), ValueError),
    (lambda: optim.SGD([leaf(2)], momentum=-1), ValueError),
    (lambda: optim.SGD([leaf(2)], weight_decay=-1), ValueError),
    (lambda: optim.SGD([leaf(2)], nesterov=True), ValueError),
    (lambda: optim.SGD([leaf(2)], nesterov=True, momentum=0.9, dampening=0.1), ValueError),
    (lambda: optim.SGD([leaf(2)], differentiable=True), MlgpuError),
    (lambda: optim.SGD([leaf(2)], foreach=True, fused=True), MlgpuError),
    (lambda: optim.Adam([leaf(2)], betas=(1.0, 0.9)), ValueError),
    (lambda: optim.Adam([leaf(2)], betas=(0.9, -0.1)), ValueError),
    (lambda: optim.AdamW([leaf(2)], eps=-1e-8), ValueError),
])
def test_wrong_use(make, error):
    with pytest.raises(error):
        make()


def test_wrong_state():
    state = optim.SGD([leaf(2), leaf(3)]).state_dict()
    with pytest.raises(ShapeError, match="2 parameters in the state, 1"):
        optim.SGD([leaf(2)]).load_state_dict(state)
    with pytest.raises(ShapeError, match="1 parameter groups, the optimizer 2"):
        optim.SGD([{"params": [leaf(2)]}, {"params": [leaf(3)]}]).load_state_dict(state)


def test_memory_is_flat_without_the_collector():
    parameter = nn.Parameter(mlgpu.ones(1000))
    optimizer = optim.Adam([parameter])
    gc.collect()
    gc.disable()
    try:
        live = []
        for _ in range(6):
            parameter.grad = mlgpu.ones(1000)
            optimizer.step()
            optimizer.zero_grad()
            live.append(mlgpu.memory.stats().allocated)
        assert len(set(live[1:])) == 1
    finally:
        gc.enable()
