"""What CuPy's own kernels are allowed: no more than they need, and no other kernel."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim.cuda import lenient
from mlgpu.sim.cuda.driver import Function
from mlgpu.sim.cuda.install import installed, reset
from mlgpu.sim.launch import CARRY

pytestmark = [pytest.mark.skipif(installed() is None, reason="a real GPU"),
              pytest.mark.filterwarnings("ignore:cupyx.jit.rawkernel is experimental")]

VALUES = np.random.default_rng(0).standard_normal((7, 400))


@pytest.fixture(scope="module", autouse=True)
def spared() -> None:
    """The collector is spared nothing here: CuPy's objects are looked for among all there are."""
    gc.unfreeze()


def joined(x: Any) -> Any:
    """The labels of what is connected."""
    from cupyx.scipy import ndimage

    return ndimage.label(x > -1)[0]


def filtered(x: Any) -> Any:
    """A filter whose second section does nothing."""
    from cupyx.scipy import signal

    return signal.sosfilt(cp.array([[0.5, 0, 0, 1, 0.5, 0]]), x.ravel())


def one_after_the_other() -> Any:
    """The same, without a GPU."""
    result, last = [], 0.0
    for value in VALUES.ravel():
        last = 0.5 * value - 0.5 * last
        result.append(last)
    return np.array(result)


def copied(x: Any) -> Any:
    """A copy of an array whose last row nobody has written."""
    larger = cp.empty((8, 400))
    larger[:7] = x
    return larger[:, ::-1].copy()[:, ::-1]


# What runs each kernel and what comes out, in the order of the table; the findings there would be.
USES: list[tuple[Callable[[Any], Any], Callable[[], Any], dict[str, str]]] = [
    (lambda x: copied(x)[:7], lambda: VALUES, {"carry": "uninitialized read"}),
    (lambda x: cp.stack(cp.nonzero(x > 0)), lambda: np.stack(np.nonzero(VALUES > 0)),
     {"racecheck": "write after read"}),
    (lambda x: cp.cumsum(x, axis=1), lambda: np.cumsum(VALUES, axis=1),
     {"synccheck": "exited threads", "initcheck": "uninitialized read"}),
    (lambda x: joined(x) > 0, lambda: VALUES > -1, {"racecheck": "write after read"}),
    (filtered, one_after_the_other,
     {"synccheck": "exited threads", "initcheck": "uninitialized read"}),
]
PLACES = range(len(lenient.KERNELS))


@pytest.fixture
def loaded_anew() -> Iterator[None]:
    """CuPy forgets the kernels that it has loaded, before and after the test."""
    cp.clear_memo()
    yield
    reset()
    cp.clear_memo()


@pytest.mark.parametrize("place", PLACES)
def test_results(place: int) -> None:
    use, expected, _ = USES[place]
    np.testing.assert_allclose(use(cp.asarray(VALUES)).get(), expected())


@pytest.mark.usefixtures("loaded_anew")
@pytest.mark.parametrize(("place", "check"), [
    (place, check) for place in PLACES for check in lenient.KERNELS[place].checks])
def test_each_is_needed(place: int, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that check on, there is that finding in that kernel."""
    allowed = lenient.KERNELS[place]
    rest = tuple(c for c in allowed.checks if c != check)
    monkeypatch.setattr(lenient, "KERNELS", [
        a._replace(checks=rest) if a is allowed else a for a in lenient.KERNELS])
    # Ufuncs keep their kernels whatever CuPy forgets.
    # (type(), as isinstance() would ask proxies of objects that are gone.)
    for function in [o for o in gc.get_objects() if issubclass(type(o), Function)]:
        if re.fullmatch(allowed.name, function.kernel.name):
            monkeypatch.setattr(function, "skip", function.skip - {check})
    use, _, findings = USES[place]
    x = cp.asarray(VALUES)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError,
                       match=f"{'initcheck' if check == CARRY else check}: {findings[check]}"
                       ) as caught:
        use(x).get()
    assert re.fullmatch(allowed.name, caught.value.finding.kernel)


def test_copies_of_what_was_never_written() -> None:
    """They count as that, too: cast, in another order, and by a copy of the runtime."""
    x = cp.asarray(VALUES)
    for copy in (copied(x), copied(x).astype("f4"), cp.ascontiguousarray(copied(x).T).T):
        assert float(copy[:7].sum()) == pytest.approx(float(VALUES.sum()), rel=1e-4)
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="initcheck"):
            copy.sum().get()
        reset()
    again = cp.empty((8, 400))
    again.data.copy_from_device(cp.ascontiguousarray(copied(x)).data, again.nbytes)
    assert float(again[:7].sum()) == pytest.approx(float(VALUES.sum()))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="initcheck"):
        again.sum().get()


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
    for allowed in lenient.KERNELS:
        assert set(allowed.checks) <= {"racecheck", "synccheck", "initcheck", CARRY}  # no memcheck
        assert len(allowed.reason) > 30
        assert not re.fullmatch(allowed.name, "kernel")
