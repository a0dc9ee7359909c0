"""Layers that PyTorch has not: what they compute, and that it is what their function does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

import mlgpu
from mlgpu import nn
from mlgpu.errors import ShapeError
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


@pytest.mark.parametrize(("call", "match"), [
    (lambda t: F.rnnt_loss(t(LOGITS[0]), t(LABELS), *map(t, LENGTHS)), "expected logits"),
    (lambda t: F.rnnt_loss(t(LOGITS), t(LABELS), *map(t, LENGTHS), blank=5), "blank"),
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
], ids=range(11))
def test_errors(call, match):
    with pytest.raises(ShapeError, match=match):
        call(lambda array: mlgpu.tensor(array, device="cpu"))
