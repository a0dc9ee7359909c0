"""Parameters that are computed: weight and spectral norm in both forms, and parametrizations."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.nn.utils import parametrizations, parametrize

FORMS = {"hook": nn.utils, "parametrization": parametrizations}
X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def close(a, b, rtol=1e-5):
    np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=rtol,
                               atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_weight_norm_keeps_the_weight_and_trains_its_parts(form, device):
    layer = nn.Linear(3, 2, device=device)
    before = layer.weight.detach().clone()
    assert FORMS[form].weight_norm(layer) is layer
    x = mlgpu.tensor(X, device=device)
    close(layer(x), x @ before.T + layer.bias)
    layer(x).square().sum().backward()
    names = dict(layer.named_parameters())
    assert "weight" not in names
    assert len(names) == 3
    assert all(p.grad is not None for p in names.values())
    with mlgpu.no_grad():
        next(p for n, p in names.items() if n.endswith(("_g", "original0"))).mul_(2)
    layer(x)
    close(layer.weight, 2 * before)
    if form == "hook":
        nn.utils.remove_weight_norm(layer)
    else:
        parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    assert set(layer.state_dict()) == {"weight", "bias"}
    close(layer(x), x @ (2 * before).T + layer.bias)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_spectral_norm_bounds_the_first_singular_value(form, kind, device):
    mlgpu.manual_seed(0)
    layer = kind(2, 3, 3, device=device)
    original = layer.weight.detach().clone()
    FORMS[form].spectral_norm(layer, n_power_iterations=30)
    layer(mlgpu.zeros(1, 2, 4, 4, device=device)).sum().backward()
    dim = 1 if kind is nn.ConvTranspose2d else 0
    first = np.linalg.norm(original.movedim(dim, 0).flatten(1).cpu().numpy(), 2)
    close(layer.weight, original / float(first), 1e-3)
    assert any(p.grad is not None for n, p in layer.named_parameters() if "orig" in n)
    layer.eval()
    u = next(b for n, b in layer.named_buffers() if n.endswith("_u")).clone()
    layer(mlgpu.zeros(1, 2, 4, 4, device=device))
    close(next(b for n, b in layer.named_buffers() if n.endswith("_u")), u)
    if form == "hook":
        nn.utils.remove_spectral_norm(layer)
        assert [n for n, _ in layer.named_parameters()] == ["bias", "weight"]
        with pytest.raises(ValueError, match="SpectralNorm"):
            nn.utils.remove_spectral_norm(layer)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, a):
        return a.triu()


def test_a_parametrization_of_ones_own():
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    assert parametrize.is_parametrized(layer, "weight")
    assert isinstance(layer, nn.Linear)
    assert type(layer).__name__ == "ParametrizedLinear"
    assert mlgpu.equal(layer.weight, layer.weight.mT)
    wanted = mlgpu.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    layer.weight = wanted
    assert mlgpu.equal(layer.weight, wanted)
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight
    twin = copy.deepcopy(layer)
    assert mlgpu.equal(twin.weight, wanted)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    assert len(layer.parametrizations["weight"]) == 2
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original"}
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert mlgpu.equal(layer.weight, wanted.triu())
    assert not parametrize.is_parametrized(layer)


def test_what_cannot_be_parametrized_is_refused():
    layer = nn.Linear(3, 2)
    with pytest.raises(KeyError, match="'weights'"):
        parametrize.register_parametrization(layer, "weights", nn.Identity())
    with pytest.raises(ValueError, match="unsafe=True"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    assert isinstance(layer.weight, nn.Parameter)
    with pytest.raises(ValueError, match="not parametrized"):
        parametrize.remove_parametrizations(layer, "weight")
    nn.utils.weight_norm(layer)
    with pytest.raises(ValueError, match="already"):
        nn.utils.weight_norm(layer)
    with pytest.raises(ValueError, match="n_power_iterations"):
        parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_as_pytorch(form, what):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.ConvTranspose1d(3, 4, 3)
    ours = nn.ConvTranspose1d(3, 4, 3)
    modules = torch.nn.utils if form == "hook" else torch.nn.utils.parametrizations
    getattr(modules, what)(theirs)
    getattr(FORMS[form], what)(ours)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({k: mlgpu.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((2, 3, 5)).astype(np.float32)
    for _ in range(2):
        a, b = ours(mlgpu.tensor(x)), theirs(torch.tensor(x))
        close(a, b)
        ours.zero_grad()
        theirs.zero_grad()
        a.square().sum().backward()
        b.square().sum().backward()
        for (name, p), (_, q) in zip(sorted(ours.named_parameters()),
                                     sorted(theirs.named_parameters()), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-4,
                                       err_msg=name)
