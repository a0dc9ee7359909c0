"""Averages of parameters: their formulas, PyTorch's, batch norm's statistics, and state."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.errors import ShapeError
from mlgpu.optim import swa_utils

VALUES = [np.random.default_rng(i).standard_normal((3, 4)).astype(np.float32) for i in range(5)]


def model_of(lib, device=None):
    model = lib.nn.Sequential(lib.nn.Linear(4, 3, bias=False), lib.nn.BatchNorm1d(3))
    return model if device is None else model.to(device)


def give(lib, model, value):
    with lib.no_grad():
        model[0].weight.copy_(lib.tensor(value))
        model[1].running_mean.copy_(lib.tensor(value[:, 0]))


AVERAGES = {
    "mean": (lambda lib: {}, lambda seen: np.mean(seen, 0)),
    "mean, buffers": (lambda lib: {"use_buffers": True}, lambda seen: np.mean(seen, 0)),
    "mean of one": (lambda lib: {"avg_fn": lib.get_swa_avg_fn()}, lambda seen: np.mean(seen, 0)),
    "mean of all": (lambda lib: {"multi_avg_fn": lib.get_swa_multi_avg_fn()},
                    lambda seen: np.mean(seen, 0)),
    "ema": (lambda lib: {"multi_avg_fn": lib.get_ema_multi_avg_fn(0.8)},
            lambda seen: ema(seen, 0.8)),
    "ema of one": (lambda lib: {"avg_fn": lib.get_ema_avg_fn(0.9)}, lambda seen: ema(seen, 0.9)),
}


def ema(seen, decay):
    average = seen[0]
    for value in seen[1:]:
        average = decay * average + (1 - decay) * value
    return average


@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name, device):
    options, formula = AVERAGES[name]
    model = model_of(mlgpu, device)
    averaged = swa_utils.AveragedModel(model, **options(swa_utils))
    for value in VALUES:
        give(mlgpu, model, value)
        averaged.update_parameters(model)
    weight = averaged.module[0].weight
    np.testing.assert_allclose(weight.detach().cpu().numpy(), formula(VALUES), rtol=1e-5,
                               atol=1e-6)
    buffers = formula([v[:, 0] for v in VALUES]) if "buffers" in name else VALUES[-1][:, 0]
    np.testing.assert_allclose(averaged.module[1].running_mean.cpu().numpy(), buffers, rtol=1e-5)
    assert averaged.n_averaged.item() == len(VALUES)
    again = swa_utils.AveragedModel(model_of(mlgpu, device))
    again.load_state_dict(averaged.state_dict())
    x = mlgpu.ones(2, 4)
    assert mlgpu.equal(again.eval()(x), averaged.eval()(x))


@pytest.mark.parametrize("name", AVERAGES)
def test_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    found = []
    for lib, utils in ((mlgpu, swa_utils), (torch, torch.optim.swa_utils)):
        model = model_of(lib)
        averaged = utils.AveragedModel(model, **AVERAGES[name][0](utils))
        for value in VALUES:
            give(lib, model, value)
            averaged.update_parameters(model)
        found.append({k: v.numpy() for k, v in averaged.state_dict().items()})
    assert list(found[0]) == list(found[1])
    for key, value in found[1].items():
        np.testing.assert_allclose(found[0][key], value, rtol=1e-6, atol=1e-7, err_msg=key)


def test_batch_norm_statistics(device):
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((6, 4)).astype(np.float32) for _ in range(3)]
    model = model_of(mlgpu, device).eval()
    give(mlgpu, model, VALUES[0])
    swa_utils.update_bn([(mlgpu.tensor(b, device="cpu"), None) for b in batches], model, device)
    outputs = [b.astype(np.float64) @ VALUES[0].T for b in batches]
    norm = model[1]
    np.testing.assert_allclose(norm.running_mean.cpu().numpy(),
                               np.mean([o.mean(0) for o in outputs], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.cpu().numpy(),
                               np.mean([o.var(0, ddof=1) for o in outputs], 0), rtol=1e-5)
    assert norm.momentum == 0.1
    assert not model.training
    swa_utils.update_bn([], nn.Linear(2, 2))  # nothing to do


def test_errors():
    model = nn.Linear(2, 2)
    with pytest.raises(ShapeError, match="exclude each other"):
        swa_utils.AveragedModel(model, avg_fn=swa_utils.get_swa_avg_fn(),
                                multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(ShapeError, match="decay must be"):
        swa_utils.get_ema_multi_avg_fn(1.5)
    with pytest.raises(ShapeError, match="has 1 tensors, the average 2"):
        swa_utils.AveragedModel(model).update_parameters(nn.Linear(2, 2, bias=False))
