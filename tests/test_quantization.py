"""Fake quantisation: values and gradients as PyTorch's, exactly."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DerivativeError, DTypeError, ShapeError

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
