"""checkpoint.auto: any budget that fits gives the same losses and gradients, bit by bit."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from guide import ROOT, Section, run, sections

import mlgpu
from mlgpu import nn
from mlgpu.checkpoint import auto, checkpoint
from mlgpu.errors import GraphError, OutOfMemoryError, ReleasedError
from mlgpu.nn import functional as F


class Residual(nn.Module):
    """x + body(x), whose relu overwrites its input."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True),
                                  nn.Linear(width, width), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x):
        return x + self.body(x)


class Last(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Embedding(7, 16), nn.TransformerEncoder(layer, 3), nn.Linear(16, 7),
                         nn.Flatten(0, 1))


def convolution():
    blocks = [m for _ in range(4) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
                                            nn.ReLU())]
    return nn.Sequential(nn.Conv2d(2, 8, 3), *blocks, nn.MaxPool2d(4), nn.Flatten(),
                         nn.Linear(8 * 9, 7))


def mlp():
    blocks = [m for _ in range(3) for m in (nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32),
                                            nn.SiLU(), nn.LayerNorm(32))]
    return nn.Sequential(*blocks, nn.Linear(32, 7))


MODELS = {
    "mlp": (mlp, (512, 32)),
    "residual": (lambda: nn.Sequential(*[Residual(32) for _ in range(4)], nn.Linear(32, 7)),
                 (512, 32)),
    "convolution": (convolution, (16, 2, 14, 14)),
    "lstm": (lambda: nn.Sequential(Last(nn.LSTM(8, 16, 2, dropout=0.2)), nn.Linear(16, 7),
                                   nn.Flatten(0, 1)), (24, 32, 8)),
    "transformer": (transformer, None),
}


def train(name, budget, steps=2):
    """Losses, parameters, the peak, and how many values gave way."""
    mlgpu.manual_seed(0)
    make, shape = MODELS[name]
    model = make()
    optimizer = mlgpu.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = mlgpu.randint(0, 7, (16, 12)) if shape is None else mlgpu.randn(shape)
    rows = model(x).shape[0]
    y = mlgpu.arange(rows) % 7
    losses = []
    gc.collect()
    mlgpu.memory.reset_peak()
    with auto(budget) as manager:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            del loss
    values = [np.array(t.detach().cpu()) for t in (*model.parameters(), *model.buffers())]
    return losses, values, mlgpu.memory.stats().peak, manager.evictions


@pytest.mark.parametrize("name", MODELS)
def test_a_budget_changes_no_bit(device, name):
    train(name, "1 GiB")  # CUDA keeps tables of a convolution's places, once and for all
    live = mlgpu.memory.stats().allocated
    expected, values, peak, evictions = train(name, "1 GiB")
    assert evictions == 0
    needs = peak - live
    gave_way = 0
    for share in (0.9, 0.8, 0.7, 0.6):
        budget = live + int(share * needs)
        try:
            losses, found, peak, evictions = train(name, budget)
        except OutOfMemoryError:
            assert share < 0.9  # the rest is parameters, and what one operation needs
            break
        assert peak <= budget
        assert evictions > 0
        gave_way += evictions
        assert losses == expected
        for one, two in zip(found, values, strict=True):
            np.testing.assert_array_equal(one, two)
    assert gave_way > 0
    del found, values
    gc.collect()
    assert mlgpu.memory.stats().allocated <= live


def chain(x, length):
    for _ in range(length):
        x = x.sin() * 1.5
    return x


def links(x, length):
    made = [x]
    for _ in range(length):
        made.append(made[-1].sin())
    return made


def tight(share, function):
    """`function` under a budget of that share of what it takes without one."""
    gc.collect()
    mlgpu.memory.reset_peak()
    live = mlgpu.memory.stats().allocated
    expected = function()
    needs = mlgpu.memory.stats().peak - live
    expected = [np.array(t.detach().cpu()) for t in expected]
    gc.collect()
    with auto(mlgpu.memory.stats().allocated + int(share * needs)) as manager:
        found = function()
    assert manager.evictions
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.detach().cpu().numpy(), two)


def test_a_chain_longer_than_pythons_stack(device):
    x = mlgpu.linspace(0.0, 1.0, 1024).requires_grad_()

    def run():
        x.grad = None
        chain(x, 1500).sum().backward()
        return [x.grad]

    tight(0.5, run)


def test_second_derivatives(device):
    x = mlgpu.linspace(0.1, 1.0, 512).requires_grad_()

    def run():
        (first,) = mlgpu.autograd.grad(chain(x, 20).sum(), x, create_graph=True)
        (second,) = mlgpu.autograd.grad(first.square().sum(), x)
        return [first, second]

    tight(0.8, run)


def test_backward_twice_and_after_the_context(device):
    x = mlgpu.linspace(0.1, 1.0, 512).requires_grad_()
    expected = mlgpu.autograd.grad(chain(x, 30).sum(), x)[0].cpu().numpy()
    with auto(mlgpu.memory.stats().allocated + 30 * x.nbytes) as manager:
        y = chain(x, 30).sum()
        (first,) = mlgpu.autograd.grad(y, x, retain_graph=True)
    assert manager.evictions
    (second,) = mlgpu.autograd.grad(y, x)
    np.testing.assert_array_equal(first.cpu().numpy(), expected)
    np.testing.assert_array_equal(second.cpu().numpy(), expected)
    with pytest.raises(GraphError, match="a second time"):
        y.backward()


def test_views_and_pieces(device):
    x = mlgpu.randn(8, 96).requires_grad_()

    def run():
        x.grad = None
        y = x
        for _ in range(6):
            a, b, c = (y * 1.1).chunk(3, 1)
            y = mlgpu.cat([(a * b).T.reshape(8, 32), b.exp().flip(0), (c.sin() * a)], 1).tanh()
        y.sum().backward()
        return [x.grad]

    tight(0.7, run)


def test_checkpoints_within(device):
    x = mlgpu.randn(64, 64).requires_grad_()

    def run():
        x.grad = None
        y = chain(x, 10)
        y = checkpoint(lambda v: chain(v, 10), y)
        chain(y, 10).sum().backward()
        return [x.grad]

    tight(0.7, run)


def test_hooks_on_saved_values_come_first(device):
    x = mlgpu.randn(4, requires_grad=True)
    packed = []
    with auto("1 GiB"), mlgpu.autograd.graph.saved_tensors_hooks(
            lambda t: packed.append(t) or t, lambda t: t):
        x.exp().sum().backward()
    assert len(packed) == 1


def test_what_is_held_by_others_does_not_give_way(device):
    """Letting go of it would free nothing."""
    x = mlgpu.randn(256, requires_grad=True)
    with auto(mlgpu.memory.stats().allocated + 8 * x.nbytes) as manager:
        kept = []
        kept.extend(links(x, 4))
        with pytest.raises(OutOfMemoryError, match=r"budget of checkpoint\.auto"):
            kept.extend(links(kept[-1], 20))
        assert manager.evictions == 0
    ref = weakref.ref(kept[1]._storage)
    del kept
    assert ref() is None


def test_a_changed_input_is_told(device):
    x = mlgpu.randn(256, requires_grad=True)
    w = mlgpu.ones(256)
    with auto(mlgpu.memory.stats().allocated + 14 * x.nbytes) as manager:
        y = chain(x + w, 20).sum()
        assert manager.evictions
        w.add_(1.0)  # unlike x it is not saved: without a budget this would be allowed
        with pytest.raises(GraphError, match=r"checkpoint.auto: .* changed in place"):
            y.backward()


def test_a_saved_value_that_was_changed_is_told_as_ever(device):
    x = mlgpu.randn(4, requires_grad=True)
    with auto("1 GiB"):
        y = x.exp()
        z = y.sum()
        y.detach().add_(1.0)
        with pytest.raises(GraphError, match="changed in place"):
            z.backward()


def test_a_released_value_is_told_as_ever(device):
    x = mlgpu.randn(4, requires_grad=True)
    with auto("1 GiB"):
        y = x.exp()
        z = y.sum()
        y.release()
        with pytest.raises(ReleasedError, match="released"):
            z.backward()


def test_a_limit_makes_values_give_way_too(device):
    x = mlgpu.randn(512, requires_grad=True)
    mlgpu.memory.limit(mlgpu.memory.stats().allocated + 30 * x.nbytes)
    try:
        with auto("1 GiB") as manager:
            chain(x, 40).sum().backward()
        assert manager.evictions
        with pytest.raises(OutOfMemoryError, match="limit"):
            chain(x, 40).sum().backward()
    finally:
        mlgpu.memory.limit(None)


def test_nothing_stays_behind(device):
    before = mlgpu.memory.stats().allocated
    x = mlgpu.randn(512, requires_grad=True)
    with auto("1 GiB"):
        y = chain(x, 5).sum()
        y.backward()
        del y
    x.grad = None
    del x
    assert mlgpu.memory.stats().allocated == before
    with pytest.raises(ValueError, match="expected a size"), auto("much"):
        pass


def test_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlgpu.memory.reset_peak()
    text = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    blocks = [block for section in sections(text) for block in section.blocks]
    run(Section("all of it", blocks), "memory.md", "")
