"""Clipping, parameters as a vector, padded sequences."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn
from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.nn import utils

GRADS = [np.array([3.0, -4.0]), np.array([[12.0], [0.0]]), np.array(2.0)]


def parameters(grads=GRADS, library=mlgpu):
    made = [library.zeros(grad.shape, dtype=library.float64, requires_grad=True)
            for grad in grads]
    for parameter, grad in zip(made, grads, strict=True):
        parameter.grad = library.tensor(grad)
    return [*made, library.zeros(3, requires_grad=True)]


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_grad_norm(order, limit):
    mine = parameters()
    total = utils.clip_grad_norm_(iter(mine), limit, order)
    norms = [np.linalg.norm(g.ravel(), order) for g in GRADS]
    assert total.item() == pytest.approx(np.linalg.norm(norms, order))
    scale = min(1.0, limit / (total.item() + 1e-6))
    for parameter, grad in zip(mine, GRADS, strict=False):
        np.testing.assert_allclose(parameter.grad.numpy(), grad * scale)
    torch = twin.torch()
    theirs = parameters(library=torch)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    twin.close([total, *(p.grad for p in mine)], [expected, *(p.grad for p in theirs)], 1e-12)


def test_clip_keeps_dtypes_and_memory():
    half, single = nn.Parameter(mlgpu.ones(2, dtype=mlgpu.float16)), nn.Parameter(mlgpu.ones(2))
    half.grad, single.grad = mlgpu.full((2,), 6.0, dtype=mlgpu.float16), mlgpu.full((2,), 8.0)
    grads = half.grad, single.grad
    utils.clip_grad_norm_([half, single], 1.0)
    assert (half.grad, single.grad) == grads
    assert half.grad.dtype is mlgpu.float16
    assert single.grad.tolist() == pytest.approx([8 / 200 ** 0.5] * 2, rel=1e-3)


def test_clip_single_none_and_nonfinite():
    parameter = nn.Parameter(mlgpu.ones(2))
    assert utils.clip_grad_norm_(parameter, 1.0).item() == 0
    parameter.grad = mlgpu.tensor([3.0, 4.0])
    assert utils.clip_grad_norm_(parameter, 1.0).item() == 5
    parameter.grad = mlgpu.tensor([math.inf, 4.0])
    with pytest.raises(MlgpuError, match="inf"):
        utils.clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True)
    assert parameter.grad.tolist() == [math.inf, 4.0]
    assert utils.clip_grad_norm_([parameter], 1.0).item() == math.inf


def test_clip_grad_value():
    mine = parameters()
    utils.clip_grad_value_(mine, 2.5)
    assert mine[0].grad.tolist() == [2.5, -2.5]
    assert mine[1].grad.tolist() == [[2.5], [0.0]]
    assert mine[2].grad.item() == 2


def test_total_norm_then_clip():
    mine = parameters()
    total = utils.get_total_norm([p.grad for p in mine if p.grad is not None])
    utils.clip_grads_with_norm_(mine, 1.0, total)
    assert utils.get_total_norm([p.grad for p in mine[:3]]).item() == pytest.approx(1, rel=1e-6)
    assert utils.get_total_norm([]).item() == 0


def test_vector_and_back():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (13,)
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_array_equal(vector.detach().numpy(), expected)
    (vector * vector).sum().backward()
    np.testing.assert_allclose(model[0].weight.grad.numpy(), 2 * model[0].weight.detach().numpy())
    kept = list(model.parameters())
    new = mlgpu.arange(13.0)
    utils.vector_to_parameters(new, model.parameters())
    assert list(model.parameters()) == kept
    assert model[0].weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert model[1].bias.item() == 12
    new.fill_(1)
    assert model[1].bias.item() == 1
    for wrong in (mlgpu.zeros(12), mlgpu.zeros(14), mlgpu.zeros(13, 1)):
        with pytest.raises(ShapeError, match=r"\(13,\)"):
            utils.vector_to_parameters(wrong, model.parameters())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_sequence(batch_first, side):
    arrays = [np.arange(1.0, 1 + 2 * n).reshape(n, 2) for n in (3, 1, 4)]
    sequences = [mlgpu.tensor(a, requires_grad=True) for a in arrays]
    padded = utils.rnn.pad_sequence(sequences, batch_first, -1.0, side)
    expected = np.full((3, 4, 2), -1.0)
    for row, array in zip(expected, arrays, strict=True):
        row[slice(len(array)) if side == "right" else slice(4 - len(array), None)] = array
    expected = expected if batch_first else expected.swapaxes(0, 1)
    np.testing.assert_array_equal(padded.detach().numpy(), expected)
    padded.sum().backward()
    assert all((s.grad == 1).all().item() for s in sequences)
    if side == "right":
        back = utils.rnn.unpad_sequence(padded, mlgpu.tensor([3, 1, 4]), batch_first)
        assert [s.tolist() for s in back] == [a.tolist() for a in arrays]


def test_pad_sequence_refuses():
    for sequences in ([], [mlgpu.ones(2, 3), mlgpu.ones(2, 4)], [mlgpu.tensor(1.0)]):
        with pytest.raises(ShapeError):
            utils.rnn.pad_sequence(sequences)
    with pytest.raises(ShapeError, match="padding_side"):
        utils.rnn.pad_sequence([mlgpu.ones(2)], padding_side="top")


# --- skip_init ------------------------------------------------------------------------------------


class Model(nn.Module):
    """Layers of each kind of initialisation, and a buffer and a scale of its own."""

    def __init__(self, features: int, device=None):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, 4, device=device), nn.BatchNorm1d(4, device=device),
            nn.PReLU(device=device), nn.Embedding(5, 4, padding_idx=1, device=device),
            nn.GRU(4, 2, device=device), nn.Conv1d(4, 3, 1, device=device))
        self.scale = nn.Parameter(mlgpu.full((2,), 7.0, device=device))
        for extra in (nn.init.orthogonal_, nn.init.eye_, nn.init.sparse_, nn.init.xavier_normal_):
            weight = nn.Parameter(mlgpu.full((3, 3), -1.0, device=device))
            if extra is nn.init.sparse_:
                extra(weight, 0.5)
            else:
                extra(weight)
            self.register_parameter(extra.__name__, weight)


def test_skip_init_draws_nothing_and_a_loaded_module_is_as_one_that_was_initialised(device):
    mlgpu.manual_seed(3)
    whole = Model(6, device=device)
    state = mlgpu.get_rng_state()
    made = utils.skip_init(Model, 6, device=device)
    assert (mlgpu.get_rng_state() == state).all()
    shapes = {name: (value.shape, value.dtype, value.device)
              for name, value in whole.state_dict().items()}
    assert shapes == {name: (value.shape, value.dtype, value.device)
                      for name, value in made.state_dict().items()}
    assert (made.scale == 7).all()
    assert (made.get_parameter("orthogonal_") == -1).all()
    assert (made.layers[1].running_var == 1).all()
    made.load_state_dict(whole.state_dict())
    for mine, theirs in zip(made.parameters(), whole.parameters(), strict=True):
        assert (mine == theirs).all()
        assert mine.requires_grad


def test_skip_init_ends_with_an_error_and_does_not_reach_other_threads():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            thread = threading.Thread(target=lambda: found.append(
                nn.init.ones_(mlgpu.zeros(2)).tolist()))
            thread.start()
            thread.join()
            raise RuntimeError("on purpose")

    found = []
    with pytest.raises(RuntimeError, match="on purpose"):
        utils.skip_init(Broken)
    assert found == [[1, 1]]
    assert nn.init.ones_(mlgpu.zeros(2)).tolist() == [1, 1]
    with pytest.raises(MlgpuError, match="skip_init: expected a class derived from Module"):
        utils.skip_init(nn.functional.linear, 3, 4)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "ConvTranspose2d", "Linear"])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_batch_norm(kind, bias):
    """One layer that does what it and the norm behind it did; and PyTorch's parameters."""
    mlgpu.manual_seed(0)
    size = () if kind == "Linear" else (3,)
    dims = 0 if kind == "Linear" else int(kind[-2])
    layer = getattr(nn, kind)(4, 6, *size, bias=bias).double()
    norm = getattr(nn, f"BatchNorm{max(dims, 1)}d")(6).double()
    x = mlgpu.tensor(np.random.default_rng(0).standard_normal((5, 4, 7, 6)[:2 + dims]))
    norm(layer(x))  # to have statistics
    for weight in norm.parameters():
        nn.init.uniform_(weight, 0.5, 2)
    with pytest.raises(MlgpuError, match="evaluation mode"):
        utils.fuse_conv_bn_eval(layer, norm)
    layer.eval()
    norm.eval()
    transpose = kind.startswith("ConvTranspose")
    fused = (utils.fuse_linear_bn_eval(layer, norm) if kind == "Linear" else
             utils.fuse_conv_bn_eval(layer, norm, transpose))
    np.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(),
                               rtol=1e-10, atol=1e-12)
    assert isinstance(fused.bias, nn.Parameter)
    torch = twin.torch()
    values = [None if v is None else v.detach().numpy() for v in (
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    weight, shift, mean, var, scale, move = [None if v is None else torch.tensor(v)
                                             for v in values]
    fusion = torch.nn.utils.fusion
    expected = (fusion.fuse_linear_bn_weights(weight, shift, mean, var, norm.eps, scale, move)
                if kind == "Linear" else fusion.fuse_conv_bn_weights(
                    weight, shift, mean, var, norm.eps, scale, move, transpose))
    for mine, theirs in zip((fused.weight, fused.bias), expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)


def test_what_cannot_be_fused():
    layer, norm = nn.Linear(2, 3).eval(), nn.BatchNorm1d(3, track_running_stats=False).eval()
    with pytest.raises(ShapeError, match="no running statistics"):
        utils.fuse_linear_bn_eval(layer, norm)
    with pytest.raises(ShapeError, match="2 features"):
        utils.fuse_linear_bn_eval(layer, nn.BatchNorm1d(2).eval())
