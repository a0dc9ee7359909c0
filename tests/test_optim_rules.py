"""Optimizers of one expression, and those of tensor operations: papers, PyTorch, state, graphs."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.cpu import fast
from mlgpu.errors import GraphError, ShapeError

SHAPES = [(3, 5), (7,), (), (0, 3), (37, 101), (1, 1)]

SETTINGS = [
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"centered": True, "lr": 0.1, "alpha": 0.5, "eps": 1e-3}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3,
                 "initial_accumulator_value": 0.5, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.5, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"betas": (0.5, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "lr": 0.1}),
    ("RAdam", {}),
    ("RAdam", {"weight_decay": 0.1, "betas": (0.8, 0.9), "maximize": True}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "lr": 0.1}),
    ("Rprop", {}),
    ("Rprop", {"etas": (0.3, 2.0), "step_sizes": (1e-3, 0.02), "maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.9, "t0": 4, "weight_decay": 0.1}),
    ("Adafactor", {}),
    ("Adafactor", {"weight_decay": 0.1, "d": 2.0, "eps": (1e-6, 0.1), "maximize": True}),
    ("Lion", {"lr": 0.01}),
    ("Lion", {"betas": (0.5, 0.8), "weight_decay": 0.3, "maximize": True}),
    ("Adan", {}),
    ("Adan", {"lr": 0.1, "weight_decay": 0.3, "betas": (0.9, 0.8, 0.7), "maximize": True}),
    ("Adan", {"weight_decay": 0.3, "no_prox": True}),
    ("LAMB", {}),
    ("LAMB", {"lr": 0.1, "weight_decay": 0.3, "eps": 1e-3, "maximize": True}),
    ("CautiousAdamW", {"weight_decay": 0.3, "lr": 0.1}),
    ("CautiousAdamW", {"amsgrad": True, "maximize": True}),
    ("Muon", {}),
    ("Muon", {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.5}),
]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in SETTINGS]
OURS = {"Lion", "Adan", "LAMB", "CautiousAdamW"}  # which PyTorch lacks


def lion(p, g, state, t, lr, betas=(0.9, 0.99), weight_decay=0.0):
    m = state.get("m", 0)
    state["m"] = betas[1] * m + (1 - betas[1]) * g
    return p - lr * (np.sign(betas[0] * m + (1 - betas[0]) * g) + weight_decay * p)


def adan(p, g, state, t, lr, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0,
         no_prox=False):
    jump = g - state.get("g", g)
    state["g"] = g
    inputs = g, jump, (g + betas[1] * jump) ** 2
    m, v, n = (beta * state.get(i, 0) + (1 - beta) * x
               for i, (beta, x) in enumerate(zip(betas, inputs, strict=True)))
    state.update({0: m, 1: v, 2: n})
    m, v, n = (x / (1 - beta ** t) for x, beta in zip((m, v, n), betas, strict=True))
    step = lr * (m + betas[1] * v) / (np.sqrt(n) + eps)
    if no_prox:
        return p * (1 - lr * weight_decay) - step
    return (p - step) / (1 + lr * weight_decay)


def adam_step(g, state, t, betas, eps, amsgrad=False):
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    if amsgrad:
        v = state["peak"] = np.maximum(state.get("peak", 0), v)
    return m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def lamb(p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01):
    r = adam_step(g, state, t, betas, eps) + weight_decay * p
    norms = np.linalg.norm(p), np.linalg.norm(r)
    return p - lr * (norms[0] / norms[1] if min(norms) > 0 else 1) * r


def cautious(p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01,
             amsgrad=False):
    u = adam_step(g, state, t, betas, eps, amsgrad)
    return p - lr * (u + weight_decay * p * (u * p >= 0))


PAPERS = {"Lion": lion, "Adan": adan, "LAMB": lamb, "CautiousAdamW": cautious}


def problem(name, steps, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = {"Muon": [(3, 5), (6, 4), (1, 1)],
              "Adafactor": [s for s in SHAPES if 0 not in s]}.get(name, SHAPES)  # PyTorch divides
    start = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    grads = [[rng.standard_normal(shape).astype(dtype) for shape in shapes] for _ in range(steps)]
    return start, grads


def trained(optimizer, parameters, grads, tensor):
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = tensor(grad)
        optimizer.step()
    return [parameter.detach().cpu().numpy() for parameter in parameters]


def ours(name, options, start):
    parameters = [nn.Parameter(mlgpu.tensor(value)) for value in start]
    return getattr(optim, name)(parameters, **options), parameters


def options_of(name, options):
    return {**({"lr": 1e-3} if name == "Adan" else {"lr": 1e-4} if name == "Lion" else {}),
            **options}


@pytest.mark.parametrize(("name", "options"), [s for s in SETTINGS if s[0] in OURS],
                         ids=[i for i, s in zip(IDS, SETTINGS, strict=True) if s[0] in OURS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_papers(name, options, dtype, tolerance, device):
    start, grads = problem(name, 20, dtype)
    optimizer, parameters = ours(name, options, start)
    found = trained(optimizer, parameters, grads, mlgpu.tensor)
    given = options_of(name, options)
    sign = -1 if given.pop("maximize", False) else 1
    for number, value in enumerate(start):
        expected, state = value.astype(np.float64), {}
        for t, step in enumerate(grads, 1):
            expected = PAPERS[name](expected, sign * step[number].astype(np.float64), state, t,
                                    **given)
        assert found[number].dtype == dtype
        # A sign may turn by the last bit.
        off = np.abs(found[number] - expected) > tolerance * np.maximum(1, np.abs(expected))
        assert off.mean() <= (1e-4 if name == "Lion" and off.size else 0) if off.size else True


@pytest.mark.parametrize(("name", "options"), [s for s in SETTINGS if s[0] not in OURS],
                         ids=[i for i, s in zip(IDS, SETTINGS, strict=True) if s[0] not in OURS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 5e-6)])
def test_equals_pytorch(name, options, dtype, tolerance, device):
    torch = pytest.importorskip("torch")
    start, grads = problem(name, 20, dtype)
    optimizer, parameters = ours(name, options, start)
    found = trained(optimizer, parameters, grads, mlgpu.tensor)
    twins = [torch.tensor(value).requires_grad_() for value in start]
    reference = getattr(torch.optim, name)(twins, **options)
    # PyTorch keeps numbers of NAdam in float32 on the way; Muon computes in bfloat16.
    tolerance = {"NAdam": max(tolerance, 1e-7), "Muon": 1e-3}.get(name, tolerance)
    theirs = trained(reference, twins, grads, torch.tensor)
    for a, b in zip(found, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))
    mine, other = optimizer.state_dict(), reference.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert {k: set(v) for k, v in mine["state"].items()} == {
        k: set(v) for k, v in other["state"].items()}
    for key, value in other["state"].items():
        for entry, tensor in value.items():
            held = mine["state"][key][entry]
            assert tuple(held.shape) == tuple(tensor.shape)
            np.testing.assert_allclose(held.cpu().numpy(), tensor.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=IDS)
def test_save_and_go_on(name, options, tmp_path, device):
    """State that is saved, loaded and used again changes nothing; nor do groups."""
    start, grads = problem(name, 4, np.float32)
    optimizer, parameters = ours(name, options, start)
    trained(optimizer, parameters, grads[:2], mlgpu.tensor)
    mlgpu.save(optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    other = getattr(optim, name)([{"params": [twin]} for twin in twins], **{**options, "lr": 12.0})
    saved = mlgpu.load(tmp_path / "optimizer.safetensors")
    group = saved["param_groups"][0]
    saved["param_groups"] = [{**group, "params": [i]} for i in group["params"]]
    other.load_state_dict(saved)
    ends = [trained(o, p, grads[2:], mlgpu.tensor) for o, p in ((optimizer, parameters),
                                                               (other, twins))]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "options"), SETTINGS[::2], ids=IDS[::2])
def test_half_types_compute_in_float32(name, options, device):
    """One step is the float32 step, rounded once."""
    if name in ("Muon", "LAMB", "Adafactor", "Rprop"):
        pytest.skip("several operations, norms of what is rounded, or a step that is state")
    rng = np.random.default_rng(0)
    for kind in (mlgpu.float16, mlgpu.bfloat16):
        wide = [mlgpu.tensor(rng.standard_normal(50).astype(np.float32)).to(kind)
                for _ in range(2)]
        ends = []
        for d in (kind, mlgpu.float32):
            parameter = nn.Parameter(wide[0].to(d, copy=True))
            parameter.grad = wide[1].to(d, copy=True)
            optimizer = getattr(optim, name)([parameter], **options)
            optimizer.step()
            ends.append(parameter.detach().to(kind).float().cpu().numpy())
            for entry, tensor in optimizer.state_dict()["state"][0].items():
                assert tensor.dtype is (mlgpu.float32 if entry in optimizer._singles else d)
        np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Rprop", "RAdam", "Lion", "Adan"])
def test_complex_is_two_reals(name, device):
    rng = np.random.default_rng(0)
    value, grad = (rng.standard_normal(5) + 1j * rng.standard_normal(5) for _ in range(2))
    found = trained(*ours(name, {"lr": 0.1}, [value]), [[grad]] * 3, mlgpu.tensor)[0]
    parts = [trained(*ours(name, {"lr": 0.1}, [part(value)]), [[part(grad)]] * 3, mlgpu.tensor)[0]
             for part in (np.real, np.imag)]
    np.testing.assert_allclose(found, parts[0] + 1j * parts[1], rtol=1e-12)


@pytest.mark.parametrize("view", [lambda t: t.T, lambda t: t[::2], lambda t: t.T[3:, ::2]])
def test_strided_parameters(view, device):
    rng = np.random.default_rng(0)
    value, grad = (rng.standard_normal((40, 70)) for _ in range(2))
    base = mlgpu.tensor(value)
    parameter = nn.Parameter(view(base))
    parameter.grad = view(mlgpu.tensor(grad))
    optim.RMSprop([parameter], lr=0.1, centered=True).step()
    dense, _ = ours("RMSprop", {"lr": 0.1, "centered": True}, [np.ascontiguousarray(view(value))])
    expected = trained(dense, dense.param_groups[0]["params"], [[view(grad)]], mlgpu.tensor)[0]
    np.testing.assert_allclose(parameter.detach().cpu().numpy(), expected, rtol=1e-13)
    inside = mlgpu.zeros(40, 70, dtype=mlgpu.bool)
    view(inside).fill_(True)
    np.testing.assert_array_equal(np.where(inside.cpu().numpy(), 0, base.detach().cpu().numpy()),
                                  np.where(inside.cpu().numpy(), 0, value))


@pytest.mark.parametrize("name", ["RMSprop", "ASGD", "LAMB"])
def test_factor_and_steps_left_out(name, device):
    start, grads = problem(name, 3, np.float32)
    optimizer, parameters = ours(name, {}, start)
    optimizer.grad_factor = mlgpu.tensor(0.5)
    optimizer.found_inf = mlgpu.tensor(0.0)
    for turn, step in enumerate(grads):
        optimizer.found_inf.fill_(float(turn == 1))
        trained(optimizer, parameters, [step], mlgpu.tensor)
    plain, twins = ours(name, {}, start)
    trained(plain, twins, [[g * np.float32(0.5) for g in grads[i]] for i in (0, 2)], mlgpu.tensor)
    for a, b in zip(parameters, twins, strict=True):
        np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=1e-6)
    for key, value in plain.state_dict()["state"].items():
        for entry, tensor in value.items():
            np.testing.assert_allclose(
                optimizer.state_dict()["state"][key][entry].float().cpu().numpy(),
                tensor.float().cpu().numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["RMSprop", "Rprop", "Adan"])
def test_compiled_loops_agree(name, monkeypatch):
    """As large as compiled loops serve, against NumPy's steps in float64."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(140_000).astype(np.float32)]
    grads = [[rng.standard_normal(140_000).astype(np.float32)] for _ in range(3)]
    found = trained(*ours(name, {}, start), grads, mlgpu.tensor)[0]
    with monkeypatch.context() as without:
        without.setattr(fast, "load", lambda family, work: None)
        exact = trained(*ours(name, {}, [start[0].astype(np.float64)]),
                        [[g[0].astype(np.float64)] for g in grads], mlgpu.tensor)[0]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


def test_one_rule_for_groups_of_different_settings(device):
    start, grads = problem("RMSprop", 4, np.float32)
    rates = [0.01 * i for i in range(20)]
    params = [nn.Parameter(mlgpu.tensor(start[1])) for _ in rates]
    optimizer = optim.RMSprop([{"params": [p], "lr": lr} for p, lr in zip(params, rates,
                                                                         strict=True)])
    trained(optimizer, params, [[step[1]] * 20 for step in grads], mlgpu.tensor)
    for p, lr in zip(params, rates, strict=True):
        alone = trained(*ours("RMSprop", {"lr": lr}, [start[1]]), [[step[1]] for step in grads],
                        mlgpu.tensor)[0]
        np.testing.assert_array_equal(p.detach().cpu().numpy(), alone)


def test_deepcopy_and_pickled_counts(device):
    """A state whose single numbers were cast, as PyTorch's loader does, is taken in float32."""
    start, grads = problem("NAdam", 2)
    optimizer, parameters = ours("NAdam", {}, start)
    trained(optimizer, parameters, grads, mlgpu.tensor)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        entry["mu_product"] = entry["mu_product"].to(mlgpu.float64)
    optimizer.load_state_dict(state)
    trained(optimizer, parameters, grads, mlgpu.tensor)
    assert optimizer.state[parameters[0]]["mu_product"].dtype is mlgpu.float32
    assert optimizer.state[parameters[0]]["step"].item() == 4


# --- L-BFGS and SAM -------------------------------------------------------------------------------


def rosenbrock(x):
    return ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def lbfgs_run(lib, optimizer_class, options, steps):
    x = lib.tensor(np.linspace(-1.2, 1.0, 6)).requires_grad_()
    z = lib.tensor(np.array([0.5 - 1j, 2.0])).requires_grad_()
    optimizer = optimizer_class([x, z], **options)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(x) + ((z - 1j).abs() ** 4).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return optimizer, x.detach().cpu().numpy(), losses


@pytest.mark.parametrize("options", [
    {"line_search_fn": "strong_wolfe"}, {"lr": 0.01, "history_size": 3},
    {"line_search_fn": "strong_wolfe", "max_iter": 7, "history_size": 2, "max_eval": 9}],
    ids=lambda o: "-".join(o))
def test_lbfgs_equals_pytorch(options, device):
    torch = pytest.importorskip("torch")
    mine = lbfgs_run(mlgpu, optim.LBFGS, options, 3)
    other = lbfgs_run(torch, torch.optim.LBFGS, options, 3)
    assert len(mine[2]) == len(other[2])
    np.testing.assert_allclose(mine[2], other[2], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(mine[1], other[1], rtol=1e-6)
    state = next(iter(mine[0].state_dict()["state"].values()))
    theirs = next(iter(other[0].state_dict()["state"].values()))
    for name in ("func_evals", "n_iter"):
        assert state[name] == theirs[name]


def test_lbfgs_minimizes(device, tmp_path):
    options = {"line_search_fn": "strong_wolfe", "max_iter": 20 if device == "cpu" else 3}
    optimizer, x, losses = lbfgs_run(mlgpu, optim.LBFGS, options, 6 if device == "cpu" else 1)
    if device == "cpu":
        assert losses[-1] < 1e-7
        np.testing.assert_allclose(x, 1, rtol=1e-5)
    mlgpu.save(optimizer.state_dict(), tmp_path / "state.safetensors")
    optimizer.load_state_dict(mlgpu.load(tmp_path / "state.safetensors"))
    assert optimizer.step(lambda: rosenbrock(optimizer.param_groups[0]["params"][0])) >= 0


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam(adaptive, device):
    """Against the update written out: the gradient of the loss where it is highest nearby."""
    rng = np.random.default_rng(0)
    a, start = rng.standard_normal((4, 4)), rng.standard_normal(4)
    w = nn.Parameter(mlgpu.tensor(start))
    matrix = mlgpu.tensor(a)
    optimizer = optim.SAM(optim.SGD([w], lr=0.05, momentum=0.9), rho=0.1, adaptive=adaptive)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    rate, x, v = 0.05, start.copy(), 0.0

    def gradient(at):
        return 4 * a.T @ (a @ at) ** 3

    def closure():
        optimizer.zero_grad()
        loss = ((matrix @ w) ** 4).sum()
        loss.backward()
        return loss

    for _ in range(5 if device == "cpu" else 2):
        expected = ((a @ x) ** 4).sum()
        assert optimizer.step(closure).item() == pytest.approx(expected, rel=1e-9)
        g = gradient(x)
        slope = np.abs(x) * g if adaptive else g
        climbed = x + 0.1 * (np.abs(x) if adaptive else 1) * slope / np.linalg.norm(slope)
        v = 0.9 * v + gradient(climbed)
        x = x - rate * v
        np.testing.assert_allclose(w.detach().cpu().numpy(), x, rtol=1e-9)
        schedule.step()
        rate *= 0.9
    assert optimizer.param_groups is optimizer.optimizer.param_groups
    closure()
    optimizer.first_step()
    with pytest.raises(GraphError, match="called twice"):
        optimizer.first_step()


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "error", "match"), [
    (lambda p: optim.RMSprop(p, lr=-1), ShapeError, "lr must be"),
    (lambda p: optim.RMSprop(p, alpha=-1), ShapeError, "alpha must be"),
    (lambda p: optim.Adagrad(p, lr_decay=-1), ShapeError, "lr_decay"),
    (lambda p: optim.Adadelta(p, rho=1.5), ShapeError, "rho"),
    (lambda p: optim.Adamax(p, betas=(0.9, 1.0)), ShapeError, r"betas\[1\]"),
    (lambda p: optim.Adan(p, betas=(0.9, 0.9)), ShapeError, "betas must be 3"),
    (lambda p: optim.Rprop(p, etas=(1.5, 2)), ShapeError, "etas"),
    (lambda p: optim.NAdam(p, differentiable=True), RuntimeError, "differentiable"),
    (lambda p: optim.RAdam(p, foreach=True, differentiable=True), RuntimeError, "differentiable"),
    (lambda p: optim.Adafactor(p, beta2_decay=1.0), ShapeError, "beta2_decay"),
    (lambda p: optim.Muon(p), ShapeError, "must be matrices"),
    (lambda p: optim.Muon([mlgpu.ones(2, 2)], adjust_lr_fn="x"), ShapeError, "adjust_lr_fn"),
    (lambda p: optim.LBFGS(p, line_search_fn="x"), ShapeError, "line_search_fn"),
    (lambda p: optim.LBFGS([{"params": p}, {"params": [mlgpu.ones(1)]}]), ShapeError, "one param"),
    (lambda p: optim.LBFGS(p).step(), TypeError, "closure"),
    (lambda p: optim.SAM(p), TypeError, "expected an Optimizer"),
    (lambda p: optim.SAM(optim.SGD(p)).step(), TypeError, "closure"),
], ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "_"))
def test_errors(make, error, match):
    with pytest.raises(error, match=match):
        make([nn.Parameter(mlgpu.ones(3))])
