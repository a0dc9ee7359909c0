"""cupy.fft and cuFFT's plans on simulated devices, against NumPy."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np
import pytest
from cupyx.scipy import fft as cupy_fft
from cupyx.scipy.fftpack import get_fft_plan

from mlgpu.sim.cuda.install import installed

REAL, COMPLEX = ["e", "f", "d", "i"], ["F", "D"]
simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


def made(shape: tuple[int, ...], dtype: str) -> Any:
    """Numbers around 0."""
    rng = np.random.default_rng(0)
    values = 9 * rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def close(found: Any, expected: Any, single: bool) -> None:
    """Compare; CuPy's results are single where the input is."""
    assert found.shape == expected.shape
    assert found.dtype.char == (expected.astype("F" if expected.dtype.kind == "c" else "f")
                                if single else expected).dtype.char
    small = 1e-5 if single else 1e-12
    np.testing.assert_allclose(found.get(), expected, small, small * np.abs(expected).max())


@pytest.mark.parametrize("dtype", REAL + COMPLEX)
@pytest.mark.parametrize(("n", "axis"), [(None, -1), (5, -1), (20, -1), (None, 0), (7, 0), (1, 1)])
@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
def test_one_axis(dtype: str, n: Any, axis: int, norm: Any) -> None:
    a = made((6, 12), dtype)
    x, single = cp.asarray(a), dtype in "efF"
    exact = a.astype("d") if dtype in "ef" else a
    close(cp.fft.fft(x, n, axis, norm), np.fft.fft(exact, n, axis, norm), single)
    close(cp.fft.ifft(x, n, axis, norm), np.fft.ifft(exact, n, axis, norm), single)
    if dtype in REAL:
        close(cp.fft.rfft(x, n, axis, norm), np.fft.rfft(exact, n, axis, norm), single)
        close(cp.fft.ihfft(x, n, axis, norm), np.fft.ihfft(exact, n, axis, norm), single)
    if dtype != "e":  # which comes back as float16
        n = n or 10
        close(cp.fft.irfft(x, n, axis, norm), np.fft.irfft(exact, n, axis, norm), single)
        close(cp.fft.hfft(x, n, axis, norm), np.fft.hfft(exact, n, axis, norm), single)


@pytest.mark.parametrize("dtype", ["f", "d", "F", "D"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axes", [None, (0,), (2,), (0, 1), (1, 2), (0, 2), (2, 1, 0), (-1, -2)])
def test_several_axes(dtype: str, order: Any, axes: Any) -> None:
    a = made((4, 6, 5), dtype)
    x, single = cp.asarray(a, order=order), dtype in "fF"
    exact = a.astype("D" if dtype in "FD" else "d")
    close(cp.fft.fftn(x, axes=axes), np.fft.fftn(exact, axes=axes), single)
    close(cp.fft.ifftn(x, axes=axes), np.fft.ifftn(exact, axes=axes), single)
    if dtype in "fd":
        close(cp.fft.rfftn(x, axes=axes), np.fft.rfftn(exact, axes=axes), single)
    half = np.fft.rfftn(exact.real, axes=axes)
    last = a.shape[axes[-1] if axes else -1]
    y = cp.asarray(half.astype("F" if single else "D"), order=order)
    sizes = [a.shape[n] for n in axes or (0, 1, 2)]
    assert sizes[-1] == last
    close(cp.fft.irfftn(y, sizes, axes), exact.real, single)


def test_two_axes_and_sizes() -> None:
    a = made((6, 8), "D")
    x = cp.asarray(a)
    close(cp.fft.fft2(x), np.fft.fft2(a), False)
    close(cp.fft.ifft2(x, s=(4, 10)), np.fft.ifft2(a, s=(4, 10), axes=(0, 1)), False)
    close(cp.fft.rfft2(x.real), np.fft.rfft2(a.real), False)
    close(cp.fft.fft(x[::2, ::-1]), np.fft.fft(a[::2, ::-1]), False)
    close(cp.fft.fftshift(cp.fft.fft(x), 1), np.fft.fftshift(np.fft.fft(a), 1), False)
    with pytest.raises(ValueError, match="Invalid number of FFT data points"):
        cp.fft.fft(x, 0)


def test_plans() -> None:
    a = made((4, 6, 8), "F")
    x = cp.asarray(a)
    with get_fft_plan(x, axes=(2,)) as plan:
        assert isinstance(plan, cp.cuda.cufft.Plan1d)
        assert cp.cuda.cufft.get_current_plan() is plan
        close(cupy_fft.fft(x), np.fft.fft(a.astype("D")), True)
    assert cp.cuda.cufft.get_current_plan() is None
    plan = get_fft_plan(x, axes=(1, 2))
    assert isinstance(plan, cp.cuda.cufft.PlanNd)
    out = cp.empty_like(x)
    plan.check_output_array(x, out)
    plan.fft(x, out, cp.cuda.cufft.CUFFT_FORWARD)
    close(out, np.fft.fftn(a.astype("D"), axes=(1, 2)), True)
    plan.fft(out, out, cp.cuda.cufft.CUFFT_INVERSE)  # in place, and not scaled
    close(out, 48 * a.astype("D"), True)
    with pytest.raises(ValueError, match="shape"):
        plan.check_output_array(x, cp.empty((1, 6, 8), "F"))
    close(cupy_fft.fftn(x, axes=(1, 2), plan=plan), np.fft.fftn(a.astype("D"), axes=(1, 2)), True)
    cache = cp.fft.config.get_plan_cache()
    assert "Plan" in repr(cache)
    cache.clear()


def test_it_runs_on_the_current_stream() -> None:
    x = cp.asarray(made((64,), "D"))
    cp.cuda.Device().synchronize()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        y = cp.fft.fft(x * 2)
    stream.synchronize()
    close(y, np.fft.fft(2 * x.get()), False)


def test_a_graph_transforms_anew_each_time() -> None:
    a = made((4, 8), "D")
    x, out = cp.asarray(a), cp.zeros((4, 8), "D")
    plan = get_fft_plan(x, axes=(1,))
    plan.fft(x, out, cp.cuda.cufft.CUFFT_FORWARD)
    cp.cuda.Device().synchronize()
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        plan.fft(x, out, cp.cuda.cufft.CUFFT_FORWARD)
        graph = stream.end_capture()
        for factor in (2, 6):
            x *= 2 if factor == 2 else 3
            graph.launch()
            stream.synchronize()
            close(out, np.fft.fft(factor * a), False)


@simulated
def test_a_plan_for_a_larger_array() -> None:
    plan = cp.cuda.cufft.Plan1d(16, cp.cuda.cufft.CUFFT_C2C, 2)
    x, out = cp.ones(31, "F"), cp.ones(32, "F")
    plan.fft(x, out, -1)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="out of bounds: the input") as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.kernel == "cufftExecC2C"


@simulated
def test_what_is_not_simulated() -> None:
    cufft = cp.cuda.cufft
    with pytest.raises(NotImplementedError, match="several GPUs"):
        cufft.Plan1d(16, cufft.CUFFT_C2C, 1, devices=[0, 1])
    with pytest.raises(NotImplementedError, match=r"use Plan1d, PlanNd or cupy\.fft"):
        cufft.XtPlanNd((4,), None, 1, 4, "e", None, 1, 4, "E", 1, "E", order="C", last_axis=-1,
                       last_size=None)
    with pytest.raises(NotImplementedError, match="setCallback is not simulated"):
        cufft.setCallback(0, 0, True)
    with pytest.raises(cufft.CuFFTError, match="CUFFT_INVALID_TYPE"):
        cufft.Plan1d(16, 5, 1)
    with pytest.raises(cufft.CuFFTError, match="CUFFT_INVALID_SIZE"):
        cufft.Plan1d(0, cufft.CUFFT_C2C, 1)
