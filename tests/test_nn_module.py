"""Module: what it registers, finds, converts and prints."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.errors import DTypeError, GraphError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.rest = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2, bias=False))
        self.scale = nn.Parameter(mlgpu.ones(2))
        self.absent = None
        self.register_buffer("count", mlgpu.tensor(3))
        self.register_buffer("cache", mlgpu.zeros(2), persistent=False)

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale


def test_what_is_inside():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.1.weight"]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_parameters("net")][:2] == ["net.scale",
                                                                     "net.first.weight"]
    assert [name for name, _ in net.named_buffers()] == ["count", "cache"]
    assert [name for name, _ in net.named_children()] == ["first", "rest"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert next(net.modules()) is net
    assert list(net.children()) == [net.first, net.rest]
    assert next(net.parameters()) is net.scale
    assert next(net.buffers()) is net.count
    assert {"first", "scale", "count", "forward"} <= set(dir(net))


def test_found_by_path():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("rest.1") is net.rest[1]
    assert net.get_parameter("rest.1.weight") is net.rest[1].weight
    assert net.get_buffer("count") is net.count
    for find, path in ((net.get_submodule, "rest.2"), (net.get_submodule, "scale"),
                       (net.get_parameter, "rest.1.bias"), (net.get_buffer, "scale")):
        with pytest.raises(AttributeError, match=r"there is no"):
            find(path)


def test_tied_parameters_count_once():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    assert [n for n, _ in net.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    shared = nn.Linear(1, 1)
    twice = nn.Sequential(shared, shared)
    assert len(list(twice.children())) == 1
    assert len(list(twice.modules())) == 2
    assert len(list(twice.modules(remove_duplicate=False))) == 3


def test_assignment_registers_and_moves():
    net = nn.Module()
    net.x = 3
    net.x = nn.Parameter(mlgpu.ones(1))
    assert "x" not in net.__dict__
    assert list(net._parameters) == ["x"]
    net.x = nn.Linear(1, 1)
    assert not net._parameters
    assert list(net._modules) == ["x"]
    net.x = None
    assert net.x is None
    assert list(net._modules) == ["x"]
    del net.x
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = net.x
    with pytest.raises(AttributeError):
        del net.x
    net.register_buffer("b", None)
    net.b = mlgpu.ones(1)
    assert list(net.state_dict()) == ["b"]
    net.plain = mlgpu.ones(1)
    assert "plain" in net.__dict__


def test_assignment_before_init():
    class Hasty(nn.Module):
        def __init__(self, value):
            self.value = value

    for value in (nn.Parameter(mlgpu.ones(1)), nn.Linear(1, 1)):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            Hasty(value)
    hasty = Hasty(1)
    with pytest.raises(AttributeError, match="before"):
        hasty.register_buffer("b", None)
    with pytest.raises(AttributeError, match="before"):
        hasty.register_forward_hook(print)


@pytest.mark.parametrize(("change", "error"), [
    (lambda m: setattr(m, "weight", mlgpu.ones(2, 2)), TypeError),
    (lambda m: setattr(m, "child", 3), TypeError),
    (lambda m: setattr(m, "buffer", "text"), TypeError),
    (lambda m: m.register_parameter("p", mlgpu.ones(1)), TypeError),
    (lambda m: m.register_parameter("a.b", None), KeyError),
    (lambda m: m.register_parameter("", None), KeyError),
    (lambda m: m.register_parameter("training", None), KeyError),
    (lambda m: m.register_parameter(3, None), TypeError),
    (lambda m: m.register_buffer("weight", None), KeyError),
    (lambda m: m.register_buffer("b", 3), TypeError),
    (lambda m: m.register_module("weight", None), KeyError),
    (lambda m: m.register_module("m", 3), TypeError),
    (lambda m: m.train("yes"), ValueError),
    (lambda m: m.to(mlgpu.int32), TypeError),
    (lambda m: nn.Module()(1), NotImplementedError),
    (lambda m: m.missing, AttributeError),
])
def test_wrong_use(change, error):
    module = nn.Linear(2, 2)
    module.child = nn.ReLU()
    module.register_buffer("buffer", mlgpu.ones(1))
    with pytest.raises(error):
        change(module)


def test_parameter():
    data = mlgpu.ones(2)
    parameter = nn.Parameter(data)
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert isinstance(parameter, mlgpu.Tensor)
    assert parameter.data_ptr() == data.data_ptr()
    assert repr(parameter) == "Parameter containing:\n" + repr(mlgpu.ones(2).requires_grad_())
    assert not isinstance(parameter * 2, nn.Parameter)
    assert nn.Parameter(mlgpu.tensor([1]), requires_grad=False).dtype is mlgpu.int64
    assert nn.Parameter().shape == (0,)
    result = parameter * 2
    assert nn.Parameter(result).is_leaf
    with pytest.raises(DTypeError):
        nn.Parameter(mlgpu.tensor([1]))
    with pytest.raises(TypeError, match="must be a Tensor"):
        nn.Parameter([1.0])
    module = nn.Module()
    graph = nn.Parameter(mlgpu.ones(1))
    with mlgpu.no_grad():
        graph.detach_()
    graph._node, graph._requires = result._node, True
    with pytest.raises(GraphError, match="leaf"):
        module.register_parameter("graph", graph)


def test_training_mode():
    net = Net()
    assert net.training
    assert net.rest[0].training
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.rest.train()
    assert net.rest[1].training
    assert not net.training


def test_requires_grad_and_zero_grad():
    net = Net()
    net(mlgpu.ones(1, 2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(float(p.grad.abs().sum()) == 0 for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net
    assert not any(p.requires_grad for p in net.parameters())


def test_apply_reaches_children_first():
    seen = []
    net = Net()
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Linear", "LayerNorm", "Linear", "Sequential", "Net"]


def test_conversion_keeps_the_parameters(no_cuda):
    net = Net()
    parameters = list(net.parameters())
    net.first.weight.grad = mlgpu.ones(3, 2)
    values = net.first.weight.detach().numpy().copy()
    assert net.double() is net
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert {p.dtype for p in parameters} == {mlgpu.float64}
    assert net.count.dtype is mlgpu.int64
    assert net.cache.dtype is mlgpu.float64
    assert net.first.weight.grad.dtype is mlgpu.float64
    np.testing.assert_array_equal(net.first.weight.detach().numpy(), values)
    for method, dtype in (("half", mlgpu.float16), ("bfloat16", mlgpu.bfloat16),
                          ("float", mlgpu.float32)):
        getattr(net, method)()
        assert {p.dtype for p in net.parameters()} == {dtype}
    net.to(mlgpu.float64)
    net.to("cpu", mlgpu.float32)
    net.to(device="cpu", dtype=mlgpu.float64)
    net.to(mlgpu.ones(1))
    assert net.scale.dtype is mlgpu.float32
    assert net.cpu().scale.is_cpu
    assert net.type(mlgpu.float64).count.dtype is mlgpu.float64
    with pytest.raises(mlgpu.DeviceError):
        net.cuda()


def test_old_memory_can_be_released_after_a_conversion():
    layer = nn.Linear(2, 2)
    old = layer.weight.detach()
    layer.double()
    old.release()
    assert layer.weight.tolist() == layer.weight.float().tolist()
    with pytest.raises(mlgpu.ReleasedError):
        old.tolist()


def test_conversion_keeps_ties():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    net = nn.Sequential(a, b).double()
    assert net[0].weight is net[1].weight
    assert net[0].weight.dtype is mlgpu.float64
    net[0].weight.detach().fill_(3)
    assert net[1].weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_copies():
    net = Net()
    net(mlgpu.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(net)
    assert type(twin.scale) is nn.Parameter
    assert twin.scale.data_ptr() != net.scale.data_ptr()
    assert twin.scale.grad.tolist() == net.scale.grad.tolist()
    assert twin(mlgpu.ones(1, 2)).tolist() == net(mlgpu.ones(1, 2)).tolist()
    shared = nn.Linear(2, 2)
    tied = copy.deepcopy(nn.Sequential(shared, shared))
    assert tied[0] is tied[1]
    again = pickle.loads(pickle.dumps(net))
    assert again(mlgpu.ones(1, 2)).tolist() == net(mlgpu.ones(1, 2)).tolist()
    assert list(again.state_dict()) == list(net.state_dict())


def test_repr():
    assert repr(Net()) == """Net(
  (first): Linear(in_features=2, out_features=3, bias=True)
  (rest): Sequential(
    (0): LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)
    (1): Linear(in_features=3, out_features=2, bias=False)
  )
)"""
    assert repr(nn.Module()) == "Module()"

    class Two(nn.Module):
        def extra_repr(self):
            return "a=1\nb=2"

    assert repr(Two()) == "Two(\n  a=1\n  b=2\n)"


def test_no_cycles():
    """A model, its graph and its gradients go away without the collector."""
    gc.collect()
    gc.disable()
    try:
        before = mlgpu.memory.stats().allocated
        net = Net()
        net.register_full_backward_hook(lambda module, dx, dy: None)
        net(mlgpu.ones(4, 2, requires_grad=True)).sum().backward()
        net.load_state_dict(net.state_dict())
        del net
        assert mlgpu.memory.stats().allocated == before
    finally:
        gc.enable()
