"""Summaries of models: what they count, that PyTorch counts the same, and that nothing changes."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

import mlgpu
from mlgpu import memory, nn
from mlgpu.nn.model_summary import ModelSummary, observed, summary


def convolutional(nn=nn):
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, stride=2), nn.Flatten(), nn.Linear(6 * 17 * 17, 10),
        nn.Dropout(0.5))


def row(found, name):
    return next(layer for layer in found.layers if layer.name == name)


def test_layers_and_totals(device):
    model = convolutional().to(device)
    model[3].requires_grad_(False)
    found = model.summary(mlgpu.rand(2, 4, 8, 8, device=device))
    conv = row(found, "0")
    assert (conv.kind, conv.depth, conv.calls, conv.leaf) == ("Conv2d", 1, 1, True)
    assert (conv.inputs, conv.outputs) == (((2, 4, 8, 8),), ((2, 8, 8, 8),))
    assert (conv.parameters, conv.parameter_bytes) == (8 * 2 * 9 + 8, 4 * (8 * 2 * 9 + 8))
    assert conv.flops == 2 * (2 * 8 * 8 * 8) * (2 * 9)
    assert conv.activation_bytes == 4 * 2 * 8 * 8 * 8
    assert row(found, "3").flops == 2 * (2 * 8 * 8 * 8) * (6 * 9)
    assert (row(found, "3").parameters, row(found, "3").trainable) == (8 * 6 * 9 + 6, 0)
    assert row(found, "4").activation_bytes == row(found, "6").activation_bytes == 0
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.trainable == found.parameters - row(found, "3").parameters
    assert found.flops == sum(layer.flops for layer in found.layers)
    assert found.buffer_bytes == 4 * 8 * 2 + 8
    assert found.peak_bytes >= row(found, "3").activation_bytes
    assert not found.recorded
    assert "3: ConvTranspose2d" in str(found)
    assert "(438 frozen)" in str(found)
    assert ModelSummary.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_nothing_is_disturbed(device):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.register = convolutional(), nn.Linear(3, 3)
            self.register_buffer("seen", mlgpu.zeros(1))

        def forward(self, x):
            self.seen += random.random() + np.random.rand() + mlgpu.rand(1, device=x.device)
            return self.body(x)

    model = Model().to(device)
    model.body[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.tolist() for name, value in model.state_dict().items()}
    states = mlgpu.get_rng_state().tolist(), random.getstate(), np.random.get_state()[2]
    peak, allocated = memory.stats(device).peak, memory.stats(device).allocated
    seen = model.seen
    found = summary(model, mlgpu.rand(1, 4, 8, 8, device=device))
    mlgpu.set_rng_state(mlgpu.tensor(states[0], dtype=mlgpu.uint8))  # the input drew from it
    assert row(found, "register").calls == 0
    assert [module.training for module in model.modules()] == modes
    assert {name: value.tolist() for name, value in model.state_dict().items()} == before
    assert model.seen is seen
    assert (random.getstate(), np.random.get_state()[2]) == states[1:]
    assert all(module._hooks is None for module in model.modules())
    assert memory.stats(device).allocated == allocated
    assert memory.stats(device).peak >= peak
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_random_state_is_put_back():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), mlgpu.rand(2, 4)
    before = mlgpu.get_rng_state().tolist()
    model.summary(x)
    assert mlgpu.get_rng_state().tolist() == before


def test_a_module_that_runs_twice_and_one_that_fails():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    found = model.summary(mlgpu.rand(3, 4))
    assert row(found, "0").calls == 2
    assert row(found, "0").flops == found.flops == 2 * 2 * 3 * 4 * 4
    assert "Linear (x2)" in str(found)
    with pytest.raises(ValueError, match="linear"):
        model.summary(mlgpu.rand(3, 5))
    assert layer._hooks is None
    assert model.training


def test_a_member_of_the_name_comes_first():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.summary = nn.Linear(4, 2)

        def forward(self, x):
            return self.summary(x)

    model = Model()
    assert isinstance(model.summary, nn.Linear)
    assert summary(model, mlgpu.rand(1, 4)).flops == 2 * 4 * 2
    nn.Sequential().add_module("summary", nn.Linear(1, 1))
    with pytest.raises(KeyError, match="already exists"):
        nn.Sequential().add_module("train", nn.Linear(1, 1))
    assert nn.Module.summary.__doc__ == nn.Linear(1, 1).summary.__doc__


def test_a_pass_that_records_keeps_what_backward_needs():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    x = mlgpu.rand(3, 4)
    with observed(model) as seen:
        loss = model(x).sum()
    found = seen.summary()
    assert found.recorded
    assert found.peak_bytes >= model.summary(x).peak_bytes
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


MODELS = {
    "convolutional": (convolutional, [(2, 4, 8, 8)]),
    "three dimensions": (lambda nn: nn.Conv3d(2, 3, (1, 2, 3), dilation=2), [(2, 2, 4, 6, 8)]),
    "matmul": (lambda nn: nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 6)), [(2, 3, 4)]),
    "encoder": (lambda nn: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [(2, 5, 8)]),
    "decoder": (lambda nn: nn.TransformerDecoderLayer(8, 2, 16), [(5, 2, 8), (7, 2, 8)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_pytorch_counts_the_same(name):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    make, shapes = MODELS[name]
    theirs = make(torch.nn).train()  # in evaluation its fused encoder is not counted
    counter = FlopCounterMode(display=False)
    with counter:
        theirs(*[torch.rand(shape) for shape in shapes])
    assert summary(make(nn), *map(mlgpu.rand, shapes)).flops == counter.get_total_flops()


@pytest.mark.parametrize(("name", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_products(name, gates):
    """By hand: PyTorch's counter knows none of them."""
    model = getattr(nn, name)(4, 5, 2, bidirectional=True)
    steps = 7 * 3
    expected = 2 * steps * gates * 5 * 2 * ((4 + 5) + (10 + 5))
    assert model.summary(mlgpu.rand(7, 3, 4)).flops == expected
