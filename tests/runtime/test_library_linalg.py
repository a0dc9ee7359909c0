"""cupy.linalg and cupyx.lapack through the simulated cuSOLVER, against NumPy."""

from __future__ import annotations

import threading
from typing import Any

import cupy as cp
import cupyx
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed

DTYPES = ["f", "d", "F", "D"]
SHAPES = [(5, 5), (7, 4), (4, 7), (1, 1), (3, 6, 4), (2, 3, 4, 6), (2, 5, 5)]
SQUARE = [(5, 5), (1, 1), (3, 4, 4), (2, 2, 3, 3), (20, 20)]
simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


def made(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """Numbers around 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def well(shape: tuple[int, ...], dtype: str) -> Any:
    """Matrices far from singular."""
    return made(shape, dtype) + shape[-1] * np.eye(shape[-1], dtype=dtype)


def positive(shape: tuple[int, ...], dtype: str) -> Any:
    """Hermitian, positive definite matrices."""
    a = made(shape, dtype)
    return a @ a.conj().swapaxes(-2, -1) + shape[-1] * np.eye(shape[-1], dtype=dtype)


def close(found: Any, expected: Any) -> None:
    """Compare by the type's precision, with the type and shape that NumPy gives."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    small = 2e-4 if expected.dtype.char in "fF" else 1e-10
    np.testing.assert_allclose(found.get(), expected, small,
                               small * max(1, np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SQUARE)
def test_cholesky(dtype: str, shape: tuple[int, ...]) -> None:
    a = positive(shape, dtype)
    close(cp.linalg.cholesky(cp.asarray(a)), np.linalg.cholesky(a))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["reduced", "complete"])
def test_qr(dtype: str, shape: tuple[int, ...], mode: Any) -> None:
    a = made(shape, dtype)
    q, r = cp.linalg.qr(cp.asarray(a), mode)
    expected = np.linalg.qr(a, mode)
    assert (q.shape, r.shape) == (expected[0].shape, expected[1].shape)
    close(q @ r, a)
    close(abs(r), abs(expected[1]))  # rows are right but for a factor
    close(abs(cp.linalg.qr(cp.asarray(a), "r")), abs(np.linalg.qr(a, "r")))
    identity = np.broadcast_to(np.eye(q.shape[-1], dtype=dtype), (*shape[:-2], *[q.shape[-1]] * 2))
    close(q.conj().swapaxes(-2, -1) @ q, identity)


@simulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_reflectors(dtype: str, shape: tuple[int, ...]) -> None:
    a = made(shape, dtype)
    for found, expected in zip(cp.linalg.qr(cp.asarray(a), "raw"), np.linalg.qr(a, "raw"),
                               strict=True):
        close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 40, 35)])
@pytest.mark.parametrize("full", [False, True])
def test_svd(dtype: str, shape: tuple[int, ...], full: bool) -> None:
    a = made(shape, dtype)
    u, s, vt = cp.linalg.svd(cp.asarray(a), full_matrices=full)
    expected = np.linalg.svd(a, full_matrices=full)
    assert (u.shape, vt.shape) == (expected[0].shape, expected[2].shape)
    close(s, expected[1])
    k = min(shape[-2:])
    close((u[..., :k] * s[..., None, :]) @ vt[..., :k, :], a)
    identity = np.broadcast_to(np.eye(u.shape[-1], dtype=dtype), (*shape[:-2], *[u.shape[-1]] * 2))
    close(u.conj().swapaxes(-2, -1) @ u, identity)
    close(cp.linalg.svd(cp.asarray(a), compute_uv=False), expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigh(dtype: str, shape: tuple[int, ...], uplo: Any) -> None:
    a = positive(shape, dtype)
    read = (np.tril if uplo == "L" else np.triu)(a)  # the other triangle is not looked at
    w, v = cp.linalg.eigh(cp.asarray(read), uplo)
    close(w, np.linalg.eigvalsh(a))
    close(v @ (w[..., None] * v.conj().swapaxes(-2, -1)), a)
    close(cp.linalg.eigvalsh(cp.asarray(read), uplo), np.linalg.eigvalsh(a))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (2, 4, 4)])
def test_eig(dtype: str, shape: tuple[int, ...]) -> None:
    a = made(shape, dtype)
    w, v = cp.linalg.eig(cp.asarray(a))
    assert w.dtype == v.dtype == np.dtype(dtype.upper())
    close(cp.asarray(a).astype(v.dtype) @ v, (v * w[..., None, :]).get())
    expected = np.linalg.eigvals(a).astype(w.dtype)
    close(cp.asarray(np.sort_complex(w.get())), np.sort_complex(expected))
    close(cp.asarray(np.sort_complex(cp.linalg.eigvals(cp.asarray(a)).get())),
          np.sort_complex(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SQUARE)
def test_equations(dtype: str, shape: tuple[int, ...]) -> None:
    a, b = well(shape, dtype), made((*shape[:-1], 3), dtype, 1)
    x = cp.asarray(a)
    close(cp.linalg.solve(x, cp.asarray(b)), np.linalg.solve(a, b))
    close(cp.linalg.inv(x), np.linalg.inv(a))
    close(cp.linalg.det(x), np.linalg.det(a))
    sign, log = cp.linalg.slogdet(x)
    for found, expected in zip((sign, log), np.linalg.slogdet(a), strict=True):
        close(found, np.asarray(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (8, 4), (4, 8)])
def test_least_squares(dtype: str, shape: tuple[int, ...]) -> None:
    a, b = made(shape, dtype), made((shape[0], 2), dtype, 1)
    found = cp.linalg.lstsq(cp.asarray(a), cp.asarray(b), rcond=None)
    expected = np.linalg.lstsq(a, b, rcond=None)
    close(found[0], expected[0])
    close(found[3], expected[3])
    assert int(found[2]) == expected[2]
    close(cp.linalg.pinv(cp.asarray(a)), np.linalg.pinv(a))
    assert int(cp.linalg.matrix_rank(cp.asarray(a))) == min(shape)
    for order in (None, 2, -2, "nuc", "fro", 1, np.inf):
        close(cp.linalg.norm(cp.asarray(a), order), np.asarray(np.linalg.norm(a, order)))


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3), (0, 3, 3), (2, 0, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    a = np.zeros(shape, "d")
    for mode in ("reduced", "complete", "r"):
        found, expected = cp.linalg.qr(cp.asarray(a), mode), np.linalg.qr(a, mode)
        assert [x.shape for x in ([found] if mode == "r" else found)] == [
            x.shape for x in ([expected] if mode == "r" else expected)]
    assert [x.shape for x in cp.linalg.svd(cp.asarray(a))] == [
        x.shape for x in np.linalg.svd(a)]


def test_singular_and_indefinite() -> None:
    with cupyx.errstate(linalg="raise"):
        with pytest.raises(np.linalg.LinAlgError):
            cp.linalg.cholesky(-cp.eye(3))
        with pytest.raises(np.linalg.LinAlgError):
            cp.linalg.inv(cp.ones((3, 3)))
        with pytest.raises(np.linalg.LinAlgError):
            cp.linalg.solve(cp.zeros((3, 3)), cp.ones(3))
    assert float(cp.linalg.det(cp.zeros((3, 3)))) == 0
    assert cp.isnan(cp.linalg.svd(cp.full((3, 3), np.nan), compute_uv=False)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_lapack(dtype: str) -> None:
    from cupyx import lapack

    a, b = well((5, 5), dtype), made((5, 2), dtype, 1)
    x, y = cp.asarray(a, order="F"), cp.asarray(b, order="F")
    expected = np.linalg.solve(a, b)
    lapack.gesv(x, y)
    close(y, expected)
    y = cp.asarray(b)
    spd = positive((5, 5), dtype)
    close(lapack.posv(cp.asarray(spd), y), np.linalg.solve(spd, b))
    stack = positive((3, 4, 4), dtype)
    right = made((3, 4, 2), dtype, 2)
    close(lapack.posv(cp.asarray(stack), cp.asarray(right)), np.linalg.solve(stack, right))
    tall = made((7, 4), dtype)
    close(lapack.gels(cp.asarray(tall), cp.asarray(made((7, 2), dtype, 3))),
          np.linalg.lstsq(tall, made((7, 2), dtype, 3), rcond=None)[0])
    flat = made((4, 7), dtype)
    close(lapack.gels(cp.asarray(flat), cp.asarray(made((4, 2), dtype, 3))),
          np.linalg.lstsq(flat, made((4, 2), dtype, 3), rcond=None)[0])


@pytest.mark.filterwarnings("ignore:gels reached maximum allowed iterations")  # the real one
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_made_of_cusolver(dtype: str) -> None:
    from cupyx import cusolver

    a, b = made((6, 4), dtype), made((6,), dtype, 1)
    u, s, v = cusolver.gesvdj(cp.asarray(a[:, :, None].transpose(2, 0, 1)), full_matrices=False)
    close((u * s[..., None, :]) @ v.conj().swapaxes(-2, -1), a[None])
    u, s, v = cusolver.gesvda(cp.asarray(a))
    close((u * s) @ v.conj().T, a)
    close(cusolver.gels(cp.asarray(a), cp.asarray(b)), np.linalg.lstsq(a, b, rcond=None)[0])
    square = well((4, 4), dtype)
    close(cusolver.gesv(cp.asarray(square), cp.asarray(b[:4])), np.linalg.solve(square, b[:4]))
    spd = positive((4, 4), dtype)
    w, z = cusolver.syevj(cp.asarray(spd))
    close(w, np.linalg.eigvalsh(spd))
    close((z * w) @ z.conj().T, spd)
    assert cusolver.check_availability("gesvdj")
    assert not cusolver.check_availability("csrlsvqr") or installed() is None
    with pytest.raises(ValueError, match="No available version"):
        cusolver.check_availability("nothing")


@simulated
def test_a_result_that_another_stream_needs() -> None:
    a = cp.asarray(positive((6, 6), "d"))
    b = cp.zeros((6, 6))
    cp.cuda.Device().synchronize()
    one, other = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    with one:
        cp.multiply(a, 2, out=b)
    with other:
        cp.linalg.svd(b, compute_uv=False)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="nothing orders the two"):
        cp.cuda.Device().synchronize()


def test_a_result_that_another_stream_waits_for() -> None:
    a = positive((6, 6), "d")
    x = cp.asarray(a)
    cp.cuda.Device().synchronize()
    one, other = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    with one:
        b = x * 2
        done = one.record()
    with other:
        other.wait_event(done)
        factor = cp.linalg.cholesky(b)
    other.synchronize()
    close(factor, np.linalg.cholesky(2 * a))


def test_threads() -> None:
    a = well((6, 6), "d")
    failed: list[BaseException] = []

    def work(n: int) -> None:
        try:
            with cp.cuda.Device(n % cp.cuda.runtime.getDeviceCount()):
                for _ in range(3):
                    close(cp.linalg.inv(cp.asarray(a)) @ cp.asarray(a), np.eye(6))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
