"""Pruning by masks: as PyTorch's, N of M, and the schedule of gradual pruning."""

from __future__ import annotations

import numpy as np
import pytest
from guide import ROOT, run, sections

import mlgpu
from mlgpu import nn
from mlgpu.nn.utils import prune

WEIGHT = np.random.default_rng(0).standard_normal((6, 8, 3, 3)).astype(np.float32)
SCORES = np.random.default_rng(1).standard_normal(WEIGHT.shape).astype(np.float32)
MASK = (SCORES > 0.3).astype(np.float32)

# Calls in turn, of `prune` with a layer and what makes tensors.
HISTORIES = {
    "identity": [lambda p, m, t: p.identity(m, "weight")],
    "l1-share": [lambda p, m, t: p.l1_unstructured(m, "weight", 0.37)],
    "l1-number": [lambda p, m, t: p.l1_unstructured(m, "weight", 5)],
    "l1-nothing": [lambda p, m, t: p.l1_unstructured(m, "weight", 0.0)],
    "l1-scores": [lambda p, m, t: p.l1_unstructured(m, "weight", 0.4, t(SCORES))],
    "ln-2": [lambda p, m, t: p.ln_structured(m, "weight", 0.5, n=2, dim=0)],
    "ln-inf": [lambda p, m, t: p.ln_structured(m, "weight", 3, n=float("inf"), dim=-3)],
    "custom": [lambda p, m, t: p.custom_from_mask(m, "weight", t(MASK))],
    "composed": [lambda p, m, t: p.ln_structured(m, "weight", 0.34, n=1, dim=0),
                 lambda p, m, t: p.l1_unstructured(m, "weight", 0.5),
                 lambda p, m, t: p.ln_structured(m, "weight", 2, n=2, dim=1),
                 lambda p, m, t: p.custom_from_mask(m, "weight", t(MASK)),
                 lambda p, m, t: p.l1_unstructured(m, "weight", 3)],
    "global": [lambda p, m, t: p.l1_unstructured(m, "bias", 2),
               lambda p, m, t: p.global_unstructured(
                   [(m, "weight"), (m, "bias")], p.L1Unstructured, amount=0.6)],
}


def conv(device="cpu"):
    mlgpu.manual_seed(0)
    layer = nn.Conv2d(8, 6, 3).to(device)
    with mlgpu.no_grad():
        layer.weight.copy_(mlgpu.tensor(WEIGHT, device=device))
    return layer


def values(tensor):
    return tensor.detach().cpu().numpy()


@pytest.mark.parametrize("history", HISTORIES)
def test_masks_and_gradients_are_those_of_pytorch(history, device):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune as reference

    ours, theirs = conv(device), torch.nn.Conv2d(8, 6, 3)
    theirs.load_state_dict({k: torch.from_numpy(values(v)) for k, v in ours.state_dict().items()})
    for call in HISTORIES[history]:
        call(prune, ours, lambda array: mlgpu.tensor(array, device=device))
        call(reference, theirs, torch.from_numpy)
    x = np.random.default_rng(2).standard_normal((2, 8, 4, 4)).astype(np.float32)
    ours(mlgpu.tensor(x, device=device)).square().sum().backward()
    theirs(torch.from_numpy(x)).square().sum().backward()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(values(ours.state_dict()[name]), value.numpy(), name)
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(),
                                       strict=True):
        np.testing.assert_allclose(values(one.grad), other.grad.numpy(), rtol=1e-4, atol=1e-4,
                                   err_msg=name)


@pytest.mark.parametrize("method", ["random_unstructured", "random_structured"])
def test_random_pruning_takes_as_many_as_it_is_told(method, device):
    layer = conv(device)
    options = {"dim": 0} if method == "random_structured" else {}
    for slices, share in ((3, 2), (1, 4)):  # 2 of the 3 left: halves are rounded to even
        getattr(prune, method)(layer, "weight", 0.5, **options)
        mask = values(layer.weight_mask)
        if options:
            assert (mask.reshape(6, -1).std(1) == 0).all()
            assert mask.any((1, 2, 3)).sum() == slices
        else:
            assert mask.sum() == mask.size // share


def groups(weight):
    return np.moveaxis(weight, 1, -1).reshape(-1, 4)


@pytest.mark.parametrize("shape", [(4, 8), (3, 8, 2)])
def test_n_of_m_keeps_the_largest_of_each_group(shape, device):
    layer = nn.Linear(8, 4) if len(shape) == 2 else nn.Conv1d(8, 3, 2)
    layer.to(device)
    before = values(layer.weight)
    assert prune.nm_structured(layer, "weight", 2, 4) is layer
    every = groups(before)
    second = np.sort(np.abs(every), 1)[:, 2:3]
    np.testing.assert_array_equal(groups(values(layer.weight)),
                                  np.where(np.abs(every) >= second, every, 0))
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.nm_structured(layer, "weight", 1, 4)  # of what is left in a group, if anything
    kept = (groups(values(layer.weight)) != 0).sum(1)
    assert set(kept) == {0, 1}


def test_a_pruned_layer_trains_is_saved_and_becomes_plain_again(device):
    layer, weight = conv(device), None
    weight = layer.weight
    optimizer = mlgpu.optim.SGD(layer.parameters(), lr=0.1)
    prune.l1_unstructured(layer, "weight", 0.5)
    assert layer.weight_orig is weight
    assert prune.is_pruned(nn.Sequential(layer))
    x = mlgpu.ones(2, 8, 4, 4, device=device)
    for _ in range(2):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    mask = values(layer.weight_mask)
    assert (values(weight.grad)[mask == 0] == 0).all()
    assert (values(weight.grad)[mask == 1] != 0).all()
    twin = prune.identity(conv(device), "weight")
    twin.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(values(twin(x)), values(layer(x)))
    assert prune.remove(layer, "weight") is layer
    assert layer.weight is weight
    assert not prune.is_pruned(layer)
    assert set(layer.state_dict()) == {"weight", "bias"}
    np.testing.assert_array_equal(values(weight) == 0, mask == 0)
    np.testing.assert_array_equal(values(twin(x)), values(layer(x)))
    np.testing.assert_array_equal(  # a method without a module
        values(prune.L1Unstructured(4).prune(mlgpu.tensor([[3.0, -1, 2], [0.5, 4, -5]]))),
        [[0, 0, 0], [0, 4, -5]])


def test_gradual_pruning_follows_the_cubic():
    layer, shares = conv(), []
    for step in range(0, 13, 3):
        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
        prune.l1_unstructured(layer, "weight", prune.gradual_amount(step, 0.8, 9, initial=0.2))
        shares.append(1 - values(layer.weight_mask).mean())
    cubic = [0.8 - 0.6 * (1 - t) ** 3 for t in (0, 1 / 3, 2 / 3, 1, 1)]
    np.testing.assert_allclose(shares, cubic, atol=1 / WEIGHT.size)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda m: prune.l1_unstructured(m, "wait", 0.5), AttributeError, "no parameter 'wait'"),
    (lambda m: prune.l1_unstructured(m, "weight", 1.5), ValueError, r"share in \[0, 1\]"),
    (lambda m: prune.l1_unstructured(m, "weight", "half"), TypeError, "'half'"),
    (lambda m: prune.l1_unstructured(m, "weight", 10**6), ValueError, "fewer than the amount"),
    (lambda m: prune.l1_unstructured(m, "weight", 1, mlgpu.ones(2)), ValueError, "shape"),
    (lambda m: prune.ln_structured(m, "weight", 1, 2, dim=4), IndexError, "dimension 4"),
    (lambda m: prune.ln_structured(m, "bias", 1, 2, dim=0), ValueError, "unstructured"),
    (lambda m: prune.nm_structured(m, "weight", 2, 3), ValueError, "multiple of m = 3"),
    (lambda m: prune.nm_structured(m, "weight", 5, 4), ValueError, "between 1 and m"),
    (lambda m: prune.custom_from_mask(m, "weight", mlgpu.ones(2)), ValueError, "mask must have"),
    (lambda m: prune.remove(m, "weight"), ValueError, "not pruned"),
    (lambda m: prune.global_unstructured([(m, "weight")], prune.LnStructured, amount=1, n=2),
     TypeError, "only unstructured"),
    (lambda m: prune.gradual_amount(1, 0.5, 0), ValueError, "at least 1"),
])
def test_what_cannot_be_pruned_is_refused_and_left_alone(call, error, message):
    layer = conv()
    with pytest.raises(error, match=message):
        call(layer)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert not prune.is_pruned(layer)


def test_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for section in sections((ROOT / "docs" / "compression.md").read_text(encoding="utf-8")):
        run(section, "compression.md", "")
