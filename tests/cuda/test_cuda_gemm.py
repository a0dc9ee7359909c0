"""Products on CUDA: how many kernels they take, what they choose by, how they go into graphs."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.backends import cuda as backend
from mlgpu.cuda import gemm
from mlgpu.cuda.launch import Kernel
from mlgpu.nn import functional


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that were launched."""
    names, start = [], Kernel.start

    def noted(self, *arguments, **options):
        names.append(self.expression.partition("<")[0])
        return start(self, *arguments, **options)

    monkeypatch.setattr(Kernel, "start", noted)
    return names


def on_device(*shape, requires_grad=True):
    values = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    return mlgpu.tensor(values, device="cuda", requires_grad=requires_grad)


def test_linear_takes_one_kernel_and_two_back(launched):
    x, w, b = on_device(2, 5, 3), on_device(4, 3), on_device(4)
    y = functional.linear(x, w, b)
    assert launched == ["gemm_simt"]
    dy = mlgpu.ones(2, 5, 4, device="cuda")
    launched.clear()
    mlgpu.autograd.grad([y], [x, w, b], [dy])
    assert launched == ["gemm_simt", "gemm_simt"]


def test_what_follows_linear_takes_no_kernel_of_its_own(launched):
    x, w, b, r = on_device(5, 3), on_device(4, 3), on_device(4), on_device(5, 4)
    y = functional.linear(x, w, b, activation="gelu", residual=r)
    assert launched == ["gemm_simt"]
    dy = mlgpu.ones(5, 4, device="cuda")
    launched.clear()
    mlgpu.autograd.grad([y], [x, w, b, r], [dy])
    assert launched == ["activation_backward", "gemm_simt", "gemm_simt"]


def test_transposed_and_expanded_operands_are_not_copied(launched):
    a, b = on_device(5, 3, requires_grad=False), on_device(4, 5, requires_grad=False)
    y = a.T @ b.T
    z = a[:1].expand(6, 3) @ a.T
    assert launched == ["gemm_simt"] * 2
    np.testing.assert_allclose(y.cpu().numpy(), a.cpu().numpy().T @ b.cpu().numpy().T, 1e-5, 1e-5)
    np.testing.assert_allclose(z.cpu().numpy()[3], a.cpu().numpy() @ a.cpu().numpy()[0], 1e-5, 1e-5)


def test_precision_of_float32():
    assert mlgpu.get_float32_matmul_precision() == "highest"
    a, b = on_device(8, 16, requires_grad=False), on_device(16, 8, requires_grad=False)
    exact = a.cpu().numpy().astype(np.float64) @ b.cpu().numpy()
    try:
        mlgpu.set_float32_matmul_precision("high")
        assert mlgpu.get_float32_matmul_precision() == "high"
        error = np.abs((a @ b).cpu().numpy() - exact).max()
    finally:
        mlgpu.set_float32_matmul_precision("highest")
    assert 1e-5 < error < 2e-2
    np.testing.assert_allclose((a @ b).cpu().numpy(), exact, 1e-5, 1e-5)
    with pytest.raises(mlgpu.errors.ShapeError, match="highest, high, medium"):
        mlgpu.set_float32_matmul_precision("low")


def test_the_library_does_plain_products_where_it_may(launched, monkeypatch):
    a, b = on_device(4, 3, requires_grad=False), on_device(3, 5, requires_grad=False)
    own = (a @ b).cpu().numpy()
    launched.clear()
    monkeypatch.setattr(backend, "gemm", "cublas")
    np.testing.assert_allclose((a @ b).cpu().numpy(), own, 1e-5, 1e-6)
    assert launched == []
    a @ b.T.contiguous().T  # no contiguous operand
    assert launched[-1:] == ["gemm_simt"]
    monkeypatch.setattr(backend, "gemm", "best")
    with pytest.raises(mlgpu.errors.ShapeError, match="'auto', 'own' or 'cublas'"):
        a @ b


def test_the_library_is_not_asked_while_a_graph_is_captured(launched, monkeypatch):
    monkeypatch.setattr(backend, "gemm", "cublas")
    a, b = on_device(4, 3, requires_grad=False), on_device(3, 5, requires_grad=False)
    expected = (a @ b).cpu().numpy()
    assert launched == []
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        y = a @ b
    assert launched == ["gemm_simt"]
    graph.replay()
    np.testing.assert_allclose(y.cpu().numpy(), expected, 1e-5, 1e-6)


@pytest.mark.parametrize("mode", ["RNN", "LSTM", "GRU"])
def test_a_recurrent_step_takes_at_most_two_kernels(launched, mode):
    layer = getattr(mlgpu.nn, mode)(3, 4).to("cuda")
    x = on_device(5, 2, 3, requires_grad=False)
    with mlgpu.no_grad():
        layer(x)
        launched.clear()
        layer(x)
    steps = [name for name in launched if name.startswith(("gemm", "rnn", "lstm", "gru"))]
    assert len(steps) == 1 + 5 * (1 if mode == "RNN" else 2)


def test_long_sums_of_few_tiles_are_cut():
    assert gemm._splits(1, 4096) == (16, 256)
    assert gemm._splits(256, 4096) == (1, 4096)
    assert gemm._splits(1, 300) == (1, 300)
    assert gemm._splits(50, 5000) == (2, 2560)
