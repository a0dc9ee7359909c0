"""Streams, events and copies: what depends on what is ordered, whoever forgets to say so.

Simulated devices run what is not ordered in the worst order, and report it.
"""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu.cuda import Event, Stream, arrays, current_stream, stream
from mlgpu.errors import DeviceError

N = 1 << 14


def test_streams_are_pytorchs():
    s = Stream()
    assert s.device == mlgpu.Device("cuda:0")
    assert s.query()
    with stream(s) as entered:
        assert entered is s
        assert current_stream() == s
        with stream(None):
            assert current_stream() == s
    assert current_stream() == mlgpu.cuda.default_stream() != s
    assert len({s, *map(Stream.from_external, (s.raw, s, s.cuda_stream))}) == 1
    gc.collect()  # those of others go without their streams
    assert s.query()
    event = s.record_event()
    event.synchronize()
    assert event.query()
    mlgpu.cuda.set_stream(s)
    assert current_stream() == s
    mlgpu.cuda.set_stream(mlgpu.cuda.default_stream())
    assert current_stream() == mlgpu.cuda.default_stream()


def test_events_take_times():
    start, end = Event(enable_timing=True), Event(enable_timing=True)
    start.record()
    x = mlgpu.ones(N, device="cuda") * 2
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) >= 0
    assert x[0].item() == 2
    with pytest.raises(DeviceError, match="enable_timing=True"):
        start.elapsed_time(Event())
    with pytest.raises(DeviceError, match="not recorded"):
        Stream().wait_event(Event())
    assert Event().query()


def test_a_result_is_waited_for():
    s, t = Stream(), Stream()
    for value in range(4):
        with stream(s):
            x = mlgpu.full((N,), float(value), device="cuda") * 2
        with stream(t):
            y = x + 1
        z = y * 1
        assert z[:: N // 4].tolist() == [2.0 * value + 1] * 4


def test_memory_is_not_given_out_before_its_readers_are_done():
    s = Stream()
    for value in range(4):
        x = mlgpu.full((N,), float(value), device="cuda")
        with stream(s):
            y = x * 3
        del x  # the default stream may have its memory again
        mlgpu.full((N,), -1.0, device="cuda")
        with stream(s):
            assert y[:: N // 4].tolist() == [3.0 * value] * 4


def test_a_change_in_place_waits_for_readers():
    s = Stream()
    x = mlgpu.zeros(N, device="cuda")
    for value in range(4):
        x.fill_(float(value))
        with stream(s):
            y = x * 2
        x.fill_(-5.0)
        assert y[:: N // 4].tolist() == [2.0 * value] * 4


def test_a_change_on_another_stream_is_seen():
    s = Stream()
    x = mlgpu.zeros(N, device="cuda")
    for _ in range(3):
        with stream(s):
            x.add_(1)
        x.mul_(2)
    assert x[:: N // 4].tolist() == [14.0] * 4


def test_backward_on_another_stream():
    s = Stream()
    x = mlgpu.ones(N, device="cuda", requires_grad=True)
    y = (x * 3).exp()
    with stream(s):
        y.backward(mlgpu.ones(N, device="cuda"))
    np.testing.assert_allclose(x.grad[:: N // 4].tolist(), [3 * np.exp(3.0)] * 4, rtol=1e-5)


def test_threads_with_streams_of_their_own():
    found: list[float] = []

    def work(number: int) -> None:
        with stream(Stream()):
            x = mlgpu.full((N,), float(number), device="cuda")
            for _ in range(3):
                x = x * 2
            found.append(x[N - 1].item())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0.0, 8.0, 16.0, 24.0]


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.bfloat16, mlgpu.bool, mlgpu.complex64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (3, 1000)])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("non_blocking", [False, True])
def test_there_and_back(dtype, shape, pinned, non_blocking):
    x = mlgpu.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    source = x.pin_memory() if pinned else x
    there = source.to("cuda", non_blocking=non_blocking)
    back = there.to("cpu", non_blocking=non_blocking)
    assert (back == x).all()


def test_a_pending_source_is_waited_for_before_it_changes():
    x = mlgpu.ones(N).pin_memory()
    for value in range(3):
        x.fill_(float(value))
        there = x.to("cuda", non_blocking=True)
        x.fill_(-1.0)
        assert there[:: N // 4].tolist() == [float(value)] * 4


def test_a_pending_target_is_waited_for_before_it_is_read():
    x = mlgpu.full((N,), 2.0, device="cuda")
    for _ in range(10):
        x = x + 1
    for read in (lambda t: t.numpy()[-1], lambda t: t[-1].item(), lambda t: (t + 0)[-1].item(),
                 lambda t: t.tolist()[-1], lambda t: float(repr(t[-1:])[8:11])):
        assert read(x.to("cpu", non_blocking=True)) == 12


def test_strided_sources():
    x = mlgpu.arange(24.0).reshape(4, 6)
    assert (x.T[::2].cuda().cpu() == x.T[::2]).all()
    assert (x.cuda().T[::2].cpu() == x.T[::2]).all()


def test_peers():
    if mlgpu.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device only")
    x = mlgpu.arange(N, device="cuda:0")
    for _ in range(3):
        y = (x * 2).to("cuda:1")
        assert y.device == mlgpu.Device("cuda:1")
        x = (y + 1).to("cuda:0")
    assert x[:3].tolist() == [7, 15, 23]
    assert x.T.to("cuda:1", non_blocking=True)[-1].item() == (N - 1) * 8 + 7
    with mlgpu.cuda.device(1):
        assert mlgpu.zeros(3, device="cuda").get_device() == 1
    w = mlgpu.ones(3, device="cuda:0", requires_grad=True)
    (w * 2).to("cuda:1").backward(mlgpu.ones(3, device="cuda:1"))
    assert w.grad.device == w.device
    assert w.grad.tolist() == [2.0] * 3


@pytest.mark.parametrize("first", ["stream", "tensor"])
def test_a_collector_may_take_a_stream_before_the_memory_that_it_used(first, monkeypatch):
    """CUDA may crash where it is given a stream that is no more."""
    waits, wait = [], arrays._wait

    def noted(stream, other, device):
        waits.append([s for s in (stream, other) if s is not None and s.raw.gone])
        wait(stream, other, device)

    class Holder:
        pass

    gc.collect()
    holder = Holder()
    for part in (first, "stream" if first == "tensor" else "tensor"):  # the order of finalizing
        setattr(holder, part, Stream() if part == "stream" else mlgpu.ones(N, device="cuda"))
    before = mlgpu.memory.stats("cuda").allocated
    with holder.stream:
        holder.tensor + holder.tensor
    holder.itself = holder
    monkeypatch.setattr(arrays, "_wait", noted)
    del holder
    gc.collect()
    assert not any(waits)
    assert mlgpu.memory.stats("cuda").allocated == before - 4 * N
