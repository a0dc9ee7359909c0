"""Training for quantisation: rounding as PyTorch's, and models that learn to live with it."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, peft
from mlgpu.errors import MlgpuError


def made(device="cpu", seed=0):
    mlgpu.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
                         ).to(device)


@pytest.mark.parametrize("per_channel", [False, True])
def test_pytorch_rounds_the_same_and_has_the_same_gradient(per_channel):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = (4 * rng.standard_normal((5, 7))).astype(np.float32)
    scale = np.linspace(0.1, 0.5, 5).astype(np.float32)
    ours, theirs = mlgpu.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    if per_channel:
        found = peft.fake_quantize(ours, mlgpu.tensor(scale)[:, None], 0, -7, 7)
        expected = torch.fake_quantize_per_channel_affine(
            theirs, torch.tensor(scale), torch.zeros(5, dtype=torch.int32), 0, -7, 7)
    else:
        found = peft.fake_quantize(ours, mlgpu.tensor(0.25), 6, 0, 15)
        expected = torch.fake_quantize_per_tensor_affine(theirs, 0.25, 6, 0, 15)
    np.testing.assert_allclose(found.tolist(), expected.tolist(), rtol=1e-6, atol=1e-7)
    found.square().sum().backward()
    expected.square().sum().backward()
    np.testing.assert_allclose(ours.grad.tolist(), theirs.grad.tolist(), rtol=1e-5, atol=1e-6)


def test_layers_take_few_values_and_ranges_follow_in_training_only(device):
    model = made(device)
    weight = model[3].weight
    assert peft.prepare_qat(model, ["*"], bits=3) == ["0", "3"]
    assert model[3]._parameters["weight"] is weight
    for row in model[3].weight.detach().cpu().numpy():
        assert len(np.unique(row.round(6))) <= 7
    model(mlgpu.linspace(-1.0, 3.0, 16, device=device).reshape(2, 1, 8))
    assert model[0].input_range.tolist() == [-1.0, 3.0]
    model(mlgpu.full((2, 1, 8), 13.0, device=device))
    np.testing.assert_allclose(model[0].input_range.tolist(), [-0.86, 3.1], rtol=1e-5)
    model.eval()
    model(mlgpu.full((2, 1, 8), 99.0, device=device))
    np.testing.assert_allclose(model[0].input_range.tolist(), [-0.86, 3.1], rtol=1e-5)
    x = mlgpu.rand(2, 1, 8, device=device)
    rounded = model[3].weight.detach().clone()
    layers = peft.finish_qat(model)
    assert [type(module) for module in model] == [type(module) for module in made()]
    assert list(model.state_dict()) == list(made().state_dict())
    assert (model[3].weight == rounded).all().item()
    whole = (model[3].weight / layers["3"].weight_scale[:, None]).detach().cpu().numpy()
    np.testing.assert_allclose(whole, whole.round(), atol=1e-4)
    assert np.abs(whole.round()).max() == 3
    first = layers["0"]
    assert first.bits == 3
    assert first.input_scale == pytest.approx(3.96 / 7, rel=1e-5)
    assert first.input_zero_point == 2
    model(x)


def test_training_with_it_beats_rounding_after():
    with mlgpu.Device("cpu"):  # the sum of two runs, each of which does
        losses = [learnt(seed) for seed in (0, 2)]
    assert sum(during for _, during in losses) < 0.7 * sum(after for after, _ in losses)


def learnt(seed):
    """The losses of 3-bit weights, rounded after training and trained with their rounding."""
    mlgpu.manual_seed(seed + 50)
    x = mlgpu.rand(64, 1, 8) - 0.5
    y = mlgpu.stack([x.sum((1, 2)), (x * x).sum((1, 2)), x[:, 0, 0]], 1)

    def fit(model):
        optimizer = mlgpu.optim.AdamW(model.parameters(), lr=2e-2, weight_decay=0.0)
        schedule = mlgpu.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
        return model

    def loss(model):
        return nn.functional.mse_loss(model.eval()(x), y).item()

    def prepared(model):
        peft.prepare_qat(model, ["*"], bits=3, inputs=False)
        return model

    after, during = prepared(fit(fit(made(seed=seed)))), fit(prepared(fit(made(seed=seed))))
    trained = loss(during)
    peft.finish_qat(during)
    assert loss(during) == pytest.approx(trained, rel=1e-4)
    return loss(after), trained


def test_mistakes_are_named():
    model = made()
    with pytest.raises(MlgpuError, match="no Linear or convolution matches '1'"):
        peft.prepare_qat(model, ["1"])
    with pytest.raises(ValueError, match="bits must be"):
        peft.prepare_qat(model, ["3"], bits=1)
    peft.prune(model, ["3"])
    peft.add_lora(model, ["0"])
    for name in ("0", "3"):
        with pytest.raises(MlgpuError, match="is adapted, quantised, pruned"):
            peft.prepare_qat(model, [name])
    assert peft.finish_qat(model) == {}
    model = made()
    peft.prepare_qat(model, ["3"])
    for refused in (peft.prune, peft.add_lora, peft.prepare_qat):
        with pytest.raises(MlgpuError, match=r"'3' (computes with rounded|is adapted)"):
            refused(model, ["3"])
