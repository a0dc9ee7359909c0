"""Layers that PyTorch has not, caches of attention: what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

import mlgpu
import mlgpu.cpu.deform_conv
import mlgpu.cuda.deform_conv
from mlgpu import nn
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.nn import functional as F

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 6, 4))
SIGNS = np.where(RNG.random((6, 4)) < 0.5, -1.0, 1.0)
BITS = (SIGNS > 0).astype(float)
LOGITS, LABELS = RNG.standard_normal((2, 4, 3, 5)), np.array([[1, 3], [0, 2]])
LENGTHS = np.array([4, 3]), np.array([2, 1])

# name: (the layer, its inputs, the function it calls)
CALLS = {
    "HingeLoss": (nn.HingeLoss(0.5, True), (X, SIGNS),
                  lambda x, t: F.hinge_loss(x, t, 0.5, True)),
    "ContrastiveLoss": (nn.ContrastiveLoss(2.0, "sum"), (X, Y, BITS[:, 0]),
                        lambda *x: F.contrastive_loss(*x, 2.0, "sum")),
    "InfoNCELoss": (nn.InfoNCELoss(0.3), (X, Y), lambda *x: F.info_nce_loss(*x, 0.3)),
    "LpLoss": (nn.LpLoss(3.0, "none"), (X, Y), lambda *x: F.lp_loss(*x, 3.0, "none")),
    "GramMatrixLoss": (nn.GramMatrixLoss(), (X[None], Y[None]), F.gram_matrix_loss),
    "RNNTLoss": (nn.RNNTLoss(blank=4, reduction="sum"), (LOGITS, LABELS, *LENGTHS),
                 lambda *x: F.rnnt_loss(*x, blank=4, reduction="sum")),
    "SigmoidFocalLoss": (nn.SigmoidFocalLoss(0.3, 1.0), (X, BITS),
                         lambda *x: F.sigmoid_focal_loss(*x, 0.3, 1.0, "mean")),
    "ReLUSquared": (nn.ReLUSquared(), (X,), F.relu_squared),
    "ThresholdedReLU": (nn.ThresholdedReLU(0.2), (X,), lambda x: F.thresholded_relu(x, 0.2)),
    "Shrink": (nn.Shrink(0.3, 0.1), (X,), lambda x: F.shrink(x, 0.3, 0.1)),
    "QuietSoftmax": (nn.QuietSoftmax(0), (X,), lambda x: F.quiet_softmax(x, 0)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name, device):
    layer, arrays, function = CALLS[name]
    inputs = [mlgpu.tensor(a) for a in arrays]
    assert layer(*inputs).tolist() == function(*inputs).tolist()
    assert repr(layer).startswith(f"{name}(")


def test_swiglu(device):
    layer = nn.SwiGLU(4, 3, bias=True).double()
    found = layer(mlgpu.tensor(X))
    gate, value = np.split(X @ layer.linear.weight.detach().cpu().numpy().T
                           + layer.linear.bias.detach().cpu().numpy(), 2, 1)
    np.testing.assert_allclose(found.detach().cpu().numpy(), gate * special.expit(gate) * value)


def test_noise(device):
    mlgpu.manual_seed(0)
    layer, x = nn.GaussianNoise(0.5), mlgpu.zeros(20_000)
    drawn = layer(x)
    assert drawn.mean().item() == pytest.approx(0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)
    assert layer.eval()(x) is x
    with pytest.raises(ShapeError, match="std"):
        nn.GaussianNoise(-1)


def test_rrelu(device):
    layer, x = nn.RReLU(0.1, 0.3), mlgpu.tensor([-1.0, 2.0] * 2000)
    drawn = layer(x)
    assert drawn[1::2].tolist() == [2.0] * 2000
    slopes = -drawn[::2]
    assert 0.1 <= slopes.min().item() < slopes.max().item() <= 0.3
    assert layer.eval()(x)[:2].tolist() == pytest.approx([-0.2, 2.0])


def test_adaptive_softmax(device):
    layer = nn.AdaptiveLogSoftmaxWithLoss(6, 9, [3, 5], div_value=2.0).double()
    x = mlgpu.tensor(RNG.standard_normal((50, 6)) * 4)
    logs = layer.log_prob(x)
    np.testing.assert_allclose(logs.exp().sum(1).detach().cpu().numpy(), 1)
    assert layer.predict(x).tolist() == logs.argmax(1).tolist()
    assert layer(x[0], mlgpu.tensor(7)).output.item() == pytest.approx(logs[0, 7].item())
    with pytest.raises(ShapeError, match="below 9"):
        layer(x, mlgpu.full((50,), 9))
    with pytest.raises(ShapeError, match="cutoffs"):
        nn.AdaptiveLogSoftmaxWithLoss(6, 9, [5, 3])


def test_clamped_transducer(device):
    """Each sequence's own gradient is confined, before the reduction scales it."""
    inputs = [mlgpu.tensor(LABELS), *map(mlgpu.tensor, LENGTHS)]
    found = []
    for clamp in (-1, 0.1):
        logits = mlgpu.tensor(LOGITS).requires_grad_()
        F.rnnt_loss(logits, *inputs, clamp=clamp, reduction="mean").backward()
        found.append(logits.grad.cpu().numpy() * 2)
    np.testing.assert_allclose(found[1], np.clip(found[0], -0.1, 0.1), rtol=1e-12)
    assert np.abs(found[0]).max() > 0.1


def test_a_long_transducer(device):
    """Logarithms of hundreds lose no digits of the gradient: each cell's is a share of the next."""
    logits = RNG.standard_normal((1, 60, 9, 20)) * 3
    rest = [mlgpu.tensor(a) for a in (RNG.integers(0, 19, (1, 8)), [60], [8])]
    found = []
    for dtype in (mlgpu.float32, mlgpu.float64):
        x = mlgpu.tensor(logits, dtype=dtype).requires_grad_()
        loss = F.rnnt_loss(x, *rest)
        assert loss.item() > 200
        found.append(mlgpu.autograd.grad([loss], [x])[0].cpu().numpy())
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_transducers_that_nothing_can_read(device):
    """An impossible target's loss is infinite; a class that none needs may be."""
    logits = LOGITS.copy()
    logits[0, ..., 1], logits[1, ..., 3] = -np.inf, -np.inf  # the first target has the label 1
    logits[1, 3] = np.nan  # beyond the frames of the second
    logits = mlgpu.tensor(logits).requires_grad_()
    losses = F.rnnt_loss(logits, mlgpu.tensor(LABELS), *map(mlgpu.tensor, LENGTHS),
                         reduction="none")
    losses.backward(mlgpu.ones(2, dtype=mlgpu.float64))
    first, second = losses.tolist()
    assert first == np.inf
    assert np.isfinite(second)
    found = logits.grad.cpu().numpy()
    assert np.isnan(found[0, :, :, 0]).all()
    assert np.isfinite(found[1]).all()
    assert not found[1, 3].any()


# --- positions, experts, deformable convolution ---------------------------------------------------


def test_sinusoids(device):
    layer = nn.SinusoidalPositionalEncoding(6, max_len=20)
    x = RNG.standard_normal((2, 5, 6))
    found = layer(mlgpu.tensor(x), offset=3)
    for token, column in np.ndindex(5, 6):
        angle = (token + 3) / 10000 ** (column // 2 * 2 / 6)
        wave = np.sin(angle) if column % 2 == 0 else np.cos(angle)
        np.testing.assert_allclose(found[:, token, column].cpu().numpy(),
                                   x[:, token, column] + wave, rtol=1e-6, atol=1e-7)
    assert "pe" not in layer.state_dict()


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved, device):
    """Complex numbers turned by their angles; scores depend on distances alone."""
    layer = nn.RotaryPositionalEmbedding(4, interleaved=interleaved)
    x = RNG.standard_normal((2, 3, 5, 6))
    found = layer(mlgpu.tensor(x), offset=100_000).cpu().numpy()
    pairs = [(0, 1), (2, 3)] if interleaved else [(0, 2), (1, 3)]
    for i, (u, v) in enumerate(pairs):
        angles = np.arange(100_000, 100_005) * 10000.0 ** (-2 * i / 4)
        turned = (x[..., u] + 1j * x[..., v]) * np.exp(1j * angles)
        np.testing.assert_allclose(found[..., u] + 1j * found[..., v], turned, rtol=1e-9)
    np.testing.assert_array_equal(found[..., 4:], x[..., 4:])
    each = mlgpu.tensor([[7, 8, 9, 10, 11], [0, 1, 2, 3, 4]])[:, None]
    both = layer(mlgpu.tensor(x), positions=each)
    np.testing.assert_allclose(both[0].cpu().numpy(),
                               layer(mlgpu.tensor(x[0]), offset=7).cpu().numpy())


@pytest.mark.parametrize("normalize", [False, True])
def test_experts(normalize, device):
    """Against every token by itself, and all gradients with the naive sum of all experts."""
    mlgpu.manual_seed(0)
    layer = nn.MixtureOfExperts(4, 5, lambda: nn.Linear(4, 4), top_k=2, normalize=normalize
                                ).double()
    x = mlgpu.tensor(RNG.standard_normal((3, 7, 4))).requires_grad_()
    output, balance = layer(x)
    shares = layer.gate(x).softmax(-1)
    kept = shares * (shares >= shares.topk(2, -1).values[..., 1:])
    if normalize:
        kept = kept / kept.sum(-1, keepdim=True)
    naive = sum(expert(x) * kept[..., i:i + 1] for i, expert in enumerate(layer.experts))
    np.testing.assert_allclose(output.detach().cpu().numpy(), naive.detach().cpu().numpy(),
                               rtol=1e-12)
    load = (kept > 0).to(mlgpu.float64).mean((0, 1))
    assert balance.item() == pytest.approx((load * shares.mean((0, 1))).sum().item() * 5 / 2)
    weights = [x, *layer.parameters()]
    for found, expected in zip(mlgpu.autograd.grad((output ** 2).sum(), weights),
                               mlgpu.autograd.grad((naive ** 2).sum(), weights), strict=True):
        np.testing.assert_allclose(found.cpu().numpy(), expected.cpu().numpy(), atol=1e-12)


def test_feed_forward(device):
    layer = nn.PositionWiseFeedForward(4, 8, 0.5, F.relu).double().eval()
    x = mlgpu.tensor(X)
    expected = layer.linear2(F.relu(layer.linear1(x)))
    assert layer(x).tolist() == expected.tolist()
    layer.train()
    assert layer(x).tolist() != expected.tolist()


def test_deform_conv(device):
    """Without offsets it is a convolution; an offset of one element is a shift."""
    layer = nn.DeformConv2d(4, 6, (2, 3), stride=2, padding=1, groups=2).double()
    x = mlgpu.tensor(RNG.standard_normal((2, 4, 7, 8)))
    plain = F.conv2d(x, layer.weight, layer.bias, 2, 1, groups=2)
    offset = mlgpu.zeros(2, 2 * 6, *plain.shape[2:], dtype=mlgpu.float64)
    np.testing.assert_allclose(layer(x, offset).detach().cpu().numpy(),
                               plain.detach().cpu().numpy(), rtol=1e-12)
    offset[:, ::2] = 1
    shifted = F.pad(x, (0, 0, 0, 1))[:, :, 1:]
    inner = F.conv2d(shifted, layer.weight, layer.bias, 2, 1, groups=2)[:, :, 1:]
    np.testing.assert_allclose(layer(x, offset)[:, :, 1:].detach().cpu().numpy(),
                               inner.detach().cpu().numpy(), rtol=1e-12)
    assert repr(layer) == ("DeformConv2d(4, 6, kernel_size=(2, 3), stride=2, padding=1, "
                           "groups=2)")


def test_deform_conv_in_blocks(monkeypatch, device):
    """Whether columns are made at once or for some places or images at a time; forever the same."""
    arrays = [RNG.standard_normal(shape) for shape in (
        (3, 4, 5, 6), (3, 16, 4, 5), (4, 2, 2, 2), (4,), (3, 8, 4, 5))]
    upstream = mlgpu.tensor(RNG.standard_normal((3, 4, 4, 5)))

    def gradients(block, chunk):
        monkeypatch.setattr(mlgpu.cpu.deform_conv, "BLOCK", block)
        monkeypatch.setattr(mlgpu.cuda.deform_conv, "CHUNK", chunk)
        x, offset, weight, bias, mask = leaves = [
            mlgpu.tensor(a).requires_grad_() for a in arrays]
        y = F.deform_conv2d(x, offset, weight, bias, mask=mask)
        return [t.detach().cpu().numpy() for t in (
            y, *mlgpu.autograd.grad([y], leaves, [upstream]))]

    whole = gradients(1 << 17, 64 << 20)
    for found, again, expected in zip(gradients(30, 1), gradients(30, 1), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(found, again)


def test_what_is_needed_of_a_deform_conv(device):
    """One gradient alone is that among all; those of weight and mask differentiate again."""
    arrays = [RNG.standard_normal(shape) for shape in (
        (1, 2, 3, 3), (1, 8, 2, 2), (2, 2, 2, 2), (2,), (1, 4, 2, 2))]

    def run(wanted):
        x, offset, weight, bias, mask = leaves = [
            mlgpu.tensor(a).requires_grad_(i in wanted) for i, a in enumerate(arrays)]
        y = F.deform_conv2d(x, offset, weight, bias, mask=mask)
        return (y ** 2).sum(), [leaves[i] for i in wanted]

    loss, leaves = run(range(5))
    together = mlgpu.autograd.grad([loss], leaves)
    for i in range(5):
        loss, leaf = run([i])
        np.testing.assert_allclose(mlgpu.autograd.grad([loss], leaf)[0].cpu().numpy(),
                                   together[i].cpu().numpy(), rtol=1e-12)
    loss, leaves = run([2, 4])
    first = mlgpu.autograd.grad([loss], leaves, create_graph=True)
    second = mlgpu.autograd.grad([first[0].sum() + first[1].sum()], leaves)
    loss, moved = run([2, 4])
    with mlgpu.no_grad():
        for leaf in moved:
            leaf += 1e-6
    y = F.deform_conv2d(*(mlgpu.tensor(a) for a in arrays[:2]), moved[0], mlgpu.tensor(arrays[3]),
                        mask=moved[1])
    after = mlgpu.autograd.grad([(y ** 2).sum()], moved)
    for found, before, then in zip(second, first, after, strict=True):
        np.testing.assert_allclose(found.cpu().numpy(), ((then - before) / 1e-6).detach().cpu(),
                                   rtol=1e-4, atol=1e-4)


# --- caches ---------------------------------------------------------------------------------------


def tokens(*sizes):
    """Keys and values of parts of one text, and all of it."""
    parts = [(RNG.standard_normal((2, 3, n, 4)), RNG.standard_normal((2, 3, n, 5))) for n in sizes]
    return parts, [np.concatenate(x, 2) for x in zip(*parts, strict=True)]


def test_growing_cache(device):
    cache = nn.KVCache()
    parts, whole = tokens(3, 1, 1, 5)
    for _ in range(2):
        for part in parts:
            found = cache.append(*map(mlgpu.tensor, part))
        for kept, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(kept.cpu().numpy(), expected)
        cache.reset()
    cache.append(*map(mlgpu.tensor, whole))
    cache.truncate(4)
    key, _ = cache.append(*map(mlgpu.tensor, parts[1]))
    np.testing.assert_array_equal(key.cpu().numpy(),
                                  np.concatenate([whole[0][:, :, :4], parts[1][0]], 2))


def test_rotating_cache(device):
    """What each query of a sliding window sees, whatever the parts."""
    cache = nn.RotatingKVCache(4)
    parts, whole = tokens(2, 1, 1, 1, 6, 1, 2)
    seen = 0
    for part in parts:
        found = cache.append(*map(mlgpu.tensor, part))
        start, seen = max(0, seen - 3), seen + part[0].shape[2]
        for kept, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(kept.cpu().numpy(), expected[:, :, start:seen])
    cache.reset()
    assert cache.append(*map(mlgpu.tensor, parts[0]))[0].shape[2] == 2


def test_scattered_cache(device):
    cache = nn.ScatteredKVCache(3, 2, 6, 4, dtype=mlgpu.float64)
    first, second = RNG.standard_normal((2, 3, 2, 3, 4))
    cache.append(mlgpu.tensor(first), mlgpu.tensor(-first))
    cache.free([1])
    cache.append(mlgpu.tensor(second[:2]), mlgpu.tensor(-second[:2]), rows=[1, 2])
    assert cache.lengths.tolist() == [3, 3, 6]
    key, value = cache.append(mlgpu.tensor(second[2:]), mlgpu.tensor(-second[2:]), rows=[0])
    rows = [np.concatenate([first[0], second[2]], 1), second[0],
            np.concatenate([first[2], second[1]], 1)]
    for row, expected in enumerate(rows):
        np.testing.assert_array_equal(key[row, :, :expected.shape[1]].cpu().numpy(), expected)
        np.testing.assert_array_equal(value[row, :, :expected.shape[1]].cpu().numpy(), -expected)
    query = mlgpu.tensor(RNG.standard_normal((3, 2, 1, 4)))
    found = F.scaled_dot_product_attention(query, key, value, key_lengths=cache.lengths)
    alone = F.scaled_dot_product_attention(query[1:2], key[1:2, :, :3], value[1:2, :, :3])
    np.testing.assert_allclose(found[1].cpu().numpy(), alone[0].cpu().numpy(), rtol=1e-10)
    with pytest.raises(ShapeError, match="row 0 has 6 of 6 tokens"):
        cache.append(mlgpu.tensor(second), mlgpu.tensor(second))


@pytest.mark.parametrize(("images", "outputs"), [(0, 4), (2, 0)])
def test_a_deform_conv_of_nothing(images, outputs, device):
    x, offset, weight = (mlgpu.ones(shape, requires_grad=True) for shape in (
        (images, 4, 5, 5), (images, 18, 3, 3), (outputs, 4, 3, 3)))
    y = F.deform_conv2d(x, offset, weight)
    assert y.shape == (images, outputs, 3, 3)
    y.sum().backward()
    for leaf in (x, offset, weight):
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any().item()


def test_deform_conv_takes_one_dtype():
    x, offset, weight = (mlgpu.zeros(shape, dtype=mlgpu.float64) for shape in (
        (1, 1, 4, 4), (1, 8, 3, 3), (1, 1, 2, 2)))
    with pytest.raises(DTypeError, match="offset must have the input's dtype float64"):
        F.deform_conv2d(x, offset.float(), weight)
    with pytest.raises(DTypeError, match="must be floating"):
        F.deform_conv2d(x.long(), offset, weight)


@pytest.mark.parametrize(("call", "match"), [
    (lambda t: F.rnnt_loss(t(LOGITS[0]), t(LABELS), *map(t, LENGTHS)), "expected logits"),
    (lambda t: F.rnnt_loss(t(LOGITS), t(LABELS), *map(t, LENGTHS), blank=5), "blank"),
    (lambda t: F.rnnt_loss(t(LOGITS[:, :0]), t(LABELS), *map(t, LENGTHS)), "must have frames"),
    (lambda t: F.rnnt_loss(t(LOGITS), t(LABELS), t(np.array([5, 3])), t(LENGTHS[1])), "between 1"),
    (lambda t: F.hinge_loss(t(X), t(X[0])), "one shape"),
    (lambda t: F.contrastive_loss(t(X), t(Y), t(X)), "target must be"),
    (lambda t: F.lp_loss(t(X), t(Y), p=0), "positive"),
    (lambda t: F.gram_matrix(t(X)), "expected"),
    (lambda t: F.swiglu(t(X[:, :3])), "even"),
    (lambda t: F.deform_conv2d(t(X), t(X), t(X)), "4 dimensions"),
    (lambda t: F.deform_conv2d(t(X[None, None]), t(np.zeros((1, 8, 5, 4))),
                               t(np.zeros((1, 1, 2, 2)))), "offset must be"),
    (lambda t: F.deform_conv2d(t(X[None, None]), t(np.zeros((1, 8, 5, 3))),
                               t(np.zeros((1, 1, 2, 2))), mask=t(X)), "mask must be"),
    (lambda t: F.deform_conv2d(t(np.zeros((1, 1, 0, 4))), t(np.zeros((1, 8, 5, 3))),
                               t(np.zeros((1, 1, 2, 2)))), "only the batch"),
    (lambda t: F.max_unpool2d(t(X), t(X), 2), "3 or 4 dimensions"),
    (lambda t: F.max_unpool1d(t(X), t(np.zeros((6, 4), int)), 2, output_size=(11,)), "less than"),
    (lambda t: nn.SinusoidalPositionalEncoding(5), "even"),
    (lambda t: nn.SinusoidalPositionalEncoding(4, 5)(t(X), 1), "at most 5 positions"),
    (lambda t: nn.RotaryPositionalEmbedding(3), "even"),
    (lambda t: nn.MixtureOfExperts(4, 2, nn.Identity, top_k=3), "top_k"),
    (lambda t: nn.MixtureOfExperts(4, 2, nn.Identity)(t(X[:, :3])), "expected"),
    (lambda t: nn.DeformConv2d(3, 4, 2, groups=2), "groups must divide"),
    (lambda t: nn.PositionWiseFeedForward(4, 8, 2.0), "probability"),
    (lambda t: nn.KVCache().append(t(X), t(X)), "expected keys"),
    (lambda t: nn.KVCache().truncate(1), "at most 0"),
    (lambda t: nn.RotatingKVCache(0), "window"),
    (lambda t: nn.ScatteredKVCache(2, 3, 4, 4).append(t(X[None, None]), t(X[None, None])),
     "expected keys"),
], ids=range(26))
def test_errors(call, match):
    with pytest.raises(ShapeError, match=match):
        call(lambda array: mlgpu.tensor(array, device="cpu"))
