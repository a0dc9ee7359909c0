"""Dropout and Gumbel softmax: masks, scale, gradients of any order, dtypes, edges, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import twin
from hypothesis import given
from hypothesis import strategies as st

import mlgpu
from mlgpu import nn
from mlgpu.cpu.random import BLOCK
from mlgpu.nn import functional as F
from mlgpu.ops.dropout import feature_dropout

FORMS = {"dropout": F.dropout, "dropout1d": F.dropout1d, "dropout2d": F.dropout2d,
         "dropout3d": F.dropout3d, "alpha_dropout": F.alpha_dropout,
         "feature_dropout": feature_dropout, "feature_alpha_dropout": F.feature_alpha_dropout}
SHAPES = {"dropout1d": (3, 5, 4), "dropout3d": (3, 5, 2, 1, 3)}
FLOATS = [mlgpu.float16, mlgpu.bfloat16, mlgpu.float32, mlgpu.float64]

forms = pytest.mark.parametrize("name", FORMS)


def drop(name, x, p=0.4, seed=3, training=True, inplace=False):
    mlgpu.manual_seed(seed)
    return FORMS[name](x, p, training, inplace)


def sample(name, dtype=mlgpu.float64):
    shape = SHAPES.get(name, (3, 5, 4, 2))
    return mlgpu.tensor(np.random.default_rng(0).standard_normal(shape), dtype=dtype)


def selu_terms(p):
    """(scale, lift) as Klambauer et al. derive them, for a floor of -1.758."""
    floor = 1.7580993408473766
    scale = (1 - p + p * (1 - p) * floor ** 2) ** -0.5
    return scale, scale * floor


@pytest.mark.parametrize("shape", [(7,), (3, 5), (BLOCK + 3,), (5, BLOCK // 2)])
def test_mask_is_that_of_the_words(shape):
    y = drop("dropout", mlgpu.ones(*shape)).numpy()
    u = mlgpu.Generator().manual_seed(3).draw(-(-y.size // 2)).view("<u4")[:y.size]
    expected = np.where(u < 0.4 * 2**32, 0, np.float32(1 / 0.6))
    np.testing.assert_array_equal(y.reshape(-1), expected)


@forms
def test_channels_and_scale(name):
    x, p = sample(name), 0.4
    y, keep = drop(name, x).numpy(), drop("dropout", mlgpu.ones(200)).numpy() > 0
    channel = name not in ("dropout", "alpha_dropout")
    lead = x.shape[:2] if channel else x.shape
    keep = keep[:math.prod(lead)].reshape(*lead, *[1] * (x.ndim - len(lead)))
    if "alpha" in name:
        scale, lift = selu_terms(p)
        expected = scale * np.where(keep, x.numpy(), 0) + lift * (keep - 1 + p)
    else:
        expected = np.where(keep, x.numpy() / (1 - p), 0)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert 0 < keep.mean() < 1


def test_unbatched_channels():
    for name, shape in (("dropout1d", (50, 4)), ("dropout3d", (50, 2, 2, 3))):
        y = drop(name, mlgpu.ones(*shape)).numpy().reshape(50, -1)
        assert (y == y[:, :1]).all()
        assert 0 < (y[:, 0] > 0).mean() < 1


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_statistics(p):
    n = 400_000
    y = drop("dropout", mlgpu.ones(n), p).numpy()
    assert abs((y == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / n)
    x = mlgpu.randn(n, dtype=mlgpu.float64)
    z = drop("alpha_dropout", x, p).numpy()
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02


@forms
def test_gradient_by_finite_differences(name):
    x = sample(name).requires_grad_()
    weight = np.random.default_rng(1).standard_normal(x.shape)
    (drop(name, x) * mlgpu.tensor(weight)).sum().backward()
    step = 1e-6
    with mlgpu.no_grad():
        for index in np.ndindex(*x.shape):
            ends = []
            for sign in (1, -1):
                moved = x.detach().numpy().copy()
                moved[index] += sign * step
                ends.append((drop(name, mlgpu.tensor(moved)).numpy() * weight).sum())
            assert x.grad[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@forms
def test_second_derivative(name):
    x = sample(name).requires_grad_()
    y = drop(name, x ** 3)
    (first,) = mlgpu.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = mlgpu.autograd.grad(first.sum(), x)
    scale = drop(name, mlgpu.ones_like(x)) - drop(name, mlgpu.zeros_like(x))  # the kept: affine
    np.testing.assert_allclose(first.detach().numpy(), (scale * 3 * x ** 2).detach().numpy(),
                               rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(second.numpy(), (scale * 6 * x).detach().numpy(), rtol=1e-10,
                               atol=1e-10)


@forms
def test_in_place(name):
    x = sample(name)
    expected = drop(name, x)
    version = x._version
    assert drop(name, x, inplace=True) is x
    assert x._version == version + 1
    assert x.tolist() == expected.tolist()
    leaf = sample(name).requires_grad_()
    inner = leaf * 1
    drop(name, inner, inplace=True).sum().backward()
    other = sample(name).requires_grad_()
    drop(name, other).sum().backward()
    assert leaf.grad.tolist() == other.grad.tolist()
    with pytest.raises(mlgpu.GraphError, match="leaf"):
        drop(name, leaf, inplace=True)


@forms
def test_strides_do_not_show(name):
    x = sample(name)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert not turned.is_contiguous()
    assert drop(name, turned).tolist() == drop(name, x).tolist()
    assert drop(name, turned, inplace=True).tolist() == drop(name, x).tolist()


@forms
@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_dtypes(name, dtype):
    x = sample(name, dtype)
    y = drop(name, x)
    assert y.dtype is dtype
    expected = drop(name, x.double()).numpy()
    tolerance = 2 * mlgpu.finfo(dtype).eps
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=tolerance, atol=tolerance)
    x.requires_grad_()
    drop(name, x).sum().backward()
    assert x.grad.dtype is dtype


@forms
def test_edges_are_exact(name):
    x = sample(name)
    assert drop(name, x, 0.0) is x
    assert drop(name, x, training=False) is x
    assert drop(name, x, 1.0).tolist() == mlgpu.zeros_like(x).tolist()
    empty = mlgpu.empty(*(0, *x.shape[1:]))
    assert drop(name, empty) is empty
    y = x.clone().requires_grad_()
    drop(name, y, 1.0).sum().backward()
    assert not y.grad.any()
    ready = x.clone()
    assert drop(name, ready, 1.0, inplace=True) is ready
    assert not ready.any()


@forms
@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_wrong_probability(name, p):
    for training in (True, False):
        with pytest.raises(ValueError, match="between 0 and 1"):
            drop(name, sample(name), p, training=training)


@forms
def test_wrong_dtype(name):
    with pytest.raises(mlgpu.DTypeError, match="floating"):
        drop(name, sample(name, mlgpu.int64))


def test_wrong_shapes():
    for wrong in (lambda: F.dropout1d(mlgpu.ones(3)), lambda: F.dropout1d(mlgpu.ones(1, 1, 1, 1)),
                  lambda: feature_dropout(mlgpu.ones(3)),
                  lambda: F.feature_alpha_dropout(mlgpu.ones(3), 0.5, True)):
        with pytest.raises(RuntimeError, match="dimensions"):
            wrong()
    with pytest.warns(UserWarning, match="dropout2d"):
        assert F.dropout2d(mlgpu.ones(2, 3, 4)).shape == (2, 3, 4)
    with pytest.warns(UserWarning, match="dropout3d"):
        assert F.dropout3d(mlgpu.ones(2, 3, 4)).shape == (2, 3, 4)


def test_what_is_not_finite_spreads():
    assert np.isnan(drop("dropout", mlgpu.full((8,), math.nan)).numpy()).all()
    y = drop("dropout", mlgpu.full((200,), math.inf)).numpy()
    assert set(map(str, y.tolist())) == {"nan", "inf"}


def test_package_functions_take_train_by_position():
    x = mlgpu.ones(4, 5, 6)
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"):
        function = getattr(mlgpu, name)
        assert function(x, 0.5, False) is x
        assert function(x, 0.5, True) is not x


@given(st.floats(0, 1), st.integers(0, 40))
def test_any_probability(p, n):
    x = mlgpu.ones(n, dtype=mlgpu.float64)
    y = F.dropout(x, p).numpy()
    assert all(v == 0 or v == pytest.approx(1 / (1 - p)) for v in y)


def test_nothing_is_kept_for_backward():
    x = mlgpu.rand(1000, requires_grad=True)
    before = mlgpu.memory.stats().allocated
    y = F.dropout(x, 0.5)
    assert mlgpu.memory.stats().allocated - before == 4000
    y.sum().backward()
    assert (x.grad.numpy() == y.detach().numpy() / x.detach().numpy()).mean() > 0.4


def test_checkpoint_drops_the_same():
    from mlgpu.utils.checkpoint import checkpoint

    x = mlgpu.rand(100, requires_grad=True)
    y = checkpoint(lambda t: F.dropout(t * t, 0.5).exp(), x)
    y.sum().backward()
    dropped = y.detach().numpy() == 1
    assert (x.grad.numpy()[dropped] == 0).all()
    assert (x.grad.numpy()[~dropped] != 0).all()


def test_modules_draw_anew_each_time():
    layer, x = nn.Dropout(0.5), mlgpu.ones(100)
    assert layer(x).tolist() != layer(x).tolist()


# --- Gumbel softmax -------------------------------------------------------------------------------


def test_gumbel_softmax_is_in_proportion():
    mlgpu.manual_seed(0)
    share = np.array([0.1, 0.2, 0.7])
    logits = mlgpu.tensor(np.log(share)).expand(50_000, 3)
    for dim, given_logits in ((-1, logits), (0, logits.t())):
        drawn = F.gumbel_softmax(given_logits, tau=0.5, hard=True, dim=dim).numpy()
        drawn = drawn if dim else drawn.T
        np.testing.assert_allclose(drawn.sum(1), 1, rtol=1e-12)
        np.testing.assert_allclose(drawn.mean(0), share, atol=0.01)
        assert ((abs(drawn) < 1e-12) | (abs(drawn - 1) < 1e-12)).all()


def test_gumbel_softmax_gradients():
    def run(hard):
        mlgpu.manual_seed(1)
        logits = mlgpu.tensor(np.random.default_rng(0).standard_normal((4, 5)), requires_grad=True)
        y = F.gumbel_softmax(logits, tau=0.7, hard=hard)
        (y * mlgpu.arange(5)).sum().backward()
        return y.detach().numpy(), logits.grad.numpy()

    (soft, gradient), (hard, straight) = run(False), run(True)
    np.testing.assert_array_equal(soft.argmax(1), hard.argmax(1))
    np.testing.assert_allclose(straight, gradient)
    centred = np.arange(5) - (soft * np.arange(5)).sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, soft * centred / 0.7)
    with pytest.warns(UserWarning, match="eps"):
        F.gumbel_softmax(mlgpu.zeros(3), eps=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_gumbel_softmax_dtypes(dtype):
    y = F.gumbel_softmax(mlgpu.zeros(1000, 3, dtype=dtype))
    assert y.dtype is dtype
    assert np.isfinite(y.double().numpy()).all()


# --- against PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FORMS if n != "feature_dropout"])
def test_as_in_pytorch_but_for_the_mask(name):
    torch = twin.torch()
    x = sample(name).numpy()
    for p in (0.0, 0.3, 1.0):
        for training in (True, False):
            theirs = getattr(torch.nn.functional, name)(torch.tensor(x), p, training).numpy()
            mine = drop(name, mlgpu.tensor(x), p, training=training).numpy()
            one = mlgpu.zeros(*x.shape)
            both = np.isclose(mine, theirs, rtol=1e-12)
            if p in (0.0, 1.0) or not training:
                assert both.all()
                continue
            # Kept elements are the same function of x, dropped ones the same constant.
            floor = drop(name, one.double(), p).min().item()
            kept_mine, kept_theirs = mine - floor > 1e-9, theirs - floor > 1e-9
            kept_mine |= mine - floor < -1e-9
            kept_theirs |= theirs - floor < -1e-9
            assert both[kept_mine & kept_theirs].all()
            assert both[~kept_mine & ~kept_theirs].all()
