"""Self-attention in one piece is the attention of its three parts, derivatives included."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.nn import functional as F
from mlgpu.ops.packed_attention import packed_attention
from mlgpu.testing import gradcheck, gradgradcheck

N, L, HEADS, SIZE = 2, 5, 2, 3


def inputs(device, batch_first, dtype=mlgpu.float64):
    mlgpu.manual_seed(0)
    packed = mlgpu.randn(N, L, 3 * HEADS * SIZE, dtype=dtype)
    packed = packed if batch_first else packed.transpose(0, 1).contiguous()
    return packed.to(device).detach().requires_grad_()


def apart(packed, mask, dropout, causal, batch_first):
    """The same from three tensors."""
    def heads(x):
        x = x.unflatten(-1, (HEADS, SIZE))
        return x.permute(0, 2, 1, 3) if batch_first else x.permute(1, 2, 0, 3)

    q, k, v = map(heads, packed.chunk(3, -1))
    y = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
    return (y.permute(0, 2, 1, 3) if batch_first else y.permute(2, 0, 1, 3)).flatten(2)


MASKS = {
    "none": lambda device: None,
    "bool": lambda device: (mlgpu.arange(L, device=device).unsqueeze(0)
                            <= mlgpu.arange(L, device=device).unsqueeze(1) + 1),
    "added": lambda device: mlgpu.linspace(-1, 1, N * HEADS * L * L, dtype=mlgpu.float64,
                                           device=device).reshape(N, HEADS, L, L),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("mask", "causal"), [("none", False), ("none", True), ("bool", False),
                                              ("added", False)])
def test_in_one_piece(mask, causal, dropout, batch_first, device):
    with mlgpu.Device(device):
        hidden = MASKS[mask](device)
        results = []
        for form in (lambda p, m: packed_attention(p, HEADS, m, dropout, causal, batch_first),
                     lambda p, m: apart(p, m, dropout, causal, batch_first)):
            packed = inputs(device, batch_first)
            given = (hidden.clone().requires_grad_() if mask == "added" else hidden)
            mlgpu.manual_seed(3)
            y = form(packed, given)
            y.backward(mlgpu.linspace(-1, 1, y.numel(), dtype=mlgpu.float64).reshape(y.shape))
            results.append([y, packed.grad, *([given.grad] if mask == "added" else [])])
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours.detach().cpu().numpy(), theirs.detach().cpu().numpy(),
                                       rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch_first", [False, True])
def test_derivatives(batch_first):
    def attention(packed, mask):
        return packed_attention(packed, HEADS, mask, 0.0, False, batch_first)

    arguments = (inputs("cpu", batch_first), MASKS["added"]("cpu").requires_grad_())
    assert gradcheck(attention, arguments)
    assert gradgradcheck(attention, arguments)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_layer_is_the_function(batch_first, masked, device):
    """nn.MultiheadAttention of one tensor, without weights, against the general function."""
    with mlgpu.Device(device):
        mlgpu.manual_seed(1)
        layer = nn.MultiheadAttention(6, 2, batch_first=batch_first, dtype=mlgpu.float64)
        x = mlgpu.randn(N, L, 6, dtype=mlgpu.float64)
        added = mlgpu.randn(N, L, 6, dtype=mlgpu.float64)
        options = {}
        if masked:
            future = mlgpu.full((L, L), -math.inf, dtype=mlgpu.float64).triu(1)
            padding = mlgpu.tensor([[False] * L, [False] * (L - 2) + [True] * 2])
            options = {"attn_mask": future, "key_padding_mask": padding}
        if not batch_first:
            x, added = x.transpose(0, 1).contiguous(), added.transpose(0, 1).contiguous()
        ours, weights = layer(x, x, x, need_weights=False, residual=added, **options)
        theirs, shown = layer(x, x, x, need_weights=True, **options)
        assert weights is None
        assert shown is not None
        np.testing.assert_allclose((ours - added).detach().cpu().numpy(),
                                   theirs.detach().cpu().numpy(), rtol=1e-9, atol=1e-11)
