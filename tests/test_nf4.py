"""Products with weights in NF4: against the weights made whole, in blocks, with little memory."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mlgpu
import mlgpu.cpu.nf4
import mlgpu.cuda.nf4
from mlgpu import memory, nn, peft
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.testing import gradgradcheck


def layer(rows, columns, device="cpu", dtype=mlgpu.float32, **options):
    mlgpu.manual_seed(0)
    model = nn.Sequential(nn.Linear(columns, rows, bias=False, device=device).to(dtype))
    peft.quantize(model, ["0"], **options)
    return model[0]


def errors(module, m, dtype, device):
    """Of the product and of its gradient, against float64, relative to the largest."""
    rng = np.random.default_rng(1)
    rows, columns = module.weight.shape
    weight = module.weight.cpu().double().numpy()
    x = mlgpu.tensor(rng.standard_normal((2, m, columns)), device=device).to(dtype)
    dy = mlgpu.tensor(rng.standard_normal((2, m, rows)), device=device).to(dtype)
    x.requires_grad_()
    y = module(x)
    dx, = mlgpu.autograd.grad([y], [x], [dy])
    pairs = ((y, x.detach().cpu().double().numpy() @ weight.T),
             (dx, dy.cpu().double().numpy() @ weight))
    return [np.abs(found.detach().cpu().double().numpy() - expected).max()
            / np.abs(expected).max() for found, expected in pairs]


@pytest.mark.parametrize(("shape", "m", "dtype", "options"), [
    ((40, 64), 1, "float32", {"double_quant": True}), ((7, 13), 3, "float64", {"block": 16}),
    ((24, 32), 4, "bfloat16", {"block": 6})], ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_products(monkeypatch, device, shape, m, dtype, options, whole):
    if not whole:  # a few rows at a time, which begin within blocks
        monkeypatch.setattr(mlgpu.cpu.nf4, "BLOCK", 20)
        monkeypatch.setattr(mlgpu.cuda.nf4, "SLAB", 600)
    dtype = getattr(mlgpu, dtype)
    module = layer(*shape, device, dtype, **options)
    assert max(errors(module, m, dtype, device)) < {8: 1e-6, 4: 1e-6, 2: 1e-2}[dtype.itemsize]


def test_scales_in_8_bits_are_those_of_the_paper():
    """Differences from the mean in units for 256; 4.127 bits a weight, and hardly more error."""
    module, plain = layer(256, 256, double_quant=True), layer(256, 256)
    bits = 8 * sum(b.nbytes for b in module.buffers() if b is not module.weight_values) / 256**2
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)
    codes = module.weight_scales.numpy().view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    found = codes * np.repeat(module.weight_scale_units.numpy(), 256) + (
        module.weight_scale_mean.item())
    scales = plain.weight_scales.numpy()
    spread = np.abs(scales - scales.mean()).max()
    assert np.abs(found - scales).max() < spread / 16
    mlgpu.manual_seed(0)
    weight = nn.Linear(256, 256, bias=False, device="cpu").weight.detach()
    lost = [(m.weight - weight).square().mean().item() for m in (module, plain)]
    assert lost[0] < 1.02 * lost[1]


def test_state_makes_the_same_weights(tmp_path, device):
    module, other = (layer(20, 30, device, block=10, double_quant=True) for _ in range(2))
    expected = module.weight
    mlgpu.save(module.state_dict(), tmp_path / "state")
    for buffer in other.buffers():
        if buffer is not other.weight_values:
            buffer.zero_()
    assert (other.weight != expected).any().item()
    other.load_state_dict(mlgpu.load(tmp_path / "state"))
    assert (other.weight == expected).all().item()
    model = nn.Sequential(other)
    assert peft.dequantize(model) == ["0"]
    assert type(model[0]) is nn.Linear
    assert list(model[0].state_dict()) == ["weight"]
    assert (model[0].weight == expected).all().item()


def test_derivatives_of_any_order(device):
    module = layer(3, 4, device, mlgpu.float64, block=2)
    x = mlgpu.rand(1, 4, dtype=mlgpu.float64, device=device, requires_grad=True)
    assert gradgradcheck(lambda x: module(x) ** 2, (x,))


def test_autocast_lowers_the_input(device):
    module = layer(16, 32, device)
    with mlgpu.amp.autocast(device.partition(":")[0], dtype=mlgpu.bfloat16):
        assert module(mlgpu.rand(2, 32, device=device)).dtype is mlgpu.bfloat16


def test_a_block_of_the_weight_is_all_that_is_made():
    """2048 x 2048 weights are 16 MB; forward and backward take a block of them and two tensors."""
    module = layer(2048, 2048)
    x = mlgpu.rand(4, 2048, device="cpu", requires_grad=True)
    memory.reset_peak("cpu")
    before = memory.stats("cpu").allocated
    module(x).sum().backward()
    assert memory.stats("cpu").peak - before < 5 << 20


def test_wrong_inputs():
    module = layer(8, 4, block=2)
    with pytest.raises(ShapeError, match=r"input must be \(..., 4\)"):
        module(mlgpu.rand(3, 5, device="cpu"))
    with pytest.raises(DTypeError, match="input must be floating"):
        module(mlgpu.ones(3, 4, dtype=mlgpu.int64, device="cpu"))
