"""What CuPy's own kernels are allowed: no more than they need, and no other kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim.cuda import lenient
from mlgpu.sim.cuda.install import installed, reset

pytestmark = pytest.mark.skipif(installed() is None, reason="a real GPU")

VALUES = np.random.default_rng(0).standard_normal((7, 150))
# What runs each kernel, and the findings that there would be.
USES: dict[str, tuple[Any, dict[str, str]]] = {
    "cupy_nonzero_kernel_incomplete_scan": (
        lambda xp, x: xp.stack(xp.nonzero(x > 0)), {"racecheck": "write after read"}),
    "cupy_inclusive_batch_scan_kernel": (
        lambda xp, x: xp.cumsum(x, axis=1), {"synccheck": "exited threads",
                                             "initcheck": "uninitialized read"}),
}


@pytest.fixture
def loaded_anew() -> Iterator[None]:
    """CuPy forgets the kernels that it has loaded, before and after the test."""
    cp.clear_memo()
    yield
    reset()
    cp.clear_memo()


@pytest.mark.parametrize("name", lenient.KERNELS)
def test_results(name: str) -> None:
    use, _ = USES[name]
    np.testing.assert_allclose(use(cp, cp.asarray(VALUES)).get(), use(np, VALUES))


@pytest.mark.usefixtures("loaded_anew")
@pytest.mark.parametrize(("name", "check"), [
    (name, check) for name, (checks, _) in lenient.KERNELS.items() for check in checks])
def test_each_is_needed(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that check on, there is that finding in that kernel."""
    allowed = lenient.KERNELS[name]
    rest = tuple(c for c in allowed.checks if c != check)
    monkeypatch.setitem(lenient.KERNELS, name, allowed._replace(checks=rest))
    use, findings = USES[name]
    x = cp.asarray(VALUES)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match=f"{check}: {findings[check]}"):
        use(cp, x).get()


def test_a_kernel_of_the_program_with_such_a_name() -> None:
    name = "cupy_nonzero_kernel_incomplete_scan"
    kernel = cp.RawKernel(f"""
    extern "C" __global__ void {name}(int* x) {{
        __shared__ int held[64];
        held[threadIdx.x] = x[threadIdx.x];
        x[threadIdx.x] = held[63 - threadIdx.x];
    }}""", name)
    x = cp.arange(64, dtype="i4")
    kernel((1,), (64,), (x,))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="racecheck"):
        cp.cuda.Device().synchronize()


def test_reasons() -> None:
    for name, (checks, reason) in lenient.KERNELS.items():
        assert name.startswith("cupy_")
        assert set(checks) <= {"racecheck", "synccheck", "initcheck"}  # memcheck is always on
        assert len(reason) > 30
