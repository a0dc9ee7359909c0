"""state_dict and load_state_dict."""

from __future__ import annotations

import re

import pytest

import mlgpu
from mlgpu import nn
from mlgpu.errors import MlgpuError


def net(bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3, bias=bias), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_names_and_memory():
    model = net()
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean",
                           "1.running_var", "1.num_batches_tracked", "2.weight", "2.bias"]
    assert not any(value.requires_grad for value in state.values())
    assert state["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert state._metadata["1"] == {"version": 1}
    assert model.state_dict(keep_vars=True)["0.weight"] is model[0].weight
    assert list(model[0].state_dict(prefix="x.")) == ["x.weight", "x.bias"]
    target = {"old": 1}
    assert model[0].state_dict(destination=target) is target
    assert list(target) == ["old", "weight", "bias"]


def test_round_trip(tmp_path):
    first, second = net(), net()
    mlgpu.save(first.state_dict(), tmp_path / "model.safetensors")
    result = second.load_state_dict(mlgpu.load(tmp_path / "model.safetensors"))
    assert repr(result) == "<All keys matched successfully>"
    x = mlgpu.arange(6.0).reshape(3, 2)
    assert first(x).tolist() == second(x).tolist()


def test_parameters_stay_and_values_are_copied():
    model, other = net(), net()
    parameters = list(model.parameters())
    state = other.state_dict()
    model.load_state_dict(state)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    state["0.weight"].fill_(7)
    assert model[0].weight[0, 0].item() != 7
    model.double().load_state_dict(state)
    assert model[0].weight.dtype is mlgpu.float64
    assert model[0].weight[0, 0].item() == 7


def test_assign():
    model, other = net(), net().double()
    model[0].weight.requires_grad_(False)
    state = other.state_dict()
    model.load_state_dict(state, assign=True)
    assert model[0].weight.dtype is mlgpu.float64
    assert model[0].weight.data_ptr() == state["0.weight"].data_ptr()
    assert type(model[0].weight) is nn.Parameter
    assert not model[0].weight.requires_grad
    assert model[0].bias.requires_grad
    assert model[1].running_mean is state["1.running_mean"]
    parameter = nn.Parameter(mlgpu.ones(3, 2))
    model[0].load_state_dict({"weight": parameter, "bias": mlgpu.ones(3)}, assign=True)
    assert model[0].weight is parameter
    assert not parameter.requires_grad


def test_everything_that_does_not_fit_is_listed():
    model = net()
    state = model.state_dict()
    del state["0.bias"], state["2.weight"]
    state["2.bias"] = mlgpu.zeros(5)
    state["0.weight"] = "text"
    state["1.extra"] = state["3.weight"] = state["0.weight.deep"] = mlgpu.zeros(1)
    with pytest.raises(MlgpuError) as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert "Missing key(s) in state_dict: '0.bias', '2.weight'" in text
    assert re.search(r"Unexpected key\(s\) in state_dict: .*'3.weight'", text)
    assert "'1.extra'" in text
    assert "'0.weight.deep'" in text
    assert "size mismatch for 2.bias: the state dict has (5,), the model (1,)" in text
    assert "'0.weight': expected a Tensor, got str" in text
    assert isinstance(caught.value, RuntimeError)


def test_not_strict():
    model = net()
    state = {"0.weight": mlgpu.ones(3, 2), "unknown": mlgpu.ones(1)}
    result = model.load_state_dict(state, strict=False)
    assert model[0].weight.tolist() == [[1.0, 1.0]] * 3
    assert result.unexpected_keys == ["unknown"]
    assert result.missing_keys[:2] == ["0.bias", "1.weight"]
    assert repr(nn.Linear(1, 1).load_state_dict({}, strict=False)) == (
        "IncompatibleKeys(missing_keys=['weight', 'bias'], unexpected_keys=[])")
    with pytest.raises(MlgpuError, match="size mismatch"):
        model.load_state_dict({"0.weight": mlgpu.ones(1)}, strict=False)
    with pytest.raises(TypeError, match="expected a dict"):
        model.load_state_dict([1])


def test_tied_weights():
    def tied():
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = model[0].weight
        return model

    first, second = tied(), tied()
    second.load_state_dict(first.state_dict())
    assert second[0].weight is second[1].weight
    assert second[0].weight.tolist() == first[0].weight.tolist()


def test_non_persistent_buffers():
    module = nn.Module()
    module.register_buffer("kept", mlgpu.ones(1))
    module.register_buffer("dropped", mlgpu.ones(1), persistent=False)
    assert list(module.state_dict()) == ["kept"]
    with pytest.raises(MlgpuError, match="dropped"):
        module.load_state_dict({"kept": mlgpu.ones(1), "dropped": mlgpu.ones(1)})
    module.register_buffer("dropped", mlgpu.ones(1))
    assert list(module.state_dict()) == ["kept", "dropped"]


def test_extra_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = 0

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    first, second = nn.Sequential(Counter()), nn.Sequential(Counter())
    first[0].seen = 5
    state = first.state_dict()
    assert list(state) == ["0._extra_state"]
    second.load_state_dict(state)
    assert second[0].seen == 5
    with pytest.raises(MlgpuError, match="_extra_state"):
        second.load_state_dict({})
    with pytest.raises(MlgpuError, match="_extra_state"):
        nn.Sequential(nn.ReLU()).load_state_dict(state)


def test_hooks():
    calls = []
    model = nn.Sequential(nn.Linear(1, 1))
    linear = model[0]
    model.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append(("pre", prefix)))
    linear.register_state_dict_post_hook(
        lambda m, state, prefix, metadata: state.update({prefix + "more": 1}))
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "0.more"]

    def rename(module, state, prefix, metadata, strict, missing, unexpected, errors):
        state.pop(prefix + "more", None)
        if prefix + "w" in state:
            state[prefix + "weight"] = state.pop(prefix + "w")

    handle = linear.register_load_state_dict_pre_hook(rename)
    model.load_state_dict({"0.w": mlgpu.ones(1, 1), "0.bias": mlgpu.ones(1)})
    assert linear.weight.item() == 1
    handle.remove()
    model.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    model.load_state_dict({"0.bias": mlgpu.ones(1)})
    linear.register_load_state_dict_post_hook(lambda m, keys: keys)
    with pytest.raises(MlgpuError, match="post-hook"):
        model.load_state_dict(model[0].state_dict(prefix="0."), strict=False)
    assert calls == [("pre", "")]


def test_exchange_with_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    mine = net()
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3),
                                 torch.nn.Linear(3, 1))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict({k: mlgpu.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    x = torch.arange(6.0).reshape(3, 2)
    expected = theirs(x).detach().numpy()
    assert mine(mlgpu.tensor(x.numpy())).detach().numpy() == pytest.approx(expected, abs=1e-6)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in mine.state_dict().items()})
