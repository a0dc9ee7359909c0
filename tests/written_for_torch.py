"""What programs written for PyTorch rely on.  Not collected by itself: test_as_torch.py runs it as

    python -m mlgpu.as_torch -m pytest tests/written_for_torch.py

where `import torch` is answered by mlgpu; with `python -m pytest` it shows that PyTorch does so.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import io
import multiprocessing
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, einsum, optim
from torch.autograd import Function, Variable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair
from torch.nn.parameter import Parameter
from torch.optim.optimizer import Optimizer
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

MLGPU = "mlgpu" in torch.__version__
only_mlgpu = pytest.mark.skipif(not MLGPU, reason="what mlgpu says of itself")


def test_versions():
    assert torch.__version__ >= (2, 0)
    assert tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 0)
    assert importlib.metadata.version("torch").startswith("2.")


def test_names_print_as_pytorchs():
    x = torch.ones(2, 3)
    assert [str(x.dtype), repr(x.shape), str(x.device), x.type()] == [
        "torch.float32", "torch.Size([2, 3])", "cpu", "torch.FloatTensor"]
    assert getattr(torch, str(torch.bfloat16).split(".")[1]) is torch.bfloat16
    assert repr(torch.channels_last) == "torch.channels_last"


def test_dtypes_and_classes():
    assert torch.long is torch.int64
    assert torch.float is torch.float32
    assert torch.tensor([1, 2]).dtype == torch.long
    assert isinstance(torch.ones(1), torch.FloatTensor)
    assert not isinstance(torch.ones(1), torch.LongTensor)
    assert isinstance(nn.Parameter(torch.ones(1)), Tensor)
    assert torch.FloatTensor([1, 2]).type(torch.LongTensor).tolist() == [1, 2]
    assert torch.is_tensor(torch.ones(1))
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps
    assert [torch.pi, torch.inf] == [np.pi, np.inf]
    assert torch.tensor(1.5).item() == 1.5
    assert torch.Tensor([[1, 2]]).size() == torch.Size([1, 2])


def test_indexing_as_people_do_it():
    x = torch.arange(24.0).view(2, 3, 4)
    assert x[..., -1].shape == (2, 3)
    assert x[:, None, 0, ::2].shape == (2, 1, 2)
    assert x[x > 20].tolist() == [21, 22, 23]
    assert x[torch.tensor([1, 0]), :, [2, 3]].shape == (2, 3)
    x[0, 1:] = 0
    x[x == 1] = -1
    assert x[0].sum() == -1 + 2 + 3
    assert einsum("bij,bij->b", x, x).shape == (2,)


def test_in_place_and_data():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    z = y * y
    y.data.add_(5)  # what backward needs of y is not told of this
    z.sum().backward()
    assert x.grad.tolist() == [28, 28, 28]
    x.data = torch.zeros(2)
    assert x.shape == (2,)
    x.data.fill_(3).clamp_(max=2)
    assert x.tolist() == [2, 2]
    y = x * 2
    z = y * y
    y.add_(1)
    with pytest.raises(RuntimeError):
        z.sum().backward()
    assert torch.exp_(torch.zeros(1)).item() == 1
    t = torch.zeros(2, 3).unsqueeze_(0).squeeze_(0).t_()
    assert t.shape == (3, 2)


def test_modes_and_decorators():
    @torch.no_grad()
    def doubled(x):
        return x * 2

    x = torch.ones(1, requires_grad=True)
    assert not doubled(x).requires_grad
    with torch.inference_mode():
        assert not (x * 2).requires_grad
    with torch.set_grad_enabled(False):
        assert not torch.is_grad_enabled()
    with torch.autograd.detect_anomaly():
        (x * 2).backward()


def test_compiling_changes_nothing():
    @torch.compile
    def first(x):
        return x + 1

    @torch.jit.script
    def second(x: Tensor) -> Tensor:
        return x + 1

    third = torch.compile(nn.Linear(1, 1), mode="reduce-overhead") if MLGPU else nn.Linear(1, 1)
    if MLGPU:
        assert first(torch.zeros(1)).item() == 1
    assert second(torch.zeros(1)).item() == 1
    assert third(torch.zeros(1)).shape == (1,)
    assert not torch.jit.is_scripting()
    assert not torch.compiler.is_compiling()


def test_random_streams_repeat():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = [torch.rand(3), torch.randn(3), torch.randperm(5)]
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(
        first, [torch.rand(3), torch.randn(3), torch.randperm(5)], strict=True))
    g = torch.Generator().manual_seed(1)
    one = torch.randint(0, 9, (4,), generator=g)
    assert torch.equal(one, torch.randint(0, 9, (4,), generator=torch.Generator().manual_seed(1)))
    parts = random_split(range(10), [7, 3], generator=torch.Generator().manual_seed(42))
    assert sorted([*parts[0], *parts[1]]) == list(range(10))


def test_modules():
    class Net(nn.Module):
        def __init__(self):
            super(Net, self).__init__()
            self.conv = nn.Conv2d(1, 2, kernel_size=_pair(3))
            self.bn = nn.BatchNorm2d(2)
            self.scale = Parameter(torch.ones(2))
            self.register_buffer("steps", torch.zeros(1))
            self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])

        def forward(self, x):
            x = F.relu(self.bn(self.conv(x))).mean((2, 3)) * self.scale
            for block in self.blocks:
                x = block(x)
            return x

    net = Net().train()
    assert isinstance(net.bn, _BatchNorm)
    assert isinstance(net.bn, nn.modules.batchnorm.BatchNorm2d)
    assert [n for n, _ in net.named_children()] == ["conv", "bn", "blocks"]
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net"
    handle = net.conv.register_forward_hook(lambda m, i, o: seen.append(o.shape))
    assert net(torch.zeros(3, 1, 5, 5)).shape == (3, 2)
    assert seen[-1] == (3, 2, 3, 3)
    handle.remove()
    assert sum(p.numel() for p in net.parameters()) == 20 + 4 + 2 + 12
    twin = copy.deepcopy(net)
    assert twin.load_state_dict(net.state_dict()).missing_keys == []
    with pytest.raises(RuntimeError, match=r"[Uu]nexpected"):
        twin.load_state_dict({**net.state_dict(), "more": torch.zeros(1)})
    net.to(torch.float64).eval()
    assert net.scale.dtype == torch.float64
    net.to(device=torch.device("cpu"), dtype=torch.float32, memory_format=torch.channels_last)
    assert nn.DataParallel(net)(torch.zeros(1, 1, 5, 5)).shape == (1, 2)


def test_saving_and_loading():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optim": optimizer.state_dict(), "epoch": 3,
                "best": np.float32(0.5)}, file)
    file.seek(0)
    loaded = torch.load(file, map_location=lambda storage, loc: storage, weights_only=MLGPU)
    assert (loaded["epoch"], float(loaded["best"])) == (3, 0.5)
    twin = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    twin.load_state_dict(loaded["net"])
    optim.SGD(twin.parameters(), lr=1).load_state_dict(loaded["optim"])
    assert all(torch.equal(a, b) for a, b in zip(
        net.state_dict().values(), twin.state_dict().values(), strict=True))
    file.seek(0)
    assert torch.load(file, map_location={"cuda:0": "cpu"}, weights_only=MLGPU)["epoch"] == 3
    file.seek(0)
    assert torch.load(file, torch.device("cpu"), weights_only=MLGPU)["epoch"] == 3


def test_pruning():
    import torch.nn.utils.prune as prune

    class Threshold(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[t.abs().view(-1) < 0.2] = 0
            return mask

    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    prune.ln_structured(layer, name="weight", amount=0.5, n=2, dim=0)
    Threshold.apply(layer, "weight")
    kept = layer.weight[layer.weight != 0]
    assert 0 < kept.numel() <= 12
    assert kept.abs().min().item() >= 0.2
    assert [name for name, _ in layer.named_buffers()] == ["weight_mask"]
    prune.remove(layer, "weight")
    assert sorted(name for name, _ in layer.named_parameters()) == ["bias", "weight"]


def test_optimizers_and_schedules():
    w = nn.Parameter(torch.tensor([2.0]))
    optimizer = optim.AdamW([{"params": [w], "lr": 0.1}], weight_decay=0.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        loss = (w ** 2).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w], 1.0)
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.0125]
    assert w.item() < 2
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert issubclass(optim.SGD, Optimizer)


class Squares(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.tensor([float(i)]), i * i


def test_loaders():
    for workers in (0, 1):
        loader = DataLoader(Squares(), batch_size=4, num_workers=workers)
        batches = [(x.flatten().tolist(), y.tolist()) for x, y in loader]
        assert batches == [([0, 1, 2, 3], [0, 1, 4, 9]), ([4, 5], [16, 25])]
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="pin_memory"):
            assert len(list(DataLoader(Squares(), batch_size=4, pin_memory=True))) == 2
    loader = DataLoader(TensorDataset(torch.arange(6)), batch_size=2, shuffle=True, drop_last=True)
    assert sorted(torch.cat([x for x, in loader]).tolist()) == list(range(6))


def test_functions_and_checkpoints():
    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx, grad):
            x, = ctx.saved_tensors
            return 3 * x ** 2 * grad

    x = torch.tensor([2.0], requires_grad=True)
    Cube.apply(x).backward()
    assert x.grad.item() == 12
    g, = torch.autograd.grad(Cube.apply(x).sum(), x, create_graph=True, only_inputs=True)
    assert torch.autograd.grad(g.sum(), x)[0].item() == 12
    x.grad = None
    torch.utils.checkpoint.checkpoint(lambda v: v.exp().sum(), x, use_reentrant=False).backward()
    assert abs(x.grad.item() - np.exp(2)) < 1e-5
    assert Variable(torch.ones(1), requires_grad=True).requires_grad


def test_functions_of_functions():
    from torch.func import functional_call, grad, grad_and_value, vmap
    from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

    net = nn.Linear(2, 1, bias=False)
    params = {"weight": torch.tensor([[1.0, 2.0]])}
    assert functional_call(net, params, (torch.ones(2),)).item() == 3

    def loss(p, x):
        return functional_call(net, p, (x,)).square().sum()

    grads, value = grad_and_value(loss)(params, torch.ones(2))
    assert (grads["weight"].tolist(), value.item()) == ([[6, 6]], 9)
    assert grad(grad(lambda x: x ** 3))(torch.tensor(2.0)).item() == 12
    assert not grad(lambda x: x ** 2)(torch.tensor(2.0)).requires_grad
    outer = torch.tensor(3.0, requires_grad=True)
    grad(lambda x: outer * x ** 2)(torch.tensor(2.0)).backward()
    assert outer.grad.item() == 4
    each = vmap(functools.partial(grad(loss), params))(torch.eye(2))
    assert each["weight"].tolist() == [[[2, 0]], [[0, 4]]]
    assert torch.vmap(torch.dot, in_dims=(0, None))(torch.eye(2), torch.ones(2)).tolist() == [1, 1]
    leaves, spec = tree_flatten({"a": [1, (2, 3)], "b": None})
    assert leaves == [1, 2, 3, None] if MLGPU else leaves[:3] == [1, 2, 3]
    assert tree_unflatten(leaves, spec) == {"a": [1, (2, 3)], "b": None}
    assert tree_map(lambda v: v * 2, {"a": [1, (2,)]}) == {"a": [2, (4,)]}


def test_mixed_precision():
    net = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(torch.ones(2, 4))
    assert y.dtype == torch.bfloat16
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    scaler.scale(net(torch.ones(2, 4)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.cuda.amp import GradScaler, autocast

        with autocast(enabled=torch.cuda.is_available()):
            pass
        GradScaler(enabled=False).scale(torch.ones(1))


def test_what_asks_about_machines():
    assert torch.cuda.is_available() in (True, False)
    assert torch.cuda.device_count() >= 0
    torch.cuda.manual_seed_all(0)
    torch.cuda.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    assert torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before
    assert not torch.backends.mps.is_available()
    assert torch.accelerator.is_available() == torch.cuda.is_available()
    assert not torch.distributed.is_available() or not torch.distributed.is_initialized()
    assert torch.get_num_threads() >= 1


def test_default_devices_and_dtypes():
    torch.set_default_dtype(torch.float64)
    assert torch.ones(1).dtype == torch.float64
    torch.set_default_dtype(torch.float32)
    torch.set_default_device("cpu")
    with torch.device("cpu"):
        assert torch.ones(1).device.type == "cpu"
    x = torch.ones(1, device=torch.device("cpu"))
    assert x.to("cpu", non_blocking=True) is x
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            x.cuda()


def test_old_names():
    with pytest.warns(FutureWarning, match="xavier_uniform"):
        nn.init.xavier_uniform(torch.zeros(2, 2))
    assert F.upsample_nearest(torch.ones(1, 1, 2, 2), scale_factor=2).shape == (1, 1, 4, 4)
    assert torch.layer_norm(torch.ones(2, 3), (3,)).abs().max().item() < 1e-3
    assert torch.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2)).tolist() == [[[2, 2, 2]]]
    assert torch.embedding(torch.eye(3), torch.tensor([2])).tolist() == [[0, 0, 1]]
    if MLGPU:
        torch.set_default_tensor_type("torch.DoubleTensor")
        assert torch.ones(1).dtype == torch.float64
        torch.set_default_tensor_type(torch.FloatTensor)


def test_subclasses():
    class Named(torch.Tensor):
        pass

    x = torch.ones(2).as_subclass(Named)
    assert isinstance(x, Named)
    assert (x + 1).tolist() == [2, 2]


def test_results_are_written_into_what_is_given():
    a, out = torch.arange(3.0), torch.empty(3)
    assert torch.add(a, 1, out=out) is out
    assert out.tolist() == [1.0, 2.0, 3.0]
    values, indices = torch.empty(0), torch.empty(0, dtype=torch.int64)
    found = torch.max(torch.tensor([[1.0, 3.0], [5.0, 4.0]]), 1, out=(values, indices))
    assert found.values is values
    assert (values.tolist(), indices.tolist()) == ([3.0, 5.0], [1, 0])
    rows = torch.zeros(2, 3)
    torch.mul(a, a, out=rows[1])
    assert rows.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 4.0]]
    counted = torch.empty(0, dtype=torch.float64)
    assert torch.arange(3, out=counted).dtype == torch.float64
    with pytest.raises(RuntimeError):
        torch.add(a, 1, out=torch.empty(3, dtype=torch.int64))
    with pytest.raises(RuntimeError):
        torch.exp(a.clone().requires_grad_(), out=out)


def test_classes_have_a_say_in_functions():
    called = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            called.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs)

    x = torch.ones(3).as_subclass(Logged)
    assert type(torch.add(x, 1)) is type(x * 2) is type(x[0]) is type(F.relu(x)) is Logged
    assert {"add", "mul", "relu"} <= set(called)
    with torch._C.DisableTorchFunctionSubclass():
        assert type(x + 1) is torch.Tensor

    class Diagonal:
        def __init__(self, n, value):
            self.n, self.value = n, value

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return args[0].value / args[0].n if func is torch.mean else NotImplemented

    assert torch.mean(Diagonal(5, 2)) == 0.4
    with pytest.raises(TypeError):
        torch.mul(Diagonal(5, 2), torch.ones(2))
    assert torch.overrides.has_torch_function((Diagonal(1, 1),))
    assert type(nn.Parameter(torch.ones(1)) + 1) is torch.Tensor


def test_workers_see_what_has_no_name():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return torch.full((2,), float(i))

    if multiprocessing.get_start_method() != "fork":
        pytest.skip("processes are spawned here, and find by name what they are given")
    loader = torch.utils.data.DataLoader(Rows(), batch_size=2, num_workers=1,
                                         collate_fn=lambda rows: torch.stack(rows).sum())
    assert [x.item() for x in loader] == [2.0, 10.0]
    pair = torch.utils.data.StackDataset(a=[1, 2], b=[3, 4])
    assert (len(pair), pair[1]) == (2, {"a": 2, "b": 4})


def test_derivatives_of_functions():
    from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp

    x = torch.tensor([1.0, 2.0])
    assert hessian(lambda t: (t ** 3).sum())(x).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    found = jacrev(lambda d, e: {"y": d["a"] * e}, argnums=(0, 1))({"a": x}, x)
    assert found["y"][0]["a"].tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert torch.equal(jacfwd(torch.square)(x), jacrev(torch.square)(x))
    out, back = vjp(lambda a, b: a * b, x, x)
    assert (out.tolist(), [g.tolist() for g in back(torch.ones(2))]) == (
        [1.0, 4.0], [[1.0, 2.0], [1.0, 2.0]])
    assert [t.tolist() for t in jvp(torch.square, (x,), (torch.ones(2),))] == [[1.0, 4.0],
                                                                             [2.0, 4.0]]
    models = [nn.Linear(2, 1) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    together = torch.func.vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(
        parameters, buffers)
    assert torch.allclose(together, torch.stack([m(x) for m in models]))
    both = torch.autograd.functional.jacobian(torch.exp, x, vectorize=True)
    assert torch.allclose(both, x.exp().diag())


def test_hooks_of_all_and_of_several():
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: seen.append(type(module).__name__))
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    model(torch.ones(2))
    handle.remove()
    model(torch.ones(2))
    assert seen == ["Linear", "Tanh", "Sequential"]

    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    torch.autograd.graph.register_multi_grad_hook((a, b), lambda grads: seen.append(len(grads)))
    (a * b).sum().backward()
    assert seen[-1] == 2
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append(state["mine"]))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[-1] == 1


def test_a_buffer_is_registered_by_assignment():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = nn.Buffer(torch.ones(2))
            self.own = nn.Buffer(torch.zeros(1), persistent=False)

    model = Model()
    assert [name for name, _ in model.named_buffers()] == ["kept", "own"]
    assert list(model.state_dict()) == ["kept"]
    assert model.double().kept.dtype == torch.float64
    assert isinstance(Model().kept, nn.Buffer)


def test_operators_of_a_program():
    @torch.library.custom_op("mine::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double.register_autograd(lambda ctx, grad: grad * 3)
    x = torch.ones(2, requires_grad=True)
    y = torch.ops.mine.double(x)
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([2.0, 2.0], [3.0, 3.0])
    with pytest.raises(AttributeError):
        torch.ops.mine.triple  # noqa: B018


def test_attention_by_functions_of_places():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = (torch.from_numpy(np.random.default_rng(i).standard_normal((1, 2, 8, 16)))
               for i in range(3))
    mask = create_block_mask(lambda b, h, i, j: i >= j, 1, 1, 8, 8, device="cpu", BLOCK_SIZE=8)
    found = flex_attention(q, k, v, block_mask=mask)
    assert torch.allclose(found, F.scaled_dot_product_attention(q, k, v, is_causal=True))
    moved = flex_attention(q, k, v, lambda score, b, h, i, j: score + 0.1 * (j - i))
    bias = 0.1 * (torch.arange(8)[None] - torch.arange(8)[:, None]).double()
    assert torch.allclose(moved, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


def test_values_that_are_mapped():
    from torch.distributions import (
        AffineTransform,
        Normal,
        StudentT,
        TransformedDistribution,
        biject_to,
        constraints,
    )
    from torch.distributions.transforms import TanhTransform

    squashed = TransformedDistribution(Normal(torch.zeros(2), 1.0), [TanhTransform(),
                                                                     AffineTransform(1.0, 2.0)])
    density = squashed.log_prob(torch.tensor([0.5, 1.2]))
    assert torch.allclose(density, torch.tensor([-1.5802, -1.6071]), atol=2e-4)
    assert biject_to(constraints.positive)(torch.zeros(2)).tolist() == [1.0, 1.0]
    assert StudentT(3.0).log_prob(torch.tensor(0.2)).item() == pytest.approx(-1.0274, abs=2e-4)
    assert Normal(0.0, torch.ones(3)).expand((2, 3)).sample().shape == (2, 3)


def test_free_matrices_as_orthogonal_ones():
    from torch.nn.utils.parametrizations import orthogonal

    for shape, how in (((4, 4), None), ((5, 3), None), ((3, 5), "cayley")):
        layer = orthogonal(nn.Linear(shape[1], shape[0]).double(), orthogonal_map=how)
        w = layer.weight if shape[0] >= shape[1] else layer.weight.mT
        assert torch.allclose(w.mT @ w, torch.eye(w.shape[1]).double(), atol=1e-8)
        layer(torch.ones(shape[1]).double()).sum().backward()
        assert layer.parametrizations.weight.original.grad is not None


def test_distributions():
    from torch.distributions import Categorical, Normal, kl_divergence
    from torch.distributions.normal import Normal as Same

    assert Same is Normal
    m = Categorical(torch.tensor([0.25, 0.75]))
    assert abs(m.log_prob(m.sample()).exp().item() - 0.5) < 0.26
    assert kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0)).item() == 0


def test_stars():
    names: dict = {}
    exec("from torch.nn import *\nfrom torch.nn.functional import *", names)
    assert {"Linear", "Module", "Conv2d"} <= set(names)


# --- what mlgpu says of itself --------------------------------------------------------------------


@only_mlgpu
def test_what_is_missing_is_named():
    with pytest.raises(AttributeError, match=r"torch\.reluu: mlgpu does not have this; nearby: "
                                             r"torch\.relu"):
        torch.reluu  # noqa: B018
    assert not hasattr(torch, "lobpcg")
    with pytest.raises(TypeError, match=r"torch\.float8_e4m3fn"):
        torch.ones(1, dtype=torch.float8_e4m3fn)
    with pytest.raises(ImportError, match=r"torch\.lobpcg: mlgpu does not have this"):
        from torch import lobpcg  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"torch\.export: .*mlgpu\.cuda\.graph"):
        importlib.import_module("torch.export")
    with pytest.raises(AttributeError, match=r"torch\.onnx\.export: .*safetensors"):
        torch.onnx.export(nn.Linear(1, 1), torch.ones(1), "x.onnx")
    with pytest.raises(AttributeError, match=r"torch\.nn\.CrossMapLRN2d: "):
        nn.CrossMapLRN2d(2)
    assert not hasattr(torch, "api")  # mlgpu's own modules do not show through
    assert "relu" in dir(torch)
    assert {"functional", "Linear"} <= set(dir(nn))


@only_mlgpu
def test_the_modules_are_views_of_mlgpu():
    import mlgpu

    assert nn.Linear is mlgpu.nn.Linear
    assert F.relu.__wrapped__ is mlgpu.nn.functional.relu
    assert F.relu.__name__ == "relu"
    assert torch.Tensor is mlgpu.Tensor
    assert optim.AdamW is mlgpu.optim.AdamW
    assert torch.utils.data.TensorDataset is mlgpu.data.TensorDataset


@only_mlgpu
def test_a_whole_model_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="state_dict"):
        torch.save(nn.Linear(1, 1), tmp_path / "x.pt")
    from torchvision.models import ResNet18_Weights

    with pytest.raises(AttributeError, match="no weights"):
        ResNet18_Weights.DEFAULT  # noqa: B018


@only_mlgpu
def test_torchvision():
    from torchvision import models, transforms, utils

    pipeline = transforms.Compose([
        transforms.ToTensor(), transforms.Resize(8), transforms.CenterCrop(6),
        transforms.RandomHorizontalFlip(1.0), transforms.Normalize((0.5,), (0.5,))])
    image = pipeline(np.full((16, 16, 1), 255, np.uint8))
    assert image.shape == (1, 6, 6)
    assert image.unique().tolist() == [1]
    grid = utils.make_grid(torch.zeros(5, 1, 4, 4), nrow=3, padding=1, pad_value=1.0)
    assert grid.shape == (3, 11, 16)
    net = models.resnet18(num_classes=3)
    assert len(net.state_dict()) == 122
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@only_mlgpu
def test_a_group_of_one_process(monkeypatch):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data.distributed import DistributedSampler

    with pytest.raises(ValueError, match="init_process_group"):
        DistributedDataParallel(nn.Linear(2, 1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="one process"):
        dist.init_process_group("gloo")
    monkeypatch.delenv("WORLD_SIZE")
    dist.init_process_group("gloo")
    assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    net = DistributedDataParallel(nn.Linear(2, 1))
    with net.no_sync():
        net(torch.ones(1, 2)).sum().backward()
    assert list(net.state_dict()) == ["module.weight", "module.bias"]
    x = torch.ones(2)
    dist.all_reduce(x, op=dist.ReduceOp.SUM)
    dist.barrier()
    assert x.tolist() == [1, 1]
    dist.destroy_process_group()
    parts = [list(DistributedSampler(range(5), 2, rank, seed=3)) for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    assert set(parts[0] + parts[1]) == set(range(5))
    assert list(DistributedSampler(range(3), shuffle=False)) == [0, 1, 2]


@only_mlgpu
def test_data_sets_and_addresses(tmp_path):
    from torchvision import datasets

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
    (raw / "t10k-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + np.array([2, 28, 28], ">i4").tobytes() + pixels.tobytes())
    labels = b"\0\0\x08\x01" + np.array([2], ">i4").tobytes() + b"\x07\x01"
    (raw / "t10k-labels-idx1-ubyte").write_bytes(labels)
    images, targets = (datasets.MNIST(tmp_path, train=False).data,
                       datasets.MNIST(tmp_path, train=False).targets)
    assert images.tolist() == pixels.tolist()
    assert targets.tolist() == [7, 1]
    with pytest.raises(FileNotFoundError, match="download=True"):
        datasets.MNIST(tmp_path)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    colours = np.arange(3072, dtype=np.uint8)[None]
    (batches / "test_batch").write_bytes(pickle.dumps({"data": colours, "labels": [3]}, 2))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c", "d"]}, 2))
    cifar = datasets.CIFAR10(tmp_path, train=False)
    assert (cifar.data[0].transpose(2, 0, 1).ravel() == colours[0]).all()
    (batches / "test_batch").write_bytes(pickle.dumps({"data": print}, 2))
    with pytest.raises(ValueError, match="print"):
        datasets.CIFAR10(tmp_path, train=False)
    torch.save({"w": torch.ones(2)}, tmp_path / "net-abc.pt")
    loaded = torch.hub.load_state_dict_from_url(f"file://{tmp_path}/net-abc.pt", tmp_path / "kept")
    assert loaded["w"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="SHA-256"):
        torch.hub.load_state_dict_from_url(f"file://{tmp_path}/net-abc.pt", tmp_path / "again",
                                           check_hash=True)
    assert os.listdir(tmp_path / "again") == []


@only_mlgpu
def test_memory_is_shared_between_data_and_tensor():
    x = torch.ones(1000)
    for _ in range(100):
        x.data.mul_(1)
    assert len(x._storage.others) < 30
    x.data.release()
    with pytest.raises(RuntimeError, match="release"):
        x + 1
