"""Pruning by magnitude and N of M, as PyTorch's torch.nn.utils.prune where it has it."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, peft
from mlgpu.errors import MlgpuError, ShapeError


def made(device="cpu"):
    mlgpu.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.LayerNorm(24), nn.Linear(24, 8)
                         ).to(device)


def test_pruned_weights_stay_zero_whatever_the_optimizer_does(device):
    model = made(device)
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)

    def step():
        optimizer.zero_grad()
        model(mlgpu.rand(4, 2, 8, device=device)).square().mean().backward()
        optimizer.step()

    step()  # so that it has momenta before
    weight = model[3].weight
    assert peft.prune(model, ["*"], 0.75) == ["0", "3"]
    assert model[3].weight_orig is weight
    before = model[3].weight.detach().clone()
    for _ in range(3):
        step()
    assert peft.sparsity(model) == {"0": 0.75, "3": 0.75}
    after = model[3].weight.detach()
    assert ((after == 0) == (before == 0)).all().item()
    assert float((after - before).abs().max()) > 0.1
    x = mlgpu.rand(4, 2, 8, device=device)
    expected = model(x)
    assert peft.remove_pruning(model) == ["0", "3"]
    assert [type(module) for module in model] == [nn.Conv1d, nn.Flatten, nn.LayerNorm, nn.Linear]
    assert list(model.state_dict()) == list(made().state_dict())
    assert model[3].weight is weight
    assert (model(x) == expected).all().item()
    assert peft.sparsity(model) == {"0": 0.75, "3": 0.75}


def test_the_smallest_go_first_and_further_pruning_keeps_them():
    model = nn.Sequential(nn.Linear(4, 2))
    with mlgpu.no_grad():
        model[0].weight.copy_(mlgpu.tensor([[1.0, -8.0, 3.0, -4.0], [5.0, 6.0, -7.0, 2.0]]))
    peft.prune(model, ["0"], 0.25)
    assert model[0].weight.tolist() == [[0, -8, 3, -4], [5, 6, -7, 0]]
    with mlgpu.no_grad():
        model[0].weight_orig[0, 0] = 100  # which is masked
    peft.prune(model, ["0"], 0.5)
    assert model[0].weight.tolist() == [[0, -8, 0, 0], [5, 6, -7, 0]]


def test_two_of_four(device):
    model = made(device)
    weight = model[3].weight.detach().cpu().numpy().copy()
    with pytest.raises(ShapeError, match="4 does not divide the 6 weights in a row of '0'"):
        peft.prune_n_m(model, ["*"])
    assert peft.prune_n_m(model, ["3"]) == ["3"]
    groups = np.abs(weight.reshape(-1, 4))
    kept = groups >= np.sort(groups, 1)[:, 2:3]
    np.testing.assert_array_equal(model[3].weight.detach().cpu().numpy(),
                                  weight * kept.reshape(weight.shape))


def test_mistakes_are_named():
    model = made()
    with pytest.raises(MlgpuError, match="two dimensions matches '2'; there are 0, 3"):
        peft.prune(model, ["2"])
    for wrong in ({"amount": 1.0}, {"scope": "all"}):
        with pytest.raises(ValueError, match="must be"):
            peft.prune(model, ["3"], **wrong)
    with pytest.raises(ValueError, match="0 < n < m"):
        peft.prune_n_m(model, ["3"], 4, 4)
    peft.prune(model, ["3"])
    with pytest.raises(MlgpuError, match="'3' is pruned; remove_pruning"):
        peft.add_lora(model, ["3"])
    peft.add_lora(model, ["0"])
    with pytest.raises(MlgpuError, match="'0' is adapted; remove_lora"):
        peft.prune(model, ["0"])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pytorch_prunes_the_same(scope):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune as reference

    ours = made()
    theirs = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten(),
                                 torch.nn.LayerNorm(24), torch.nn.Linear(24, 8))
    theirs.load_state_dict({name: torch.from_numpy(value.numpy().copy())
                            for name, value in ours.state_dict().items()})
    layers = [(theirs[0], "weight"), (theirs[3], "weight")]
    if scope == "global":
        reference.global_unstructured(layers, reference.L1Unstructured, amount=0.6)
    else:
        for layer, name in layers:
            reference.l1_unstructured(layer, name, amount=0.6)
    peft.prune(ours, ["*"], 0.6, scope=scope)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].tolist() == value.tolist(), name
    x = mlgpu.rand(3, 2, 8)
    np.testing.assert_allclose(ours(x).tolist(), theirs(torch.from_numpy(x.numpy())).tolist(),
                               rtol=1e-4, atol=1e-5)
