"""Linear algebra and transforms on CUDA: errors, captures, and what the table leaves out."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import CaptureError, DeviceError, LinAlgError

CUDA = "cuda"


def on_both(values):
    host = mlgpu.tensor(values)
    return host, host.to(CUDA)


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


FAULTY = np.stack([np.eye(3)] * 4).reshape(2, 2, 3, 3)
FAULTY[1, 0, 1] = 0
INFINITE = np.stack([np.eye(3)] * 2)
INFINITE[1, 0, 2] = np.inf

CASES = {
    "inv": (mlgpu.linalg.inv, np.zeros((2, 2))),
    "inv-batch": (mlgpu.linalg.inv, FAULTY),
    "solve": (lambda a: mlgpu.linalg.solve(a, a), np.ones((2, 2))),
    "lu": (mlgpu.linalg.lu_factor, FAULTY),
    "ldl": (mlgpu.linalg.ldl_factor, np.zeros((2, 2))),
    "solve-batch": (lambda a: mlgpu.linalg.solve(a, a[0]), FAULTY),
    "cholesky": (mlgpu.linalg.cholesky, -np.eye(2)),
    "cholesky-batch": (mlgpu.linalg.cholesky, FAULTY),
    "triangular": (lambda a: mlgpu.linalg.solve_triangular(a, a, upper=True), np.ones((2, 2)) - 1),
    "triangular-batch": (lambda a: mlgpu.linalg.solve_triangular(a, a, upper=False), FAULTY),
    "svd": (mlgpu.linalg.svd, INFINITE),
    "svdvals": (mlgpu.linalg.svdvals, INFINITE),
    "eigh": (mlgpu.linalg.eigh, INFINITE),
    "eigvalsh": (mlgpu.linalg.eigvalsh, INFINITE[1]),
    "eig": (mlgpu.linalg.eig, INFINITE),
    "pinv": (mlgpu.linalg.pinv, INFINITE),
    "lstsq": (lambda a: mlgpu.linalg.lstsq(a, a), INFINITE),
    "matrix_rank": (mlgpu.linalg.matrix_rank, INFINITE),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_are_those_of_the_cpu(name):
    function, values = CASES[name]
    host, device = on_both(values)
    told = []
    for x in (host, device):
        with pytest.raises(LinAlgError) as found:
            function(x)
        told.append(str(found.value))
    # What is made of others names the one that failed.
    assert told[1].partition(":")[2] == told[0].partition(":")[2]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("shape", [(300, 300), (2, 40, 40)])
def test_matrices_of_every_size(shape, dtype):
    """One large matrix goes to cuSOLVER, many small ones to cuBLAS."""
    a = (some(*shape) + (1j * some(*shape, seed=1) if "complex" in dtype else 0)).astype(dtype)
    b = some(*shape[:-1], 2, seed=2).astype(dtype)
    x, y = mlgpu.tensor(a).to(CUDA), mlgpu.tensor(b).to(CUDA)
    eps = np.finfo(dtype).eps
    close = {"rtol": 3e4 * eps, "atol": 3e4 * eps}
    np.testing.assert_allclose(mlgpu.linalg.solve(x, y).cpu().numpy(), np.linalg.solve(a, b),
                               **close)
    np.testing.assert_allclose(mlgpu.linalg.inv(x).cpu().numpy(), np.linalg.inv(a), **close)
    sign, log = mlgpu.linalg.slogdet(x)
    expected = np.linalg.slogdet(a)
    np.testing.assert_allclose(sign.cpu().numpy(), expected[0], **close)
    np.testing.assert_allclose(log.cpu().numpy(), expected[1], **close)
    det = mlgpu.linalg.det(x[..., :20, :20])
    np.testing.assert_allclose(det.cpu().numpy(), np.linalg.det(a[..., :20, :20]),
                               rtol=1e4 * eps)


def test_factors_without_pivots_and_of_broken_matrices_are_those_of_the_cpu():
    host, device = on_both(FAULTY + np.tril(some(3, 3, seed=3), -1))
    for pivot in (True, False):
        for found, expected in zip(mlgpu.linalg.lu_factor_ex(device, pivot=pivot),
                                   mlgpu.linalg.lu_factor_ex(host, pivot=pivot), strict=True):
            assert found.dtype is expected.dtype
            np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), atol=1e-12)
    host, device = on_both(some(6, 6) + some(6, 6).T - 2 * np.diag(np.diag(some(6, 6))))
    for found, expected in zip(mlgpu.linalg.ldl_factor_ex(device),
                               mlgpu.linalg.ldl_factor_ex(host), strict=True):
        np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), atol=1e-12)
    with pytest.raises(DeviceError, match="cpu"):
        mlgpu.linalg.ldl_factor(device.to(mlgpu.complex64), hermitian=True)


def test_singular_matrices_have_determinants():
    zero = mlgpu.zeros(2, 3, 3, device=CUDA)
    assert mlgpu.linalg.det(zero).tolist() == [0, 0]
    sign, log = mlgpu.linalg.slogdet(zero)
    assert (sign.tolist(), log.tolist()) == ([0, 0], [-np.inf] * 2)
    swapped = mlgpu.tensor([[0.0, 1.0], [1.0, 0.0]], device=CUDA)
    assert mlgpu.linalg.det(swapped).item() == -1
    assert mlgpu.linalg.slogdet(swapped).sign.item() == -1


def test_results_are_on_the_books_and_in_order():
    x = mlgpu.tensor(some(4, 3), device=CUDA)
    gc.collect()  # of other tests
    before = mlgpu.memory.stats(CUDA).allocated
    found = [*mlgpu.linalg.svd(x, full_matrices=False), *mlgpu.linalg.qr(x), mlgpu.fft.fft(x)]
    assert all(t.is_contiguous() for t in found)
    more = mlgpu.memory.stats(CUDA).allocated - before
    assert more >= sum(t.numel() * t.element_size() for t in found)
    del found
    assert mlgpu.memory.stats(CUDA).allocated == before


def test_tolerances_may_be_tensors():
    values = np.diag([1.0, 1e-3, 1e-6])
    batch = np.stack([values, values])
    for place in ("cpu", CUDA):
        a = mlgpu.tensor(batch, device=place)
        tolerance = mlgpu.tensor([1e-4, 1e-2], device=place, dtype=mlgpu.float64)
        assert mlgpu.linalg.matrix_rank(a, atol=tolerance).tolist() == [2, 1]
        assert mlgpu.linalg.matrix_rank(a, rtol=tolerance).tolist() == [2, 1]
        assert mlgpu.linalg.matrix_rank(a, atol=0.5).tolist() == [1, 1]
        inverse = mlgpu.linalg.pinv(a, rtol=1e-4)
        np.testing.assert_allclose(inverse.cpu().numpy(), np.linalg.pinv(batch, rcond=1e-4))


def test_exponentials_of_large_and_broken_matrices():
    a = some(3, 3, 3) * np.array([0.1, 5, 40])[:, None, None]
    broken = np.concatenate([a, np.full((1, 3, 3), np.nan)])
    host, device = (mlgpu.matrix_exp(x) for x in on_both(broken))
    np.testing.assert_allclose(device.cpu().numpy(), host.numpy(), rtol=1e-9)
    half = mlgpu.tensor(some(3, 3)).to(mlgpu.bfloat16)
    expected = mlgpu.matrix_exp(half)
    assert mlgpu.matrix_exp(half.to(CUDA)).cpu().equal(expected)


def test_what_is_imaginary_of_a_real_transform_is_ignored():
    half = some(4) + 1j * some(4, seed=1)
    for n in (6, 7):
        found = mlgpu.fft.irfft(mlgpu.tensor(half, device=CUDA), n)
        np.testing.assert_allclose(found.cpu().numpy(), np.fft.irfft(half, n), atol=1e-12)


@pytest.mark.parametrize("name", ["inv", "lu", "cholesky", "svd", "eigh", "triangular"])
def test_captures_refuse_them_by_name(name):
    function = CASES[name][0]
    x = mlgpu.eye(3, device=CUDA)
    function(x)
    graph = mlgpu.cuda.CUDAGraph()
    with pytest.raises(CaptureError, match=r"linalg\.\w+: cuSOLVER"), mlgpu.cuda.graph(graph):
        function(x)
