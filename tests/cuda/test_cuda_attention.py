"""Attention on CUDA devices where the op table has no rows: dropout, heads that no kernel takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu.nn import functional as F

CUDA = mlgpu.Device("cuda")


def both(function, *shapes, dtype="float32"):
    """Results and gradients on the CPU and on the device, from the same seed."""
    found = []
    for device in ("cpu", CUDA):
        rng = np.random.default_rng(0)
        inputs = [mlgpu.tensor(rng.standard_normal(s).astype(np.float32), device=device).to(
            getattr(mlgpu, dtype)).requires_grad_() for s in shapes]
        mlgpu.manual_seed(11)
        y = function(*inputs)
        y.float().square().sum().backward()
        found.append([t.detach().float().cpu().numpy()
                      for t in (y, *(x.grad for x in inputs))])
    return zip(*found, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dropout_drops_the_same(dtype):
    shapes = (2, 3, 7, 8), (2, 1, 9, 8), (2, 1, 9, 8)
    for host, device in both(lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, dropout_p=0.4, is_causal=True, enable_gqa=True), *shapes, dtype=dtype):
        limit = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(device, host, atol=limit * max(1, np.abs(host).max()))


def test_all_dropped():
    for _, device in both(lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, dropout_p=1.0), (5, 4), (6, 4), (6, 4)):
        assert not device.any()


def test_second_derivatives_drop_the_same():
    def function(q, k, v):
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)
        return mlgpu.autograd.grad(y.square().sum(), q, create_graph=True)[0]

    for host, device in both(function, (5, 4), (6, 4), (6, 4)):
        np.testing.assert_allclose(device, host, atol=1e-4 * max(1, np.abs(host).max()))


@pytest.mark.parametrize("shapes", [
    ((2, 3, 260), (2, 4, 260), (2, 4, 3)),  # wider than any kernel
    ((2, 3, 0), (2, 4, 0), (2, 4, 3)),  # every key alike
    ((2, 3, 4), (2, 5, 4), (2, 5, 0)),
    ((2, 2, 2, 2, 2, 3, 4), (2, 2, 2, 1, 2, 3, 4), (2, 2, 2, 2, 2, 3, 4))])
def test_what_kernels_do_not_take(shapes):
    for host, device in both(F.scaled_dot_product_attention, *shapes):
        np.testing.assert_allclose(device, host, atol=1e-4)


@pytest.mark.parametrize("width", [8, 260])  # with a kernel, without
def test_a_wrong_length_is_raised_when_waited_for(width):
    q = mlgpu.ones(2, 3, width, device=CUDA)
    F.scaled_dot_product_attention(q, q, q, key_lengths=mlgpu.tensor([3, 4], device=CUDA))
    with pytest.raises(mlgpu.PositionError, match=r"key_lengths has 4, .* between 0 and 3"):
        mlgpu.cuda.synchronize()
    with pytest.raises(mlgpu.PositionError, match="key_lengths has -1"):
        F.scaled_dot_product_attention(*(q.cpu(),) * 3, key_lengths=mlgpu.tensor([-1, 3]))


@pytest.mark.parametrize("width", [8, 260])
def test_what_lies_beyond_a_length_counts_for_nothing(width):
    lengths = mlgpu.tensor([3, 0])

    def function(q, k, v):
        there = (mlgpu.arange(5, device=q.device) < lengths.to(q.device)[:, None])[..., None]
        k, v = (x.where(there, math.nan) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, key_lengths=lengths.to(q.device),
                                              dropout_p=0.3)

    for host, device in both(function, (2, 4, width), (2, 5, width), (2, 5, width)):
        assert np.isfinite(host).all()
        np.testing.assert_allclose(device, host, atol=1e-4)


def test_lengths_are_read_when_a_graph_runs():
    q, k, v = (mlgpu.randn(2, 6, 8, device=CUDA) for _ in range(3))
    lengths = mlgpu.tensor([6, 2], device=CUDA)
    step = mlgpu.cuda.graph(lambda: F.scaled_dot_product_attention(q, k, v, key_lengths=lengths))
    for counts in ([6, 2], [1, 4], [0, 6]):
        lengths.copy_(mlgpu.tensor(counts, device=CUDA))
        expected = F.scaled_dot_product_attention(q.cpu(), k.cpu(), v.cpu(),
                                                  key_lengths=mlgpu.tensor(counts))
        np.testing.assert_allclose(step().cpu().numpy(), expected.numpy(), atol=1e-5)


def test_rows_that_are_apart():
    """The last dimension has a stride."""
    def function(q, k, v):
        return F.scaled_dot_product_attention(q.mT, k.mT, v[..., ::2])

    for host, device in both(function, (2, 8, 5), (2, 8, 7), (2, 7, 12)):
        np.testing.assert_allclose(device, host, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [2, 6])
def test_one_query(heads, dtype):
    """As when text is generated: the heads of a group are rows of one tile."""
    lengths = mlgpu.tensor([3, 530])

    def function(q, k, v):
        mask = lengths.to(q.device)[:, None, None, None] > mlgpu.arange(530, device=q.device)
        return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

    for host, device in both(function, (2, heads, 1, 8), (2, 2, 530, 8), (2, 2, 530, 8),
                             dtype=dtype):
        limit = 1e-5 if dtype == "float32" else 4e-2
        np.testing.assert_allclose(device, host, atol=limit * max(1, np.abs(host).max()))
