"""Products of matrices and vectors through the simulated cuBLAS, against NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import cupy as cp
import numpy as np
import pytest
from cupy import cublas as blas

from mlgpu.sim.cuda.install import installed

DTYPES = ["e", "f", "d", "F", "D", "bfloat16"]
CLOSE = {"e": 5e-3, "f": 1e-5, "d": 1e-12, "F": 1e-5, "D": 1e-12, "bfloat16": 4e-2}
simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


def made(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """Numbers around 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if np.dtype(kind(dtype)).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(kind(dtype))


def kind(dtype: str) -> Any:
    """The type of a name."""
    return pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype


def close(found: Any, expected: Any, dtype: str) -> None:
    """Compare by the type's precision, with the type and shape that NumPy gives."""
    found = found.get()
    assert found.shape == np.shape(expected)
    if dtype in ("e", "bfloat16"):
        found, expected = found.astype("f"), expected.astype("f")
    np.testing.assert_allclose(found, expected, CLOSE[dtype],
                               CLOSE[dtype] * max(1, np.abs(expected).max(initial=0)))


def wide(x: Any, dtype: str) -> Any:
    """What the sum is exact in."""
    return x.astype("d") if dtype in ("e", "bfloat16") else x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_matmul(dtype: str, turned: str) -> None:
    a, b = made((9, 5), dtype), made((5, 7), dtype, 1)
    x, y = cp.asarray(a), cp.asarray(b)
    if "a" in turned:
        x = cp.asarray(np.ascontiguousarray(a.T)).T
    if "b" in turned:
        y = cp.asarray(np.ascontiguousarray(b.T)).T
    result = x @ y
    assert result.dtype == a.dtype
    close(result, wide(a, dtype) @ wide(b, dtype), dtype)


@pytest.mark.parametrize("dtype", ["e", "f", "d", "F", "D"])
@pytest.mark.parametrize(("left", "right"), [
    ((3, 4, 5), (3, 5, 6)), ((3, 4, 5), (5, 6)), ((4, 5), (3, 5, 6)), ((2, 1, 4, 5), (3, 5, 2)),
    ((3, 4, 5), (5,)), ((5,), (3, 5, 2)), ((1, 4, 5), (3, 5, 6)), ((3, 0, 5), (3, 5, 2))])
def test_batches(dtype: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = made(left, dtype), made(right, dtype, 1)
    close(cp.matmul(cp.asarray(a), cp.asarray(b)), wide(a, dtype) @ wide(b, dtype), dtype)


def test_strides_and_out() -> None:
    a, b = made((12, 10), "f"), made((10, 8), "f", 1)
    x, y = cp.asarray(a), cp.asarray(b)
    close(x[::2, 1:] @ y[1:, ::3], a[::2, 1:] @ b[1:, ::3], "f")
    close(x[2:5].T @ y[:3], a[2:5].T @ b[:3], "f")
    close(x[::-1] @ y, a[::-1] @ b, "f")
    out = cp.full((12, 8), 7, "f")
    assert cp.matmul(x, y, out=out) is out
    close(out, a @ b, "f")
    sliced = cp.zeros((12, 20), "f")
    cp.matmul(x, y, out=sliced[:, 3:11])
    close(sliced[:, 3:11], a @ b, "f")
    assert not sliced[:, :3].any()
    assert not sliced[:, 11:].any()


@pytest.mark.parametrize("shapes", [((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0))])
def test_empty(shapes: Any) -> None:
    a, b = (np.ones(s, "f") for s in shapes)
    close(cp.asarray(a) @ cp.asarray(b), a @ b, "f")


def test_types_meet() -> None:
    a, b = made((4, 3), "f"), made((3, 5), "D", 1)
    result = cp.asarray(a) @ cp.asarray(b)
    assert result.dtype == "D"
    close(result, a @ b, "D")
    small = np.arange(12, dtype=np.int8).reshape(3, 4) - 6
    exact = cp.asarray(small) @ cp.asarray(small.T)
    np.testing.assert_array_equal(exact.get(), small @ small.T)


def test_dot_and_the_like() -> None:
    a, b, v = made((4, 5, 3), "d"), made((3, 5), "d", 1), made((3,), "d", 2)
    x, y, w = cp.asarray(a), cp.asarray(b), cp.asarray(v)
    close(cp.dot(x, y), np.dot(a, b), "d")
    close(cp.dot(x, w), np.dot(a, v), "d")
    close(cp.dot(w, w), np.dot(v, v), "d")
    close(cp.inner(x, w), np.inner(a, v), "d")
    close(cp.outer(w, w), np.outer(v, v), "d")
    close(cp.tensordot(x, y, ((2, 1), (0, 1))), np.tensordot(a, b, ((2, 1), (0, 1))), "d")
    close(cp.einsum("ijk,kl->jil", x, y), np.einsum("ijk,kl->jil", a, b), "d")
    close(cp.einsum("ijk,kj->i", x, y), np.einsum("ijk,kj->i", a, b), "d")
    close(cp.kron(y, y), np.kron(b, b), "d")
    c = made((6,), "D", 3)
    close(cp.vdot(cp.asarray(c), cp.asarray(c)), np.vdot(c, c), "D")
    close(cp.linalg.matrix_power(cp.asarray(b[:, :3]), 3), np.linalg.matrix_power(b[:, :3], 3),
          "d")


def test_float16_sums_in_float32() -> None:
    a = cp.full((1, 4096), 1, "e")
    b = cp.full((4096, 2), 1, "e")
    np.testing.assert_array_equal((a @ b).get(), 4096)  # float16 alone stays at 2048


@simulated
def test_tf32_only_where_asked() -> None:
    value = np.float32(1 + 2**-11 + 2**-20)  # which TF32 rounds up to 1 + 2**-10
    a, b = cp.full((2, 2), value, "f"), cp.eye(2, dtype="f") * 2
    np.testing.assert_array_equal((a @ b).get(), 2 * value)
    linalg = cp._core._routines_linalg
    before = linalg.get_compute_type("f")
    linalg.set_compute_type("f", linalg.COMPUTE_TYPE_TF32)
    try:
        np.testing.assert_array_equal((a @ b).get(), np.float32(2 * (1 + 2**-10)))
    finally:
        linalg.set_compute_type("f", before)


# -- cupy.cublas ------------------------------------------------------------------------------

FOUR = ["f", "d", "F", "D"]


@pytest.mark.parametrize("dtype", FOUR)
def test_vectors(dtype: str) -> None:
    a, b = made((17,), dtype), made((17,), dtype, 1)
    x, y = cp.asarray(a), cp.asarray(b)
    size = np.abs(a.real) + np.abs(a.imag)
    assert int(blas.iamax(x)) == size.argmax() + 1
    assert int(blas.iamin(x)) == size.argmin() + 1
    close(blas.asum(x), size.sum(), dtype)
    close(blas.nrm2(x), np.linalg.norm(a), dtype)
    close(blas.dotu(x, y), np.dot(a, b), dtype)
    close(blas.dotc(x, y), np.vdot(a, b), dtype)
    out = np.empty((), dtype)
    blas.dotc(x, y, out=out)  # the host's memory, so that the call waits
    np.testing.assert_allclose(out, np.vdot(a, b), 1e-5)
    blas.axpy(3, x, y)
    close(y, 3 * a + b, dtype)
    blas.axpy(cp.asarray(2, dtype), x, y)  # a factor in the device's memory
    close(y, 5 * a + b, dtype)
    blas.scal(0.5, x)
    close(x, a / 2, dtype)


@pytest.mark.parametrize("dtype", FOUR)
def test_matrices_and_vectors(dtype: str) -> None:
    a, v, w = made((6, 4), dtype), made((4,), dtype, 1), made((6,), dtype, 2)
    for order in "CF":
        x = cp.asarray(a, order=order)
        for op, matrix in (("N", a), ("T", a.T), ("H", a.conj().T)):
            given, start = (v, w) if op == "N" else (w, v)
            y = cp.asarray(start)
            blas.gemv(op, 2, x, cp.asarray(given), 3, y)
            close(y, 2 * matrix @ given + 3 * start, dtype)
    x = cp.asarray(a, order="F")
    if dtype in "fd":
        blas.ger(2, cp.asarray(w), cp.asarray(v), x)
        close(x, a + 2 * np.outer(w, v), dtype)
    else:
        blas.geru(2, cp.asarray(w), cp.asarray(v), x)
        close(x, a + 2 * np.outer(w, v), dtype)
        blas.gerc(1, cp.asarray(w), cp.asarray(v), x)
        close(x, a + 2 * np.outer(w, v) + np.outer(w, v.conj()), dtype)


@pytest.mark.parametrize("dtype", FOUR)
def test_matrices(dtype: str) -> None:
    a, b, c = made((5, 4), dtype), made((4, 6), dtype, 1), made((5, 6), dtype, 2)
    for order in "CF":
        x, y = cp.asarray(a, order=order), cp.asarray(b, order=order)
        close(blas.gemm("N", "N", x, y), a @ b, dtype)
        close(blas.gemm("T", "H", x, cp.asarray(c.conj().T)), a.T @ c, dtype)
        out = cp.asarray(c, order=order)
        blas.gemm("N", "N", x, y, out=out, alpha=2, beta=-1)
        close(out, 2 * a @ b - c, dtype)
        close(blas.geam("N", "T", 2, x, 3, cp.asarray(a.T)), 5 * a, dtype)
        close(blas.geam("H", "N", 2, x, 0, cp.asarray(a.T)), 2 * a.conj().T, dtype)
        side = made((5,), dtype, 3)
        close(blas.dgmm("L", x, cp.asarray(side)), side[:, None] * a, dtype)
        close(blas.dgmm("R", x, cp.asarray(side[:4])), a * side[:4], dtype)
        lower = cp.tril(blas.syrk("N", x, lower=True))
        close(lower, np.tril(a @ a.T), dtype)


@pytest.mark.parametrize("lower", [False, True])
def test_band(lower: bool) -> None:
    n, k = 6, 2
    full = np.zeros((n, n))
    band = np.full((k + 1, n), np.nan)  # what lies outside is not read
    rng = np.random.default_rng(0)
    for d in range(k + 1):
        values = rng.standard_normal(n - d)
        full += np.diag(values, d) + (np.diag(values, -d) if d else 0)
        band[d if lower else k - d, slice(0, n - d) if lower else slice(d, n)] = values
    x, start = rng.standard_normal(n), rng.standard_normal(n)
    y = cp.asarray(start)
    blas.sbmv(k, 2.0, cp.asarray(band, order="F"), cp.asarray(x), 3.0, y, lower=lower)
    close(y, 2 * full @ x + 3 * start, "d")


@pytest.mark.parametrize("dtype", FOUR)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("trans", [0, 1, 2])
def test_triangular(dtype: str, side: int, upper: int, trans: int) -> None:
    from cupy_backends.cuda.libs import cublas

    a = made((4, 4), dtype) + 4 * np.eye(4, dtype=dtype)
    b = made((4, 4), dtype, 1)
    used = np.triu(a) if upper else np.tril(a)
    op = (used, used.T, used.conj().T)[trans]
    x, y = cp.asarray(a, order="F"), cp.asarray(b, order="F")
    letter = {"f": "s", "d": "d", "F": "c", "D": "z"}[dtype]
    factor = np.asarray(2, dtype)
    getattr(cublas, f"{letter}trsm")(cp.cuda.device.get_cublas_handle(), side, upper, trans, 0, 4,
                                     4, factor.ctypes.data, x.data.ptr, 4, y.data.ptr, 4)
    expected = np.linalg.solve(op.T, 2 * b.T).T if side else np.linalg.solve(op, 2 * b)
    close(y, expected, dtype)


def test_packed_triangles() -> None:
    from cupy_backends.cuda.libs import cublas

    a = made((5, 5), "d")
    handle = cp.cuda.device.get_cublas_handle()
    for upper, part in ((0, np.tril), (1, np.triu)):
        x, packed, back = cp.asarray(a, order="F"), cp.zeros(15), cp.zeros((5, 5), order="F")
        cublas.dtrttp(handle, upper, 5, x.data.ptr, 5, packed.data.ptr)
        columns = [a[:j + 1, j] if upper else a[j:, j] for j in range(5)]
        close(packed, np.concatenate(columns), "d")
        cublas.dtpttr(handle, upper, 5, packed.data.ptr, back.data.ptr, 5)
        close(back, part(a), "d")


# -- streams, bounds, errors ------------------------------------------------------------------

@simulated
def test_it_runs_when_its_stream_comes_to_it() -> None:
    system = installed()
    assert system is not None
    a, b = cp.ones((8, 8), "f"), cp.ones((8, 8), "f")
    cp.cuda.Device().synchronize()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        c = cp.matmul(a, b)
    assert len(system.streams.waiting) >= 1
    a.fill(2)  # on the default stream, which nothing orders with the other one
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match=r"cublasGemmEx.*") as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.tool == "racecheck"
    del c


@simulated
def test_disjoint_parts_do_not_race() -> None:
    a, out = cp.ones((8, 8), "f"), cp.zeros((8, 16), "f")
    one, other = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    cp.cuda.Device().synchronize()
    from cupy_backends.cuda.libs import cublas

    handle, factors = cp.cuda.device.get_cublas_handle(), np.asarray([1, 0], "f")
    for stream, at in ((one, 0), (other, 32)):  # columns beside each other in each row
        with stream:
            cublas.sgemm(handle, 0, 0, 8, 8, 8, factors.ctypes.data, a.data.ptr, 8, a.data.ptr, 8,
                         factors.ctypes.data + 4, out.data.ptr + at, 16)
    cp.cuda.Device().synchronize()
    np.testing.assert_array_equal(out.get(), 8)


def test_two_devices() -> None:
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one device")
    a = made((4, 4), "f")
    for n in range(2):
        with cp.cuda.Device(n):
            x = cp.asarray(a)
            y = x @ x
            assert y.device.id == n
            close(y, a @ a, "f")


@simulated
def test_a_matrix_that_reaches_past_its_array() -> None:
    from cupy_backends.cuda.libs import cublas

    a, c = cp.ones((8, 8), "f"), cp.zeros((8, 8), "f")
    factors = np.asarray([1, 0], "f")
    cublas.sgemm(cp.cuda.device.get_cublas_handle(), 0, 0, 8, 8, 8, factors.ctypes.data,
                 a.data.ptr, 8, a.data.ptr, 9, factors.ctypes.data + 4, c.data.ptr, 8)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="out of bounds: B, 8x8 of float32"
                       ) as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.kernel == "cublasSgemm"
    assert error.value.finding.allocation is not None
    assert error.value.finding.allocation.size == 256
    with pytest.raises(cublas.CUBLASError, match="EXECUTION_FAILED"):
        a @ a  # as on a GPU the error sticks


@simulated
def test_an_operand_that_was_never_written() -> None:
    a, b = cp.empty((4, 4), "f"), cp.ones((4, 4), "f")
    a[:, 1:] = 1
    a @ b
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError,
                       match=r"never written") as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.tool == "initcheck"


@simulated
def test_wrong_arguments() -> None:
    from cupy_backends.cuda.libs import cublas

    a = cp.ones((4, 4), "f")
    handle = cp.cuda.device.get_cublas_handle()
    one = np.asarray(1, "f")
    with pytest.raises(cublas.CUBLASError, match="lda=3, but the matrix has 4 rows") as error:
        cublas.sgemm(handle, 0, 0, 4, 4, 4, one.ctypes.data, a.data.ptr, 3, a.data.ptr, 4,
                     one.ctypes.data, a.data.ptr, 4)
    assert error.value.status == 7
    with pytest.raises(cublas.CUBLASError, match=r"alpha or beta at .* is in device memory"):
        cublas.sscal(handle, 4, a.data.ptr, a.data.ptr, 1)
    with pytest.raises(cublas.CUBLASError, match="the result at"):
        cublas.sasum(handle, 4, a.data.ptr, 1, a.data.ptr)
    with pytest.raises(cublas.CUBLASError, match="accumulates in float32"):
        cublas.gemmEx(handle, 0, 0, 4, 4, 4, one.ctypes.data, a.data.ptr, 0, 4, a.data.ptr, 0, 4,
                      one.ctypes.data, a.data.ptr, 0, 4, cublas.CUBLAS_COMPUTE_16F, -1)
    with pytest.raises(cublas.CUBLASError, match="no handle of cuBLAS"):
        cublas.setStream(12345, 0)


@simulated
def test_handles() -> None:
    from cupy_backends.cuda.libs import cublas

    handle = cublas.create()
    stream = cp.cuda.Stream()
    cublas.setStream(handle, stream.ptr)
    assert cublas.getStream(handle) == stream.ptr
    cublas.setMathMode(handle, 3)
    assert cublas.getMathMode(handle) == 3
    value = np.float32(1 + 2**-11 + 2**-20)
    a, b, out = cp.full((1, 1), value, "f"), cp.ones((1, 1), "f"), cp.zeros((1, 1), "f")
    factors = np.asarray([1, 0], "f")
    cublas.sgemm(handle, 0, 0, 1, 1, 1, factors.ctypes.data, a.data.ptr, 1, b.data.ptr, 1,
                 factors.ctypes.data + 4, out.data.ptr, 1)
    assert float(out[0, 0]) == 1 + 2**-10
    assert cublas.getVersion(handle) // 10 == cp.cuda.runtime.runtimeGetVersion()
    assert cublas.getPointerMode(handle) == cublas.CUBLAS_POINTER_MODE_HOST
    cublas.destroy(handle)
    with pytest.raises(cublas.CUBLASError, match="NOT_INITIALIZED"):
        cublas.destroy(handle)


def test_capture_is_refused_as_cupy_does() -> None:
    a = cp.ones((4, 4), "f")
    out = cp.zeros((4, 4), "f")
    cp.matmul(a, a, out=out)
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            cp.matmul(a, a, out=out)
        stream.end_capture()


def test_results_on_the_host_wait() -> None:
    x = cp.arange(5, dtype="f")
    result = np.zeros((), "f")
    blas.asum(x, out=result)
    assert result == 10
    assert ctypes.c_float.from_address(result.ctypes.data).value == 10
