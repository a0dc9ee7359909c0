"""The order of copies between devices (CUDA C++ Programming Guide, "Peer-to-Peer Memory Copy")."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed

pytestmark = pytest.mark.skipif(installed() is None or len(installed().devices) < 2,  # type: ignore[union-attr]
                                reason="needs two simulated devices")


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """No stream is left for tests that count them."""
    yield
    gc.collect()


@pytest.fixture
def arrays() -> tuple[cp.ndarray, cp.ndarray]:
    """Zeros on device 0 and on device 1."""
    found = []
    for number in (0, 1):
        with cp.cuda.Device(number):
            found.append(cp.zeros(1000, cp.float32))
            cp.cuda.Device().synchronize()
    return found[0], found[1]


def copy(target: cp.ndarray, source: cp.ndarray, stream: int = 0) -> None:
    cp.cuda.runtime.memcpyPeerAsync(target.data.ptr, target.device.id, source.data.ptr,
                                    source.device.id, source.nbytes, stream)


def test_in_the_default_stream_it_comes_after_the_work_of_both_devices(arrays) -> None:
    one, two = arrays
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        one += 1
    with cp.cuda.Device(1), cp.cuda.Stream(non_blocking=True):
        two += 2
    copy(two, one)
    assert two.get()[0] == 1


def test_and_before_their_later_work(arrays) -> None:
    one, two = arrays
    copy(two, one)
    with cp.cuda.Stream(non_blocking=True):
        one += 1
    with cp.cuda.Device(1), cp.cuda.Stream(non_blocking=True) as stream:
        two += 2
        stream.synchronize()
    cp.cuda.Device(0).synchronize()
    np.testing.assert_array_equal(two.get(), 2)
    np.testing.assert_array_equal(one.get(), 1)


def test_arrays_of_another_device(arrays) -> None:
    """What CuPy itself copies to the current device."""
    one, _ = arrays
    one += 3
    with cp.cuda.Device(1):
        assert float((cp.asarray(one) * 2).sum()) == 6000


def test_in_another_stream_nothing_else_waits(arrays) -> None:
    """A GPU may copy before or after what other streams do: that is a race."""
    one, two = arrays
    stream = cp.cuda.Stream(non_blocking=True)
    one += 1
    copy(two, one, stream.ptr)
    installed().drain()  # type: ignore[union-attr]
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="racecheck: read after write"):
        cp.cuda.Device(0).synchronize()
