"""Lazy layers: what they become, optimizers made before, state dicts, and PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn, optim
from mlgpu.errors import ShapeError

ROWS = [
    ("Linear", (3,), {"bias": False}, (2, 4, 6)),
    ("Linear", (3,), {}, (6,)),
    ("Conv1d", (4, 3), {"groups": 2}, (2, 6, 7)),
    ("Conv2d", (4, 3, 1, 1, 1, 2), {}, (2, 6, 7, 5)),
    ("Conv2d", (4, 3), {"bias": False}, (6, 7, 5)),
    ("Conv3d", (2, 3), {"padding": "same"}, (1, 4, 3, 3, 3)),
    ("ConvTranspose1d", (4, 3), {"groups": 2}, (2, 6, 7)),
    ("ConvTranspose2d", (4, 3, 2, 1, 1, 2), {}, (2, 6, 4, 5)),
    ("ConvTranspose3d", (2, 2), {}, (1, 4, 3, 3, 3)),
    ("BatchNorm1d", (), {}, (5, 6)),
    ("BatchNorm2d", (1e-3,), {"affine": False}, (2, 6, 3, 3)),
    ("BatchNorm3d", (), {"track_running_stats": False}, (2, 4, 2, 2, 2)),
    ("InstanceNorm1d", (), {"affine": True}, (2, 6, 5)),
    ("InstanceNorm2d", (), {"track_running_stats": True}, (2, 6, 3, 4)),
    ("InstanceNorm3d", (), {}, (2, 4, 2, 2, 3)),
]
IDS = [f"{i}-{row[0]}" for i, row in enumerate(ROWS)]


def sized(shape, name):
    """The input's size that the plain layer is made with."""
    if name == "Linear":
        return shape[-1]
    batched = len(shape) == int(name[-2]) + 2 or name == "BatchNorm1d"
    return shape[1 if batched else 0]


@pytest.mark.parametrize(("name", "args", "options", "shape"), ROWS, ids=IDS)
def test_becomes_the_plain_layer(name, args, options, shape, device):
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal(shape))
    lazy = getattr(nn, f"Lazy{name}")(*args, **options).double()
    assert isinstance(lazy, getattr(nn, name))
    assert lazy.has_uninitialized_params()
    assert all(isinstance(p, nn.UninitializedParameter) for p in lazy.parameters())
    held = list(lazy.parameters())
    mlgpu.manual_seed(7)
    found = lazy(x)
    mlgpu.manual_seed(7)
    if name.startswith("Instance"):  # whose defaults are others when it is lazy
        options = {"affine": True, "track_running_stats": True, **options}
    plain = getattr(nn, name)(sized(shape, name), *args, **options).double()
    assert type(lazy) is type(plain)
    assert repr(lazy) == repr(plain)
    assert all(a is b and type(a) is nn.Parameter
               for a, b in zip(held, lazy.parameters(), strict=True))
    if not held:
        expected = plain(x)
    else:  # drawn in float32, as the plain one before it became float64
        plain.load_state_dict({k: v for k, v in lazy.state_dict().items()
                               if k.split(".")[-1] in ("weight", "bias")}, strict=False)
        expected = plain(x)
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected.detach().cpu().numpy(),
                               rtol=1e-12)
    again = getattr(nn, f"Lazy{name}")(*args, **options).double()
    again.load_state_dict(lazy.state_dict())
    if lazy.state_dict():
        assert type(again) is type(plain)
    lazy.eval()
    assert again.eval()(x).tolist() == lazy(x).tolist()


@pytest.mark.parametrize(("name", "args", "options", "shape"), ROWS, ids=IDS)
def test_equals_pytorch(name, args, options, shape):
    torch = twin.torch()
    x = np.random.default_rng(0).standard_normal(shape)
    theirs = getattr(torch.nn, f"Lazy{name}")(*args, **options).double()
    expected = theirs(torch.tensor(x))
    mine = getattr(nn, f"Lazy{name}")(*args, **options).double()
    mine(mlgpu.tensor(x))
    assert repr(mine) == repr(theirs)
    for key, value in theirs.state_dict().items():
        assert tuple(mine.state_dict()[key].shape) == tuple(value.shape)
    fresh = getattr(nn, f"Lazy{name}")(*args, **options).double()
    twin.copy_weights(theirs, mine)
    fresh.load_state_dict(mine.state_dict())
    np.testing.assert_allclose(fresh(mlgpu.tensor(x)).detach().numpy(), expected.detach().numpy(),
                               rtol=1e-9, atol=1e-11)


def test_an_optimizer_made_before(device):
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x = mlgpu.ones(3, 5)
    model(x).sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert [tuple(p.shape) for p in before] == [(4, 5), (4,), (1, 4), (1,)]
    assert not mlgpu.equal(before[3], model[2].bias)
    assert model(mlgpu.ones(2, 5)).shape == (2, 1)


def test_errors():
    with pytest.raises(ShapeError, match="LazyConv2d: expected 3 or 4 dimensions"):
        nn.LazyConv2d(3, 3)(mlgpu.ones(2, 3))
    waiting = nn.LazyLinear(3)
    other = nn.LazyLinear(3)
    other.load_state_dict(waiting.state_dict())
    assert other.has_uninitialized_params()
