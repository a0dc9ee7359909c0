"""LoRA on models as they are, freezing and grouping by pattern."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, peft
from mlgpu.errors import FormatError, MlgpuError


def encoder():
    mlgpu.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


class Mixed(nn.Module):
    """Every kind of module that can be adapted."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 8, padding_idx=0)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, kdim=4)
        self.conv = nn.Conv1d(8, 6, 3, groups=2, padding=1)
        self.back = nn.ConvTranspose1d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        x = self.table(ids)
        x = self.attend(x, x[..., :4], x, need_weights=False)[0]
        return self.head(self.back(self.conv(x.transpose(1, 2)).relu()).transpose(1, 2))


def mixed(device="cpu"):
    mlgpu.manual_seed(0)
    return Mixed().to(device)


def ids(device="cpu"):
    return mlgpu.tensor([[1, 2, 3, 0], [6, 5, 4, 1]], device=device)


def shaken(model):
    """Adapters that change something."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name or name.startswith("lora_"):
            with mlgpu.no_grad():
                parameter.add_(0.3 * mlgpu.randn(*parameter.shape, device=parameter.device))
    return model


def near(one, other, **options):
    np.testing.assert_allclose(one.tolist(), other.tolist(), **{"rtol": 1e-4, "atol": 1e-5,
                                                                **options})


def test_an_adapted_model_is_the_same_at_first_and_trains_its_adapters_only(device):
    model = mixed(device)
    before, state = model(ids(device)), {k: v.clone() for k, v in model.state_dict().items()}
    modules = list(model.modules())
    names = peft.add_lora(model, ["*"], rank=2, alpha=4)
    assert names == ["table", "attend", "attend.out_proj", "conv", "back", "head"]
    assert list(model.modules()) == modules  # the very objects
    assert isinstance(model.head, nn.Linear)
    near(model(ids(device)), before, rtol=1e-6)
    optimizer = mlgpu.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # the first step moves B alone: A's gradient is zero while B is
        model(ids(device)).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name
        assert "lora_" not in name or float(parameter.grad.abs().sum()) > 0, name
    for name, value in state.items():
        assert model.state_dict()[name].tolist() == value.tolist(), name
    assert float((model(ids(device)) - before).abs().max()) > 1e-3


@pytest.mark.parametrize("make", [encoder, mixed], ids=["encoder", "mixed"])
def test_weights_are_w_plus_scale_b_a(make):
    """Called or read by another module, merged or not: the same, and out again to the last bit."""
    x = ids() if make is mixed else mlgpu.randn(2, 5, 8)
    model, plain = make().eval(), make().eval()
    peft.add_lora(model, ["*"], rank=3, alpha=6)
    shaken(model)
    for name, module in plain.named_modules():
        adapted = model.get_submodule(name)
        for weight in ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight",
                       "v_proj_weight"):
            end = "" if weight == "weight" else f"_{weight}"
            if f"lora_A{end}" in adapted._parameters:
                own = module._parameters[weight]
                a, b = adapted._parameters[f"lora_A{end}"], adapted._parameters[f"lora_B{end}"]
                with mlgpu.no_grad():
                    own.add_((2 * (b @ a)).reshape(own.shape))
                near(getattr(adapted, weight), own)
    expected = plain(x)
    near(model(x), expected)
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    base = make().eval()(x)
    with peft.disabled(model):
        near(model(x), base, rtol=1e-6)
    peft.merge(model)
    near(model(x), expected)
    with pytest.raises(MlgpuError, match="merged"):
        model.state_dict()
    with pytest.raises(MlgpuError, match="merged"), peft.disabled(model):
        pass
    peft.unmerge(model)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == state


@pytest.mark.parametrize("merged", [True, False])
def test_a_plain_model_again(merged):
    x = mlgpu.randn(2, 5, 8)
    model = encoder().eval()
    before = model(x)
    peft.add_lora(model, ["linear*"])
    expected = shaken(model)(x) if merged else before
    peft.remove_lora(model, merged=merged)
    assert [type(m) for m in model.modules()] == [type(m) for m in encoder().modules()]
    assert list(model.state_dict()) == list(encoder().state_dict())
    near(model(x), expected)


def test_saving_adapters_only(tmp_path, device):
    model = mixed(device)
    peft.add_lora(model, ["conv", "head"], rank=2, rank_stabilized=True)
    peft.unfreeze(model, "*.bias")
    shaken(model)
    with mlgpu.no_grad():
        model.head.bias.add_(1)
    path = tmp_path / "adapters.safetensors"
    peft.save_adapters(model, path)
    assert path.stat().st_size < 4000
    fresh = mixed(device)
    assert peft.load_adapters(fresh, path) == ["conv", "head"]
    near(fresh(ids(device)), model(ids(device)), rtol=1e-6)
    assert model.head._lora.settings.scale == 2 / 2**0.5
    peft.load_adapters(fresh, path)  # into a model that has them
    other = mixed()
    peft.add_lora(other, ["head"], rank=3)
    with pytest.raises(FormatError, match="adapters of another kind"):
        peft.load_adapters(other, path)
    with pytest.raises(FormatError, match="no module 'conv'"):
        peft.load_adapters(encoder(), path)
    mlgpu.save({"weight": mlgpu.ones(1)}, path)
    with pytest.raises(FormatError, match="holds no adapters"):
        peft.load_adapters(mixed(), path)


def test_dropout_acts_in_training_on_what_goes_into_a():
    model = nn.Sequential(nn.Linear(64, 8))
    peft.add_lora(model, ["0"], rank=4, dropout=0.5)
    shaken(model)
    x = mlgpu.randn(1, 64)
    model.eval()
    fixed = model(x)
    near(model(x), fixed)
    model.train()
    dropped = model(x.expand(4000, 64))
    assert float(dropped.std(0).min()) > 0.1
    near((dropped.mean(0) - fixed[0]) / dropped.std(0) * 4000**0.5, mlgpu.zeros(8), atol=4.5)
    attention = nn.MultiheadAttention(8, 2)
    peft.add_lora(attention, ["out_proj"], dropout=0.5)
    with pytest.raises(MlgpuError, match="dropout cannot act"):
        attention(*[mlgpu.randn(2, 1, 8)] * 3)
    attention.eval()(*[mlgpu.randn(2, 1, 8)] * 3)


def test_a_linear_with_a_forward_of_its_own():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * nn.functional.linear(input, self.weight, self.bias)

    model, x = nn.Sequential(Doubled(4, 3)), mlgpu.randn(2, 4)
    base = model[0].weight.detach().clone()
    peft.add_lora(model, ["0"], rank=2)
    shaken(model)
    change = model[0].lora_B @ model[0].lora_A
    near(model(x), 2 * (x @ (base + change).T + model[0].bias))


def test_mistakes_are_named():
    pruned = nn.Sequential(nn.Linear(4, 4))
    nn.utils.prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    for change in (peft.add_lora, peft.quantize):
        with pytest.raises(MlgpuError, match="the weight of '0' is computed from something else"):
            change(pruned, ["0"])
    model = mixed()
    with pytest.raises(MlgpuError, match="no module that can be adapted matches 'heads'; there"):
        peft.add_lora(model, ["heads"])
    with pytest.raises(TypeError, match="put it in a list"):
        peft.add_lora(model, "head")
    with pytest.raises(ValueError, match="rank"):
        peft.add_lora(model, ["head"], rank=0)
    with pytest.raises(MlgpuError, match="'conv' is a Conv1d"):
        peft.add_lora(model, ["conv"], dropout=0.1)
    assert all(p.requires_grad for p in model.parameters())  # nothing was half done
    with pytest.raises(MlgpuError, match="no adapters"):
        peft.merge(model)
    peft.add_lora(model, ["head"])
    with pytest.raises(MlgpuError, match="adapted already"):
        peft.add_lora(model, ["head"])


def test_freezing_by_pattern():
    model = mixed()
    assert peft.freeze(model, "attend.*", "*.bias")[0] == "attend.q_proj_weight"
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["table.weight", "conv.weight", "back.weight", "head.weight"]
    assert peft.unfreeze(model, "head.bias") == ["head.bias"]
    peft.unfreeze(model)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(MlgpuError, match=r"freeze: no parameter matches 'tail\.\*'"):
        peft.freeze(model, "head.*", "tail.*")
    assert all(p.requires_grad for p in model.parameters())


def test_groups_by_pattern():
    model = mixed()
    peft.freeze(model, "table.*")
    groups = peft.param_groups(model, {"*.bias": {"weight_decay": 0.0}, "head.*": {"lr": 0.5},
                                       "table.*": {"lr": 9.0}})
    optimizer = mlgpu.optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    found = [(set(group["param_names"]), group["lr"], group["weight_decay"])
             for group in optimizer.param_groups]
    biases = {"attend.out_proj.bias", "conv.bias", "back.bias", "head.bias"}
    rest = {name for name, p in model.named_parameters() if p.requires_grad} - biases
    assert found == [(biases, 0.1, 0.0), ({"head.weight"}, 0.5, 0.2),
                     (rest - {"head.weight"}, 0.1, 0.2)]
    with pytest.raises(MlgpuError, match="no parameter matches 'nothing'"):
        peft.param_groups(model, {"nothing": {}})


# --- NF4 ------------------------------------------------------------------------------------------

PUBLISHED = [  # in the paper's appendix
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0]


def test_the_values_of_nf4():
    np.testing.assert_allclose(peft.nf4_values(), PUBLISHED, atol=2e-7)


@pytest.mark.parametrize("shape", [(64, 64), (7, 13)], ids=str)
def test_each_weight_is_the_nearest_value_times_its_blocks_scale(shape, device):
    model = nn.Sequential(nn.Linear(shape[1], shape[0]))
    with mlgpu.no_grad():
        model[0].weight.copy_(mlgpu.randn(*shape))
        model[0].weight[0] = 0
    before = model[0].weight.detach().cpu().numpy().copy()
    model.to(device)
    assert peft.quantize(model, ["0"], block=16) == ["0"]
    flat = np.zeros(-(-before.size // 16) * 16, np.float32)
    flat[:before.size] = before.ravel()
    blocks = flat.reshape(-1, 16)
    scales = np.abs(blocks).max(1, keepdims=True)
    options = scales[..., None] * peft.nf4_values()
    best = np.abs(blocks[..., None] - options).min(-1)
    whole = np.zeros_like(flat)
    whole[:before.size] = model[0].weight.cpu().numpy().ravel()
    np.testing.assert_allclose(np.abs(whole.reshape(-1, 16) - blocks), best, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == ["0.bias"]


def test_quantised_layers_compute_and_learn_as_their_values_do(device):
    mlgpu.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).to(device)
    peft.quantize(model, ["0"])
    plain = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).to(device)
    with mlgpu.no_grad():
        for name in ("weight", "bias"):
            getattr(plain[0], name).copy_(getattr(model[0], name))
            getattr(plain[2], name).copy_(getattr(model[2], name))
    x, other = (mlgpu.rand(3, 8, device=device, requires_grad=True) for _ in range(2))
    other.data.copy_(x.data)
    near(model(x), plain(other), rtol=1e-6)
    model(x).square().sum().backward()
    plain(other).square().sum().backward()
    near(x.grad, other.grad)
    near(model[0].bias.grad, plain[0].bias.grad)


def test_qlora_trains_saves_and_becomes_plain(tmp_path, device):
    def made():
        mlgpu.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8)).to(device)
        peft.quantize(model, ["0"])
        return model

    model = made()
    bits = 8 * sum(b.numel() * b.dtype.itemsize for b in model[0].buffers()
                   if b is not model[0].weight_values) / (16 * 64)
    assert bits == 4.5
    peft.add_lora(model, ["*"], rank=4)
    x, y = mlgpu.rand(16, 16, device=device), mlgpu.rand(16, 8, device=device)
    optimizer = mlgpu.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(12):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert float(model[0].lora_A.grad.abs().sum()) > 0
    expected = model(x)
    peft.save_adapters(model, tmp_path / "adapters")
    fresh = made()
    peft.load_adapters(fresh, tmp_path / "adapters")
    near(fresh(x), expected, rtol=1e-6)
    mlgpu.save(model.state_dict(), tmp_path / "all")
    other = made()
    peft.add_lora(other, ["*"], rank=4)
    other.load_state_dict(mlgpu.load(tmp_path / "all"))
    near(other(x), expected, rtol=1e-6)
    with pytest.raises(MlgpuError, match=r"'0' is quantised; dequantize\(model\) first"):
        peft.merge(model)
    near(model(x), expected, rtol=1e-6)
    assert peft.dequantize(model) == ["0"]
    near(model(x), expected, rtol=1e-6)
    peft.remove_lora(model)
    near(model(x), expected)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert type(model[0]) is nn.Linear


def test_layers_that_are_not_quantised():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(MlgpuError, match="no Linear matches '2'"):
        peft.quantize(model, ["2"])
    model[1].weight = model[0].weight
    with pytest.raises(MlgpuError, match="'0' is shared"):
        peft.quantize(model, ["0"])
    model[1] = nn.Linear(4, 4)
    peft.add_lora(model, ["1"])
    with pytest.raises(MlgpuError, match="'1' is quantised or adapted already"):
        peft.quantize(model, ["*"])
    assert type(model[0]) is nn.Linear
    with pytest.raises(ValueError, match="block must be even"):
        peft.quantize(model, ["0"], block=7)
