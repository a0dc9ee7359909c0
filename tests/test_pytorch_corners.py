"""Corners of PyTorch's own operator samples: what they do there, held without torch here."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DTypeError, PositionError, ShapeError
from mlgpu.nn import functional as F

N = mlgpu.int64

CORNERS = {
    "take 0-d": (lambda x: mlgpu.take(x, mlgpu.tensor(2)), 2.0),
    "index_copy 0-d": (lambda x: mlgpu.index_copy(x[0], 0, mlgpu.tensor([0]), x[3]), 3.0),
    "index_reduce 0-d": (lambda x: mlgpu.index_reduce(x[1], 0, mlgpu.tensor([0]), x[3], "prod"),
                         3.0),
    "take_along_dim from the end": (
        lambda x: mlgpu.take_along_dim(x, mlgpu.tensor([-1, 0]), 0), [5.0, 0.0]),
    "gather nothing": (lambda x: mlgpu.gather(x, 0, mlgpu.zeros(2, 0, dtype=mlgpu.uint8)),
                       np.zeros((2, 0))),
    "vander 0-d": (lambda x: mlgpu.linalg.vander(x[2], N=3), [[1.0, 2.0, 4.0]]),
    "pixel_shuffle empty": (lambda x: F.pixel_shuffle(x.new_ones(1, 0, 2, 2), 1),
                            np.zeros((1, 0, 2, 2))),
    "aminmax of no rows": (lambda x: mlgpu.aminmax(x.new_ones(2, 0), dim=0).min, np.zeros(0)),
    "heaviside of integers": (lambda x: mlgpu.heaviside(x.int() - 1, x.int()),
                              np.array([0, 1, 1, 1, 1, 1], np.int32)),
    "relu6 of integers": (lambda x: F.relu6(x.long() * 3), np.array([0, 3, 6, 6, 6, 6])),
    "sum_to_size of integers": (lambda x: x.int().sum_to_size(1), np.array([15])),
    "entr of bytes": (lambda x: mlgpu.special.entr(x.to(mlgpu.uint8)[:3]),
                      [0.0, 0.0, -2 * np.log(2)]),
    "angle of integers": (lambda x: mlgpu.angle(x.int() - 1)[:2], [np.pi, 0.0]),
    "linear_cross_entropy of probabilities": (
        lambda x: F.linear_cross_entropy(x[None], x.new_zeros(4, 6), x.new_full((1, 4), 0.25)),
        np.log(4.0)),
    "linear_cross_entropy of pixels": (
        lambda x: F.linear_cross_entropy(x[None], x.new_zeros(4, 2, 6),
                                         mlgpu.zeros(1, 2, dtype=N)), np.log(4.0)),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(device, name):
    call, expected = CORNERS[name]
    found = call(mlgpu.arange(6, dtype=mlgpu.float64))
    expected = np.asarray(expected)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected, rtol=1e-6)
    if expected.dtype.kind == "i":
        assert found.dtype.name == expected.dtype.name


def test_svd_gives_v(device):
    a = mlgpu.randn(4, 3, dtype=mlgpu.complex128)
    u, s, v = mlgpu.svd(a)
    np.testing.assert_allclose(((u * s) @ v.conj().mT).cpu().numpy(), a.cpu().numpy(), atol=1e-12)
    assert mlgpu.svd(a, some=False).U.shape == (4, 4)
    np.testing.assert_array_equal(mlgpu.svd(a, compute_uv=False).V.cpu().numpy(), np.zeros((3, 3)))


def test_nextafter_has_the_derivative_of_what_it_is_next_to(device):
    x = mlgpu.tensor([1.0, 2.0, 3.0], requires_grad=True)
    mlgpu.nextafter(x, mlgpu.tensor([2.0, 2.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]


REFUSED = {
    "linspace": (TypeError, "steps must be a whole number", lambda x: mlgpu.linspace(0, 1, 2.0)),
    "narrow": (ShapeError, "0-d tensor of integers",
               lambda x: mlgpu.narrow(x, 0, mlgpu.tensor(True), 1)),
    "rrelu": (ShapeError, "lower must not be above upper", lambda x: F.rrelu(x, 0.3, 0.1)),
    "masked_fill": (DTypeError, "does not fit", lambda x: mlgpu.masked_fill(
        x, x > 1, mlgpu.tensor(1j))),
    "unbind": (PositionError, "no dimension to unbind", lambda x: x[0].unbind()),
    "amax": (PositionError, "must have an element", lambda x: x[:0].amax()),
    "linear_cross_entropy": (ShapeError, "got \\(2, 1, 6\\) and \\(4, 2, 6\\)",
                             lambda x: F.linear_cross_entropy(
                                 x.new_ones(2, 1, 6), x.new_ones(4, 2, 6),
                                 mlgpu.zeros(2, 1, 2, dtype=N))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(device, name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call(mlgpu.arange(6.0))


def test_singular_values_that_repeat_have_a_gradient(device):
    """Their vectors have none: what takes the values alone must not ask for it."""
    for scale in (0.0, 2.0):
        x = (scale * mlgpu.eye(3, dtype=mlgpu.float64)).requires_grad_()
        mlgpu.linalg.norm(x, "nuc").backward()
        np.testing.assert_allclose(x.grad.cpu().numpy(), np.eye(3), atol=1e-12)


def test_attention_broadcasts_batches_of_other_ranks(device):
    q, kv = mlgpu.randn(4, 3, 8), mlgpu.randn(2, 4, 6, 8)
    found = F.scaled_dot_product_attention(q, kv, kv)
    expected = F.scaled_dot_product_attention(q.expand(2, 4, 3, 8), kv, kv)
    np.testing.assert_allclose(found.cpu().numpy(), expected.cpu().numpy(), atol=1e-6)
