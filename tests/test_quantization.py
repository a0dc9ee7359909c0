"""Quantisation: rounding and observers as PyTorch's, exactly; training with it, int8 weights."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, quantization
from mlgpu.errors import DerivativeError, DTypeError, MlgpuError, ShapeError

X = (3 * np.random.default_rng(0).standard_normal((5, 700))).astype(np.float32)
SCALES = np.array([0.1, 0.033, 0.5, 0.07, 1 / 3], np.float32)
ZEROS = np.array([0, 3, -4, 7, 1], np.int32)
WAYS = {
    "numbers": lambda lib, x, t: lib.fake_quantize_per_tensor_affine(x, 0.037, 3, 0, 31),
    "signed": lambda lib, x, t: lib.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7),
    "tensors": lambda lib, x, t: lib.fake_quantize_per_tensor_affine(
        x, t(SCALES[1:2]), t(ZEROS[1:2]), -128, 127),
    "channels": lambda lib, x, t: lib.fake_quantize_per_channel_affine(
        x, t(SCALES), t(ZEROS), 0, -8, 7),
}


@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_are_exactly_those_of_pytorch(way, device):
    torch = pytest.importorskip("torch")
    ours = mlgpu.tensor(X, device=device, requires_grad=True)
    theirs = torch.tensor(X, requires_grad=True)
    found = WAYS[way](mlgpu, ours, lambda a: mlgpu.tensor(a, device=device))
    expected = WAYS[way](torch, theirs, torch.from_numpy)
    np.testing.assert_array_equal(found.detach().cpu().numpy(), expected.detach().numpy())
    found.square().sum().backward()
    expected.square().sum().backward()
    np.testing.assert_array_equal(ours.grad.cpu().numpy(), theirs.grad.numpy())


def test_the_gradient_passes_straight_and_stops_where_values_are_cut(device):
    x = mlgpu.tensor([-9.0, -1.0, 0.2, 0.3, 1.7, 9.0, float("nan")], device=device,
                     requires_grad=True)
    y = mlgpu.fake_quantize_per_tensor_affine(x, 0.5, 1, -1, 4)
    np.testing.assert_array_equal(y.detach().cpu().numpy(), [-1, -1, 0, 0.5, 1.5, 1.5, np.nan])
    (y * mlgpu.arange(1.0, 8.0, device=device)).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0, 0]


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: mlgpu.fake_quantize_per_tensor_affine(x.long(), 1.0, 0, 0, 1), DTypeError,
     "must be floating"),
    (lambda x: mlgpu.fake_quantize_per_tensor_affine(x, 1.0, 0, 2, 1), ShapeError, "above"),
    (lambda x: mlgpu.fake_quantize_per_tensor_affine(x, 1.0, 9, 0, 7), ShapeError, "zero_point"),
    (lambda x: mlgpu.fake_quantize_per_tensor_affine(x, x[0, 0].requires_grad_(), 0, 0, 7),
     DerivativeError, "detach"),
    (lambda x: mlgpu.fake_quantize_per_channel_affine(x, x[0], x[0], 0, 0, 7), ShapeError,
     "must have the shape"),
    (lambda x: mlgpu.fake_quantize_per_channel_affine(x, x[0], x[0], 2, 0, 7), ShapeError,
     "axis 2"),
])
def test_what_cannot_be_quantised_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(mlgpu.ones(2, 3))


# --- observers ------------------------------------------------------------------------------------

OBSERVERS = ("MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver",
             "MovingAveragePerChannelMinMaxObserver")
BATCHES = [X[:, :50].reshape(5, 5, 10) + 2, X[:, 50:100].reshape(5, 5, 10), np.zeros((5, 5, 2))]


def peer(torch, name, dtype, symmetric, **options):
    from torch.ao.quantization import observer

    kind = f"per_{'channel' if 'PerChannel' in name else 'tensor'}"
    scheme = getattr(torch, f"{kind}_{'symmetric' if symmetric else 'affine'}")
    return getattr(observer, name), {"dtype": getattr(torch, dtype), "qscheme": scheme, **options}


@pytest.mark.filterwarnings("ignore:.*")  # PyTorch's, about what it will rename
@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", OBSERVERS)
def test_observers_find_the_scales_of_pytorch(name, dtype, symmetric, device):
    torch = pytest.importorskip("torch")
    kind, options = peer(torch, name, f"q{dtype}", symmetric)
    theirs = kind(**options)
    ours = getattr(quantization, name)(dtype=getattr(mlgpu, dtype), symmetric=symmetric)
    ours.to(device)
    for batch in BATCHES:
        x = batch.astype(np.float32)
        assert ours(mlgpu.tensor(x, device=device)).shape == x.shape
        theirs(torch.from_numpy(x))
        for found, expected in zip(ours.calculate_qparams(), theirs.calculate_qparams(),
                                   strict=True):
            np.testing.assert_allclose(found.cpu().numpy().reshape(-1),
                                       expected.numpy().reshape(-1), rtol=3e-7)
    twin = type(ours)(dtype=ours.dtype, symmetric=symmetric).to(device)
    twin.load_state_dict(ours.state_dict())
    assert twin.calculate_qparams()[0].tolist() == ours.calculate_qparams()[0].tolist()
    ours.reset_min_max_vals()
    with pytest.raises(MlgpuError, match="nothing has been observed"):
        ours.calculate_qparams()


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", OBSERVERS[1::2])
def test_fake_quantize_trains_as_pytorchs(name, device):
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import FakeQuantize

    kind, options = peer(torch, name, "qint8", True)
    theirs = FakeQuantize(kind, -7, 7, **options)
    ours = quantization.FakeQuantize(getattr(quantization, name), -7, 7, dtype=mlgpu.int8,
                                     symmetric=True).to(device)
    for batch in BATCHES[:2]:
        x = mlgpu.tensor(batch, device=device, dtype=mlgpu.float32, requires_grad=True)
        y = torch.tensor(batch, dtype=torch.float32, requires_grad=True)
        found, expected = ours(x), theirs(y)
        np.testing.assert_allclose(found.detach().cpu().numpy(), expected.detach().numpy(),
                                   rtol=1e-6)
        found.square().sum().backward()
        expected.square().sum().backward()
        np.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.numpy(), rtol=1e-6)


def test_fake_quantize_observes_in_training_only(device):
    module = quantization.FakeQuantize().to(device)
    x = mlgpu.tensor([-1.0, 0.0, 1.55], device=device)
    with pytest.raises(MlgpuError, match="nothing has been observed"):
        module.eval()(x)
    rounded = module.train()(x)
    np.testing.assert_allclose(rounded.tolist(), [-1, 0, 1.55], atol=0.005)
    module.eval()(100 * x)
    assert module.activation_post_process.max_val.item() == pytest.approx(1.55)
    module.train().disable_observer()
    assert module(100 * x).max().item() < 1.6
    module.disable_fake_quant()
    assert module(x) is x
    twin = quantization.FakeQuantize().to(device).eval()
    twin.load_state_dict(module.state_dict())
    assert twin(x).tolist() == rounded.tolist()


# --- models ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """Each kind of layer, and attention, whose projection is left alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1, groups=2)
        self.back = nn.ConvTranspose1d(4, 8, 2, stride=2)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.back(self.conv(x).relu()).transpose(1, 2)
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


def net(device):
    mlgpu.manual_seed(0)
    return Net().to(device)


@pytest.mark.parametrize("inputs", [True, False], ids=["inputs", "weights"])
def test_a_model_trains_and_converts_to_int8_with_the_same_outputs(inputs, device, tmp_path):
    model = net(device)
    weights, names = [model.conv.weight, model.head.weight], list(dict(model.named_parameters()))
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=3e-2)
    options = {"bits": 4, "inputs": inputs, "averaging_constant": 0.5}
    assert quantization.prepare_qat(model, ["*"], **options) == ["conv", "back", "head"]
    assert list(dict(model.named_parameters())) == names
    x = mlgpu.randn(4, 2, 4, device=device)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(x) - x.mean(2).sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(w.grad.abs().sum().item() > 0 for w in weights)
    for layer, dim in ((model.conv, 0), (model.back, 1), (model.head, 0)):
        for row in layer.weight.detach().cpu().numpy().swapaxes(0, dim):
            assert len(np.unique(row)) <= 15
    expected = model.eval()(x).detach()
    assert quantization.convert(model) == ["conv", "back", "head"]
    assert model(x).tolist() == expected.tolist()
    assert model.train()(x).tolist() == expected.tolist()  # ranges stay
    state = model.state_dict()
    assert state["head.weight_int8"].dtype is mlgpu.int8
    assert state["head.weight_int8"].abs().max().item() == 7
    assert "head.weight" not in state
    mlgpu.save(state, tmp_path / "int8.safetensors")
    twin = net(device)
    quantization.prepare_qat(twin, ["*"], **options)
    quantization.convert(twin)
    if inputs:
        with pytest.raises(MlgpuError, match="never observed"):
            twin(x)
    twin.load_state_dict(mlgpu.load(tmp_path / "int8.safetensors"))
    assert twin(x).tolist() == expected.tolist()


def test_what_cannot_be_prepared_or_converted_is_refused():
    model = net("cpu")
    with pytest.raises(MlgpuError, match="no Linear or convolution matches 'attend"):
        quantization.prepare_qat(model, ["attend.*"])
    with pytest.raises(ValueError, match="bits must be"):
        quantization.prepare_qat(model, ["*"], bits=9)
    with pytest.raises(MlgpuError, match="prepare_qat"):
        quantization.convert(model)
    nn.utils.prune.l1_unstructured(model.conv, "weight", 0.5)
    mlgpu.peft.add_lora(model, ["back"])
    quantization.prepare_qat(model, ["head"])
    with pytest.raises(MlgpuError, match="computed from something else"):
        mlgpu.peft.add_lora(model, ["head"])
    for name in ("conv", "back", "head"):
        with pytest.raises(MlgpuError, match="no plain parameter"):
            quantization.prepare_qat(model, [name])
    for name in ("back", "head"):
        with pytest.raises(MlgpuError, match="prune"):
            nn.utils.prune.identity(getattr(model, name), "weight")
