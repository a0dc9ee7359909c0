"""Random numbers and dropout on CUDA: the CPU's from the same seed, and the same errors."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import CaptureError, ShapeError
from mlgpu.nn import functional as F

FLOATS = [mlgpu.float32, mlgpu.float64, mlgpu.float16, mlgpu.bfloat16]


def both(draw):
    """What a function of a device gives on the CPU and on CUDA, and where the generator ends."""
    results = []
    for device in ("cpu", "cuda"):
        mlgpu.manual_seed(42)
        result = draw(device)
        assert result.device.type == device
        results.append((result.cpu(), mlgpu.random.default_generator.get_state().tolist()))
    assert results[0][1] == results[1][1]
    return results[0][0], results[1][0]


def same(draw):
    expected, actual = both(draw)
    assert expected.dtype is actual.dtype
    np.testing.assert_array_equal(actual.numpy(), expected.numpy())


def near(draw, tolerance):
    expected, actual = (t.detach() for t in both(draw))
    expected, actual = (t.numpy() if t.is_complex() else t.to(mlgpu.float64).numpy()
                        for t in (expected, actual))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_the_same_numbers(dtype):
    def empty(device):
        return mlgpu.empty(70, 11, dtype=dtype, device=device)

    same(lambda d: mlgpu.rand(33, 5, dtype=dtype, device=d))
    same(lambda d: empty(d).uniform_(-2, 5))
    same(lambda d: empty(d).t().uniform_(-2, 5))
    same(lambda d: empty(d)[:, 1:9].uniform_())
    same(lambda d: empty(d).bernoulli_(0.3))
    same(lambda d: empty(d).random_(17))
    same(lambda d: mlgpu.bernoulli(mlgpu.linspace(0, 1, 80, dtype=dtype).to(d)))
    same(lambda d: mlgpu.poisson(mlgpu.linspace(0, 40, 300, dtype=dtype).to(d)))
    tolerance = {8: 1e-10, 4: 4e-6, 2: 2e-2}[dtype.itemsize]
    near(lambda d: mlgpu.randn(31, dtype=dtype, device=d), tolerance)
    near(lambda d: empty(d).normal_(3, 0.5), tolerance)
    near(lambda d: empty(d).exponential_(2.0), tolerance)
    near(lambda d: empty(d).cauchy_(), 10 * tolerance)
    near(lambda d: empty(d).geometric_(0.3), tolerance)
    near(lambda d: empty(d).log_normal_(0.5, 0.2), tolerance)
    near(lambda d: mlgpu.normal(mlgpu.arange(6, dtype=dtype).to(d), 2.0), 10 * tolerance)
    near(lambda d: mlgpu.normal(1.0, mlgpu.arange(6, dtype=dtype).to(d)), 10 * tolerance)


def test_the_same_integers_and_complex_numbers():
    same(lambda d: mlgpu.randint(-5, 9, (100,), device=d))
    same(lambda d: mlgpu.randint(-2**60, 2**62, (100,), device=d))
    same(lambda d: mlgpu.empty(100, dtype=mlgpu.bool, device=d).random_())
    same(lambda d: mlgpu.empty(100, dtype=mlgpu.uint8, device=d).random_())
    same(lambda d: mlgpu.empty(100, dtype=mlgpu.int64, device=d).random_(-2**63, None))
    same(lambda d: mlgpu.empty(100, dtype=mlgpu.int32, device=d).geometric_(0.01))
    same(lambda d: mlgpu.rand(7, 3, dtype=mlgpu.complex64, device=d))
    near(lambda d: mlgpu.randn(7, 3, dtype=mlgpu.complex128, device=d), 1e-10)
    same(lambda d: mlgpu.rand(0, 3, device=d))
    same(lambda d: mlgpu.rand((), device=d))


def test_multinomial():
    weights = mlgpu.rand(4, 37, generator=mlgpu.Generator().manual_seed(1))
    weights[:, 3:9] = 0
    same(lambda d: mlgpu.multinomial(weights.to(d), 50, replacement=True))
    same(lambda d: mlgpu.multinomial(weights[0].to(d), 5, replacement=True))


def test_permutations_and_draws_without_replacement():
    pytest.importorskip("mlgpu.cuda.sort")
    weights = mlgpu.rand(4, 37, generator=mlgpu.Generator().manual_seed(1))
    weights[:, 3:9] = 0
    same(lambda d: mlgpu.randperm(1000, device=d))
    same(lambda d: mlgpu.randperm(100, dtype=mlgpu.float32, device=d))
    same(lambda d: mlgpu.multinomial(weights.to(d), 37))


def test_errors_come_with_the_next_look():
    for draw, message in [
            (lambda: mlgpu.multinomial(mlgpu.zeros(3, device="cuda"), 2, True), "multinomial"),
            (lambda: mlgpu.poisson(-mlgpu.ones(3, device="cuda")), "poisson: expects rates"),
            (lambda: mlgpu.bernoulli(2 * mlgpu.ones(3, device="cuda")), "expects every p"),
            (lambda: mlgpu.normal(0.0, -mlgpu.ones(3, device="cuda")), "elements of std >= 0")]:
        draw()
        with pytest.raises(ShapeError, match=message):
            mlgpu.cuda.synchronize()


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
@pytest.mark.parametrize("call", [
    F.dropout, F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d, F.dropout2d],
    ids=lambda f: f.__name__)
def test_dropout_and_its_gradient(call, dtype):
    values = mlgpu.randn(3, 7, 40, dtype=dtype, generator=mlgpu.Generator().manual_seed(1))
    if call is F.dropout2d:
        values = values.reshape(3, 7, 8, 5)

    def forward(device):
        return call(values.to(device), 0.3, True)

    def gradient(device):
        x = values.to(device).clone().requires_grad_()
        y = call(x, 0.3, True)
        mlgpu.autograd.backward(y, mlgpu.ones_like(y) * 2)
        return x.grad

    same(forward)
    same(gradient)
    same(lambda d: call(values.to(d).transpose(0, 1), 0.3, True))
    if call is not F.feature_alpha_dropout:
        same(lambda d: call(values.to(d).clone(), 0.3, True, inplace=True))
        same(lambda d: call(values.to(d).clone().transpose(0, -1), 0.3, True, inplace=True)
             if call is F.dropout else call(values.to(d).clone(), 0.3, True, True))


def test_gumbel_softmax():
    logits = mlgpu.randn(4, 9, generator=mlgpu.Generator().manual_seed(1))
    near(lambda d: F.gumbel_softmax(logits.to(d), 0.5), 1e-4)


def test_replays_of_a_graph_draw_what_eager_calls_would():
    def draws(device):
        return [mlgpu.rand(700, device=device), F.dropout(mlgpu.ones(300, device=device), 0.5)]

    mlgpu.manual_seed(3)
    expected = [draws("cpu") for _ in range(4)]
    end = mlgpu.get_rng_state().tolist()
    mlgpu.manual_seed(3)
    draws("cuda")
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        x = mlgpu.ones(300, device="cuda").requires_grad_()
        x.sum().exp()  # whose memory is free again
        found = [mlgpu.rand(700, device="cuda"), F.dropout(x, 0.5)]
        gradient, = mlgpu.autograd.grad(found[1], x, mlgpu.ones_like(x), retain_graph=True)
    for turn in (1, 2):
        graph.replay()
        outside, = mlgpu.autograd.grad(found[1], x, mlgpu.ones_like(x), retain_graph=True)
        for actual, wanted in zip([*found, gradient, outside], [*expected[turn], expected[turn][1],
                                                               expected[turn][1]], strict=True):
            np.testing.assert_array_equal(actual.detach().cpu().numpy(), wanted.numpy())
    np.testing.assert_array_equal(draws("cuda")[1].cpu().numpy(), expected[3][1].numpy())
    assert mlgpu.get_rng_state().tolist() == end
    mlgpu.manual_seed(9)
    graph.replay()
    mlgpu.manual_seed(9)
    np.testing.assert_array_equal(found[0].cpu().numpy(), mlgpu.rand(700).numpy())


def test_a_seed_is_not_captured():
    mlgpu.rand(3, device="cuda")
    with mlgpu.cuda.graph(mlgpu.cuda.CUDAGraph()):
        mlgpu.rand(3, device="cuda")
        mlgpu.manual_seed(1)
        with pytest.raises(CaptureError, match="manual_seed"):
            mlgpu.rand(3, device="cuda")
