"""Schedules against their formulas, against PyTorch's, and across a save and load."""

from __future__ import annotations

import copy
import importlib
import math
import warnings

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.errors import ShapeError
from mlgpu.optim import lr_scheduler

BASE = (0.1, 0.5)
STEPS = 22


def cosine(t: float, period: float, low: float, high: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * t / period)) / 2


def piecewise(t: int, *points: tuple[float, float]) -> float:
    return float(np.interp(t, [x for x, _ in points], [y for _, y in points]))


def restarts(t: int, base: float) -> float:
    start, period = 0, 3
    while t >= start + period:
        start, period = start + period, 2 * period
    return cosine(t - start, period, 0.01, base)


def one_cycle(t: int, peak: float) -> float:
    first, top, end = peak / 25, 0.3 * 25 - 1, 24
    if t <= top:
        return cosine(t, top, peak, first) if top == 0 else cosine(top - t, top, first, peak)
    return cosine(t - top, end - top, first / 1e4, peak)


def three_phases(t: int, peak: float) -> float:
    first = peak / 25
    return piecewise(t, (0, first), (6.5, peak), (13, first), (24, first / 1e4))


def sequence(t: int, base: float) -> float:
    if t < 4:
        return base * (0.1 + 0.9 * t / 4)
    return cosine(t - 4, 8, 0, base) if t < 12 else base * 0.5 ** (t - 12)


def cycle(t: int, up: int, down: int, low: float, high: float) -> float:
    return piecewise(t % (up + down), (0, low), (up, high), (up + down, low))


def swa(lib):
    """SWALR of the library whose schedulers these are."""
    return importlib.import_module(lib.__name__.replace("lr_scheduler", "swa_utils")).SWALR


# name: (how it is made, with either library's lr_scheduler; its rate at step t from the base rate)
SCHEDULES = {
    "lambda": (lambda lib, o: lib.LambdaLR(o, lambda t: 0.9 ** t), lambda t, b: b * 0.9 ** t),
    "multiplicative": (lambda lib, o: lib.MultiplicativeLR(o, lambda t: 0.9),
                       lambda t, b: b * 0.9 ** t),
    "step": (lambda lib, o: lib.StepLR(o, 3, 0.5), lambda t, b: b * 0.5 ** (t // 3)),
    "multi_step": (lambda lib, o: lib.MultiStepLR(o, [2, 2, 7], 0.5),
                   lambda t, b: b * 0.5 ** (2 * (t >= 2) + (t >= 7))),
    "constant": (lambda lib, o: lib.ConstantLR(o, 0.3, 4), lambda t, b: b * (0.3 if t < 4 else 1)),
    "linear": (lambda lib, o: lib.LinearLR(o, 0.3, 0.9, 6),
               lambda t, b: b * piecewise(t, (0, 0.3), (6, 0.9))),
    "exponential": (lambda lib, o: lib.ExponentialLR(o, 0.93), lambda t, b: b * 0.93 ** t),
    "polynomial": (lambda lib, o: lib.PolynomialLR(o, 9, 2.0),
                   lambda t, b: b * max(0, 1 - t / 9) ** 2),
    "cosine": (lambda lib, o: lib.CosineAnnealingLR(o, 7, 0.01),
               lambda t, b: cosine(t, 7, 0.01, b)),
    "restarts": (lambda lib, o: lib.CosineAnnealingWarmRestarts(o, 3, 2, 0.01), restarts),
    "one_cycle": (lambda lib, o: lib.OneCycleLR(o, [0.1, 0.5], 25), one_cycle),
    "one_cycle_linear": (
        lambda lib, o: lib.OneCycleLR(o, list(BASE), epochs=5, steps_per_epoch=5,
                                      three_phase=True, anneal_strategy="linear"), three_phases),
    "cyclic": (lambda lib, o: lib.CyclicLR(o, 0.01, list(BASE), 3, 5),
               lambda t, b: cycle(t, 3, 5, 0.01, b)),
    "cyclic_halving": (
        lambda lib, o: lib.CyclicLR(o, 0.01, list(BASE), 4, mode="triangular2"),
        lambda t, b: 0.01 + cycle(t, 4, 4, 0, b - 0.01) / 2 ** (t // 8)),
    "cyclic_falling": (
        lambda lib, o: lib.CyclicLR(o, 0.01, list(BASE), 4, mode="exp_range", gamma=0.9,
                                    cycle_momentum=False),
        lambda t, b: 0.01 + cycle(t, 4, 4, 0, b - 0.01) * 0.9 ** t),
    "cyclic_own": (
        lambda lib, o: lib.CyclicLR(o, 0.01, list(BASE), 4, scale_fn=lambda x: 1 / (1 + x),
                                    scale_mode="iterations"),
        lambda t, b: 0.01 + cycle(t, 4, 4, 0, b - 0.01) / (1 + t)),
    "swa": (lambda lib, o: swa(lib)(o, 0.05, 6), lambda t, b: cosine(min(t, 6), 6, 0.05, b)),
    "swa_linear": (lambda lib, o: swa(lib)(o, [0.05, 0.6], 6, "linear"),
                   lambda t, b: piecewise(t, (0, b), (6, 0.05 if b == BASE[0] else 0.6))),
    "sequence": (lambda lib, o: lib.SequentialLR(
        o, [lib.LinearLR(o, 0.1, 1.0, 4), lib.CosineAnnealingLR(o, 8), lib.ExponentialLR(o, 0.5)],
        [4, 12]), sequence),
    "nested": (lambda lib, o: lib.SequentialLR(
        o, [lib.SequentialLR(o, [lib.ConstantLR(o, 0.1, 2), lib.ExponentialLR(o, 0.9)], [2]),
            lib.StepLR(o, 3, 0.5)], [6]),
        # PyTorch's too: a sequence within a sequence comes to its milestones one step early.
        lambda t, b: b * (0.1 if t < 1 else 0.9 ** (t - 1) if t < 6 else 0.5 ** ((t - 6) // 3))),
    "chained": (lambda lib, o: lib.ChainedScheduler(
        [lib.ConstantLR(o, 0.1, 2), lib.ExponentialLR(o, 0.9)]),
        lambda t, b: b * (0.1 if t < 2 else 1) * 0.9 ** t),
}


def ours() -> optim.SGD:
    first, second = (nn.Parameter(mlgpu.zeros(1)) for _ in range(2))
    return optim.SGD([{"params": [first]}, {"params": [second], "lr": BASE[1]}], lr=BASE[0],
                     momentum=0.9)


def theirs(torch):
    first, second = (torch.zeros(1, requires_grad=True) for _ in range(2))
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": BASE[1]}],
                           lr=BASE[0], momentum=0.9)


def settings(optimizer) -> list[float]:
    return [group[name] for group in optimizer.param_groups for name in ("lr", "momentum")]


@pytest.mark.parametrize("name", SCHEDULES)
def test_formula(name):
    make, formula = SCHEDULES[name]
    optimizer = ours()
    scheduler = make(lr_scheduler, optimizer)
    for t in range(STEPS):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == scheduler.get_last_lr()
        assert rates == pytest.approx([formula(t, base) for base in BASE], rel=1e-9, abs=1e-15), t
        optimizer.step()
        scheduler.step()


def test_noam(tmp_path):
    """Vaswani et al. 2017, equation 3; and on from a saved state."""
    optimizer = ours()
    scheduler = lr_scheduler.NoamLR(optimizer, 512, 10)
    for step in range(1, STEPS):
        factor = 512 ** -0.5 * min(step ** -0.5, step * 10 ** -1.5)
        assert scheduler.get_last_lr() == pytest.approx([b * factor for b in BASE], rel=1e-12)
        optimizer.step()
        scheduler.step()
    again = lr_scheduler.NoamLR(ours(), 512, 10)
    again.load_state_dict(scheduler.state_dict())
    scheduler.step()
    again.step()
    assert again.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    make, _ = SCHEDULES[name]
    mine, other = ours(), theirs(torch)
    scheduler = make(lr_scheduler, mine)
    with warnings.catch_warnings():  # nested sequences warn in PyTorch, whatever one does
        warnings.simplefilter("ignore")
        reference = make(torch.optim.lr_scheduler, other)
        for _ in range(STEPS):
            assert settings(mine) == settings(other)
            other.step()
            scheduler.step()
            reference.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_state_goes_on(name, tmp_path):
    make, _ = SCHEDULES[name]
    optimizer = ours()
    scheduler = make(lr_scheduler, optimizer)
    for _ in range(9):
        scheduler.step()
    mlgpu.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()},
               tmp_path / "state.safetensors")
    saved = mlgpu.load(tmp_path / "state.safetensors")
    fresh = ours()
    again = make(lr_scheduler, fresh)
    fresh.load_state_dict(saved["optimizer"])
    again.load_state_dict(saved["scheduler"])
    for _ in range(STEPS - 9):
        assert settings(fresh) == settings(optimizer)
        scheduler.step()
        again.step()


@pytest.mark.parametrize("name", ["step", "multi_step", "constant", "linear", "exponential",
                                  "polynomial", "cosine", "restarts"])
def test_jump(name):
    make, formula = SCHEDULES[name]
    scheduler = make(lr_scheduler, ours())
    for t in (5, 0, 11, 2):
        scheduler.step(t)
        assert scheduler.last_epoch == t
        assert scheduler.get_last_lr() == pytest.approx([formula(t, b) for b in BASE])


def test_resume_by_last_epoch():
    optimizer = ours()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(4):
        scheduler.step()
    resumed = lr_scheduler.ExponentialLR(optimizer, 0.9, last_epoch=4)
    assert resumed.last_epoch == 5
    assert resumed.base_lrs == list(BASE)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.ExponentialLR(ours(), 0.9, last_epoch=4)


def test_lambda_per_group_and_callable_state():
    class Decay:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, t):
            return self.factor ** t

    make = lambda: lr_scheduler.LambdaLR(ours(), [Decay(0.5), lambda t: 1.0])  # noqa: E731
    scheduler = make()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.05, 0.5]
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"factor": 0.5}, None]
    state["lr_lambdas"][0]["factor"] = 0.25
    other = make()
    other.load_state_dict(copy.deepcopy(state))
    assert other.lr_lambdas[0].factor == 0.25


def test_own_scheduler():
    class Halving(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base / 2 ** self.last_epoch for base in self.base_lrs]

    scheduler = Halving(ours())
    scheduler.step()
    assert scheduler.get_last_lr() == [0.05, 0.25]


def test_rate_as_tensor_keeps_its_memory():
    rate = mlgpu.tensor(0.5)
    optimizer = optim.SGD([nn.Parameter(mlgpu.ones(2))], lr=rate)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25
    optimizer.param_groups[0]["params"][0].grad = mlgpu.ones(2)
    optimizer.step()
    assert optimizer.param_groups[0]["params"][0].tolist() == [0.75, 0.75]


def test_one_cycle_moves_beta1():
    optimizer = optim.Adam([nn.Parameter(mlgpu.zeros(1))])
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, 20)
    betas = []
    for _ in range(20):
        betas.append(optimizer.param_groups[0]["betas"][0])
        scheduler.step()
    assert betas[0] == 0.95
    assert min(betas) == pytest.approx(0.85)
    assert optimizer.param_groups[0]["betas"][1] == 0.999
    with pytest.raises(ShapeError, match="past the last"):
        scheduler.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau(mode, threshold_mode):
    """Against a direct simulation; PyTorch's own where it is installed."""
    options = {"mode": mode, "factor": 0.5, "patience": 2, "threshold": 0.1,
               "threshold_mode": threshold_mode, "cooldown": 1, "min_lr": 1e-3}
    scheduler = lr_scheduler.ReduceLROnPlateau(ours(), **options)
    metrics = np.random.default_rng(0).random(40)
    best, bad, cooling, rates, seen = math.inf, 0, 0, np.array(BASE), []
    sign = 1 if mode == "min" else -1
    for metric in metrics * sign:
        margin = 0.1 * abs(best) if threshold_mode == "rel" else 0.1
        better = best == math.inf or metric < best - margin
        best, bad = (metric, 0) if better else (best, bad + 1)
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad > 2:
            lower = np.maximum(rates * 0.5, 1e-3)
            rates = np.where(rates - lower > 1e-8, lower, rates)
            cooling, bad = 1, 0
        seen.append(list(rates))
    for metric, expected in zip(metrics, seen, strict=True):
        scheduler.step(float(metric))
        assert scheduler.get_last_lr() == pytest.approx(expected)
    torch = pytest.importorskip("torch")
    scheduler = lr_scheduler.ReduceLROnPlateau(ours(), **options)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs(torch), **options)
    for metric in metrics:
        scheduler.step(mlgpu.tensor(metric))
        reference.step(metric)
        assert scheduler.get_last_lr() == reference.get_last_lr()


@pytest.mark.parametrize(("make", "error"), [
    (lambda o: lr_scheduler.StepLR("optimizer", 3), TypeError),
    (lambda o: lr_scheduler.OneCycleLR(None, 1.0, 5), TypeError),
    (lambda o: lr_scheduler.LambdaLR(o, [lambda t: 1.0]), ValueError),
    (lambda o: lr_scheduler.LambdaLR(o, [1.0, 2.0]), TypeError),
    (lambda o: lr_scheduler.ConstantLR(o, 1.5), ValueError),
    (lambda o: lr_scheduler.LinearLR(o, 0.0), ValueError),
    (lambda o: lr_scheduler.LinearLR(o, 0.5, 2.0), ValueError),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 0), ValueError),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 1.5), ValueError),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2).step(-1), ValueError),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0), ValueError),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, -5), ValueError),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 5, pct_start=2.0), ValueError),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, 5, anneal_strategy="sine"), ValueError),
    (lambda o: lr_scheduler.OneCycleLR(o, [1.0, 1.0, 1.0], 5), ValueError),
    (lambda o: lr_scheduler.CyclicLR(None, 0.1, 0.2), TypeError),
    (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, mode="square"), ValueError),
    (lambda o: lr_scheduler.CyclicLR(optim.Adagrad(o.param_groups[0]["params"]), 0.1, 0.2),
     ValueError),
    (lambda o: lr_scheduler.NoamLR(o, 0), ValueError),
    (lambda o: optim.swa_utils.SWALR(o, 0.1, anneal_strategy="sine"), ValueError),
    (lambda o: optim.swa_utils.SWALR(o, 0.1, anneal_epochs=-1), ValueError),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 3)], [1]), ValueError),
    (lambda o: lr_scheduler.SequentialLR(ours(), [lr_scheduler.StepLR(o, 3)], []), ValueError),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ReduceLROnPlateau(o)], []), ValueError),
    (lambda o: lr_scheduler.ChainedScheduler([]), ValueError),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, "middle"), ValueError),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold_mode="near"), ValueError),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, min_lr=[0.1]), ValueError),
    (lambda o: lr_scheduler.LRScheduler(o), NotImplementedError),
])
def test_wrong_use(make, error):
    with pytest.raises(error):
        make(ours())
