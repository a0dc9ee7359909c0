"""MultiheadAttention and the transformer layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn

L, S, N, E = 5, 4, 2, 6
CAUSAL = np.triu(np.ones((L, L), bool), 1)
PADDING = np.array([[False] * L, [False, False, False, True, True]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def attention(m, q, k, v, allowed=None):
    """From the definition; q (l, n, e), k and v (s, n, e), allowed (l, s); also the weights."""
    weights = np.split(m.in_proj_weight.detach().numpy(), 3)
    biases = np.split(m.in_proj_bias.detach().numpy(), 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases, strict=True))
    heads, size = m.num_heads, m.head_dim
    q, k, v = (x.reshape(len(x), N, heads, size).transpose(1, 2, 0, 3) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(size)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    y = (p @ v).transpose(2, 0, 1, 3).reshape(-1, N, heads * size)
    return y @ m.out_proj.weight.detach().numpy().T + m.out_proj.bias.detach().numpy(), p


@pytest.mark.parametrize("allowed", [None, np.arange(L)[:, None] >= np.arange(S)])
@pytest.mark.parametrize("need_weights", [True, False])
def test_definition(allowed, need_weights):
    mlgpu.manual_seed(0)
    m = nn.MultiheadAttention(E, 3).double()
    with mlgpu.no_grad():
        m.in_proj_bias.normal_()
    q, k, v = normal(L, N, E), normal(S, N, E, seed=1), normal(S, N, E, seed=2)
    mask = None if allowed is None else mlgpu.tensor(~allowed)
    y, weights = m(*map(mlgpu.tensor, (q, k, v)), attn_mask=mask, need_weights=need_weights)
    expected, p = attention(m, q, k, v, allowed)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    if need_weights:
        np.testing.assert_allclose(weights.detach().numpy(), p.mean(1), rtol=1e-9, atol=1e-12)
    else:
        assert weights is None


MODULES = [{}, {"bias": False}, {"batch_first": True}, {"add_bias_kv": True},
           {"add_zero_attn": True}, {"kdim": 4}, {"kdim": 3, "vdim": 5, "batch_first": True},
           {"add_bias_kv": True, "add_zero_attn": True, "bias": False}]
CALLS = [{}, {"need_weights": False}, {"average_attn_weights": False}]


@pytest.mark.parametrize("options", MODULES, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_equals_pytorch(options, call):
    mine, theirs = twin.twins("MultiheadAttention", E, 3, **options)
    swap = (lambda a: a.swapaxes(0, 1).copy()) if options.get("batch_first") else (lambda a: a)
    key = swap(normal(S, N, options.get("kdim", E), seed=1))
    value = swap(normal(S, N, options.get("vdim", E), seed=2))
    twin.compare(mine, theirs, swap(normal(L, N, E)), key, value, **call)


@pytest.mark.parametrize("masks", [
    {"attn_mask": CAUSAL}, {"attn_mask": normal(L, L)}, {"key_padding_mask": PADDING},
    {"attn_mask": normal(N * 3, L, L)}, {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    {"attn_mask": CAUSAL, "is_causal": True}, {"key_padding_mask": np.where(PADDING, -9.0, 0.0)},
], ids=lambda masks: "-".join(masks))
@pytest.mark.parametrize("need_weights", [True, False])
def test_masks(masks, need_weights):
    torch = twin.torch()
    mine, theirs = twin.twins("MultiheadAttention", E, 3, batch_first=True)
    x = normal(N, L, E)
    flag = {k: v for k, v in masks.items() if k == "is_causal"}
    masks = {k: v for k, v in masks.items() if k != "is_causal"}
    ours, other = mlgpu.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    found, weights = mine(ours, ours, ours, need_weights=need_weights, **flag,
                          **{k: mlgpu.tensor(v) for k, v in masks.items()})
    expected, their_weights = theirs(other, other, other, need_weights=need_weights, **flag,
                                     **{k: torch.tensor(v) for k, v in masks.items()})
    twin.close([found, weights], [expected, their_weights], 1e-10)
    found.sum().backward()
    expected.sum().backward()
    twin.close([ours.grad, *(p.grad for p in mine.parameters())],
               [other.grad, *(p.grad for p in theirs.parameters())], 1e-10)


def test_without_batch():
    mine, theirs = twin.twins("MultiheadAttention", E, 3)
    twin.compare(mine, theirs, normal(L, E), normal(S, E), normal(S, E))


def test_dropout_only_in_training():
    mlgpu.manual_seed(0)
    m = nn.MultiheadAttention(E, 3, dropout=0.5)
    x = mlgpu.tensor(normal(L, N, E), dtype=mlgpu.float32)
    assert m(x, x, x)[0].tolist() != m(x, x, x)[0].tolist()
    m.eval()
    assert m(x, x, x)[0].tolist() == m(x, x, x)[0].tolist()


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights_do_not_depend_on_blocks(causal):
    """More queries and heads than are computed at a time; rows begin within a word."""
    shape = (2, 3, 131, 137)
    q, k, v = (mlgpu.tensor(normal(*shape[:2], n, 4)).requires_grad_() for n in (131, 137, 137))
    mlgpu.manual_seed(3)
    y = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.3, is_causal=causal)
    found = [y, *mlgpu.autograd.grad(y.square().sum(), (q, k, v))]

    mlgpu.manual_seed(3)
    kept = nn.functional.dropout(mlgpu.ones(shape), 0.3).double()
    scores = q @ k.mT / 2
    if causal:
        scores = scores.masked_fill(~mlgpu.ones(131, 137).tril().bool(), -math.inf)
    y = (scores.softmax(-1) * kept) @ v
    for x, exact in zip(found, [y, *mlgpu.autograd.grad(y.square().sum(), (q, k, v))],
                        strict=True):
        np.testing.assert_allclose(x.detach().numpy(), exact.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(("embed_dim", "num_heads"), [(6, 4), (0, 1), (6, 0)])
def test_heads_must_divide(embed_dim, num_heads):
    with pytest.raises(ValueError, match="divide"):
        nn.MultiheadAttention(embed_dim, num_heads)


LAYERS = [{}, {"norm_first": True}, {"activation": "gelu", "batch_first": True},
          {"bias": False, "norm_first": True}, {"layer_norm_eps": 0.1}]


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_encoder_layer(options, masked):
    torch = twin.torch()
    mine, theirs = twin.twins("TransformerEncoderLayer", E, 3, 8, 0.0, **options)
    x = normal(*((N, L) if options.get("batch_first") else (L, N)), E)
    ours, other = twin.leaves([x])
    masks = {"src_mask": CAUSAL, "src_key_padding_mask": PADDING} if masked else {}
    found = mine(*ours, **{k: mlgpu.tensor(v) for k, v in masks.items()})
    expected = theirs(*other, **{k: torch.tensor(v) for k, v in masks.items()})
    found.square().sum().backward()
    expected.square().sum().backward()
    twin.close([found, ours[0].grad, *(p.grad for p in mine.parameters())],
               [expected, other[0].grad, *(p.grad for p in theirs.parameters())], 1e-9)


def test_encoder_layer_from_its_parts():
    """The post-norm layer written out with its own modules."""
    mlgpu.manual_seed(0)
    layer = nn.TransformerEncoderLayer(E, 3, 8, 0.0).double()
    x = mlgpu.tensor(normal(L, N, E))
    attended, _ = attention(layer.self_attn, *(x.numpy(),) * 3)
    middle = layer.norm1(x + mlgpu.tensor(attended))
    expected = layer.norm2(middle + layer.linear2(layer.linear1(middle).relu()))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_decoder_layer(options):
    mine, theirs = twin.twins("TransformerDecoderLayer", E, 3, 8, 0.0, **options)
    batch_first = options.get("batch_first")
    twin.compare(mine, theirs, normal(*((N, L) if batch_first else (L, N)), E),
                 normal(*((N, S) if batch_first else (S, N)), E, seed=1), tolerance=1e-9)


def stack(nn, decoder):
    kind = "Decoder" if decoder else "Encoder"
    layer = getattr(nn, f"Transformer{kind}Layer")(E, 3, 8, 0.0, batch_first=True)
    nested = {} if decoder else {"enable_nested_tensor": False}
    stack = {"Encoder": nn.TransformerEncoder, "Decoder": nn.TransformerDecoder}[kind]
    return stack(layer, 2, nn.LayerNorm(E), **nested).double()


@pytest.mark.parametrize("decoder", [False, True])
def test_stack(decoder):
    torch = twin.torch()
    mine, theirs = stack(nn, decoder), stack(torch.nn, decoder)
    twin.copy_weights(theirs, mine)
    assert len({id(p) for p in mine.parameters()}) == len(list(theirs.parameters()))
    assert repr(mine) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    inputs = [normal(N, L, E), normal(N, S, E, seed=1)][:1 + decoder]
    twin.compare(mine, theirs, *inputs, tolerance=1e-9)


def test_stack_is_its_layers():
    mlgpu.manual_seed(0)
    encoder = stack(nn, False)
    x = mlgpu.tensor(normal(N, L, E))
    mask = mlgpu.tensor(CAUSAL)
    expected = x
    for layer in encoder.layers:
        expected = layer(expected, mask)
    expected = encoder.norm(expected)
    assert encoder(x, mask).tolist() == expected.tolist()


def test_unknown_activation():
    with pytest.raises(ValueError, match="activation"):
        nn.TransformerEncoderLayer(E, 3, activation="step")
    layer = nn.TransformerEncoderLayer(E, 3, 8, 0.0, activation=mlgpu.tanh)
    assert layer(mlgpu.ones(L, N, E)).shape == (L, N, E)


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer(options):
    """Encoder and decoder together, with all masks."""
    torch = twin.torch()
    mine, theirs = twin.twins("Transformer", E, 3, 1, 1, 8, 0.0, **options)
    shape = (N, L, E) if options.get("batch_first") else (L, N, E)
    ours, other = twin.leaves([normal(*shape), normal(*shape)])
    masks = {"src_mask": CAUSAL, "tgt_mask": CAUSAL, "memory_mask": CAUSAL,
             "src_key_padding_mask": PADDING, "tgt_key_padding_mask": PADDING,
             "memory_key_padding_mask": PADDING}
    found = mine(*ours, **{k: mlgpu.tensor(v) for k, v in masks.items()})
    expected = theirs(*other, **{k: torch.tensor(v) for k, v in masks.items()})
    found.square().sum().backward()
    expected.square().sum().backward()
    twin.close([found, *(x.grad for x in ours), *(p.grad for p in mine.parameters())],
               [expected, *(x.grad for x in other), *(p.grad for p in theirs.parameters())], 1e-9)
    assert mlgpu.equal(mine.generate_square_subsequent_mask(3).exp(), mlgpu.ones(3, 3).tril())


def test_transformer_refuses_what_does_not_go_together():
    model = nn.Transformer(4, 2, 1, 1, 8)
    for src, tgt in (((3, 2, 4), (3, 1, 4)), ((3, 2, 5), (3, 2, 4)), ((3, 4), (3, 2, 4))):
        with pytest.raises(mlgpu.ShapeError, match="d_model=4"):
            model(mlgpu.zeros(src), mlgpu.zeros(tgt))
