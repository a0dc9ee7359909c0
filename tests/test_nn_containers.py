"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict

import pytest

import mlgpu
from mlgpu import nn


def names(module):
    return [type(m).__name__ for m in module]


def test_sequential():
    model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert model(mlgpu.zeros(2)).tolist() == [0.5, 0.5]
    assert len(model) == 3
    assert names(model[1:]) == ["Tanh", "Sigmoid"]
    assert list(model[1:]._modules) == ["1", "2"]
    assert isinstance(model[-1], nn.Sigmoid)
    model[1] = nn.GELU()
    assert names(model) == ["ReLU", "GELU", "Sigmoid"]
    del model[0]
    assert list(model._modules) == ["0", "1"]
    model.append(nn.Mish()).extend([nn.SiLU()]).insert(0, nn.ReLU())
    assert names(model) == ["ReLU", "GELU", "Sigmoid", "Mish", "SiLU"]
    assert isinstance(model.pop(-1), nn.SiLU)
    assert names(nn.Sequential(nn.ReLU()) + nn.Sequential(nn.Tanh())) == ["ReLU", "Tanh"]
    assert names(nn.Sequential(nn.ReLU()) * 2) == names(2 * nn.Sequential(nn.ReLU()))
    model += nn.Sequential(nn.Tanh())
    assert names(model)[-1] == "Tanh"
    for wrong in (lambda: model[9], lambda: model[-9]):
        with pytest.raises(IndexError):
            wrong()
    with pytest.raises(TypeError):
        model + [nn.ReLU()]
    with pytest.raises(TypeError):
        model.append(3)
    with pytest.raises(ValueError):
        model * 0
    with pytest.raises(TypeError):
        model * 1.5


def test_sequential_with_names():
    model = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU()))
    assert list(model.state_dict()) == ["a.weight", "a.bias"]
    assert model.a is model[0]
    assert list(model[:1]._modules) == ["a"]
    model[1] = nn.Tanh()
    assert isinstance(model.b, nn.Tanh)


def test_module_list():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.append(nn.Linear(1, 2)).extend([nn.Linear(1, 3)])
    assert len(list(layers.parameters())) == 6
    assert [layer.out_features for layer in layers] == [1, 2, 3]
    assert [layer.out_features for layer in layers[::2]] == [1, 3]
    layers.insert(0, nn.Linear(1, 9))
    assert layers.pop(1).out_features == 1
    layers[0] = nn.Linear(1, 8)
    del layers[-1]
    assert [layer.out_features for layer in layers + [nn.Linear(1, 7)]] == [8, 2, 7]
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(NotImplementedError):
        layers(1)
    assert nn.ModuleList().state_dict() == {}


def test_module_list_repr():
    layers = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Sequential(nn.Tanh()), nn.ReLU()])
    assert repr(layers) == """ModuleList(
  (0-1): 2 x ReLU()
  (2): Sequential(
    (0): Tanh()
  )
  (3): ReLU()
)"""
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_module_dict():
    modules = nn.ModuleDict({"relu": nn.ReLU(), "linear": nn.Linear(1, 1)})
    assert list(modules) == list(modules.keys()) == ["relu", "linear"]
    assert "relu" in modules
    assert len(modules) == 2
    modules.update([("tanh", nn.Tanh())])
    modules.update(nn.ModuleDict({"gelu": nn.GELU()}))
    modules["mish"] = nn.Mish()
    assert names(modules.values()) == ["ReLU", "Linear", "Tanh", "GELU", "Mish"]
    del modules["relu"]
    assert isinstance(modules.pop("tanh"), nn.Tanh)
    assert [key for key, _ in modules.items()] == ["linear", "gelu", "mish"]
    assert list(modules.state_dict()) == ["linear.weight", "linear.bias"]
    with pytest.raises(KeyError, match="already exists"):
        modules["keys"] = nn.ReLU()
    with pytest.raises(KeyError):
        _ = modules["unknown"]
    with pytest.raises(ValueError):
        modules.update([("a", nn.ReLU(), 3)])
    modules.clear()
    assert not modules


def test_parameter_list():
    values = nn.ParameterList([mlgpu.ones(2), nn.Parameter(mlgpu.zeros(1)), "text"])
    assert [name for name, _ in values.named_parameters()] == ["0", "1"]
    assert isinstance(values[0], nn.Parameter)
    assert values[-1] == "text"
    assert len(values[:2]) == 2
    values[2] = mlgpu.ones(3)
    values += [mlgpu.ones(4)]
    assert [v.shape[0] for v in values] == [2, 1, 3, 4]
    assert list(values.state_dict()) == ["0", "1", "2", "3"]
    assert repr(nn.ParameterList([mlgpu.ones(2, 3)])) == (
        "ParameterList(\n  (0): Parameter containing: [mlgpu.float32 of size 2x3]\n)")
    with pytest.raises(IndexError):
        _ = values[4]
    with pytest.raises(TypeError):
        values.extend(mlgpu.ones(3))


def test_parameter_dict():
    values = nn.ParameterDict({"a": mlgpu.ones(2)})
    values["b"] = nn.Parameter(mlgpu.ones(1))
    values.update({"c": 3})
    assert list(values) == list(values.keys()) == ["a", "b", "c"]
    assert list(reversed(values)) == ["c", "b", "a"]
    assert [name for name, _ in values.named_parameters()] == ["a", "b"]
    assert values.get("z", 5) == 5
    assert values.setdefault("c", 9) == 3
    assert values.setdefault("d", 9) == values.pop("d") == 9
    assert "d" not in values
    assert len(values | {"e": 1}) == 4
    assert len(values) == 3
    values |= {"e": 1}
    assert dict(values.items())["e"] == 1
    assert len(list(values.values())) == 4
    del values["a"]
    assert list(values.state_dict()) == ["b"]
    assert values.copy()["b"] is values["b"]
    with pytest.raises(KeyError):
        _ = values["a"]
    with pytest.raises(KeyError, match="attribute"):
        values["keys"] = mlgpu.ones(1)
    with pytest.raises(TypeError):
        values[3] = mlgpu.ones(1)
    values.clear()
    assert not values


def test_as_in_pytorch():
    torch = pytest.importorskip("torch")

    def trees(nn):
        sequential = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh(), c=nn.Sigmoid()))
        yield sequential
        yield sequential[1:]
        yield nn.Sequential(*[nn.Tanh() for _ in range(3)])
        yield nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)])
        yield nn.ModuleDict({"x": nn.ModuleList([nn.ReLU()]), "y": nn.Identity()})
        shortened = nn.Sequential(*[nn.Linear(n, 1) for n in range(1, 5)])
        del shortened[1:3]
        yield shortened

    for mine, theirs in zip(trees(nn), trees(torch.nn), strict=True):
        assert repr(mine) == repr(theirs)
        assert list(mine.state_dict()) == list(theirs.state_dict())
