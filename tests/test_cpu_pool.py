"""The caching pool under CPU tensors: what comes back, what never does, and its bounds."""

from __future__ import annotations

import gc
import itertools
import os
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu import memory
from mlgpu.cpu import pool, runtime
from mlgpu.errors import OutOfMemoryError, ShapeError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def emptied():
    gc.collect()
    memory.empty_cache("cpu")
    yield
    memory.empty_cache("cpu")


def test_memory_let_go_serves_the_next_request_of_its_size():
    x = mlgpu.empty(MIB)
    place = x.data_ptr()
    del x
    assert memory.stats("cpu").cached == 4 * MIB
    y = mlgpu.empty(1024, 1024)
    assert y.data_ptr() == place
    assert memory.stats("cpu").cached == 0


def test_addresses_are_cache_lines_and_sizes_are_close():
    for n in (pool.SMALLEST, pool.SMALLEST + 1, 100_001, 3 * MIB + 5):
        x = runtime.empty((n,), np.uint8)
        assert x.ctypes.data % 64 == 0
        assert x.nbytes == n
        assert x.flags.writeable
        size = x.base.nbytes
        assert n <= size <= n * 1.125
        del x
        assert memory.stats("cpu").cached >= size


def test_rows_of_whole_pages_lie_at_different_places_of_theirs():
    arrays = [runtime.empty((64, 1024), np.float32) for _ in range(6)]
    places = sorted(x.ctypes.data % 4096 for x in arrays)
    assert all(b - a >= 64 for a, b in itertools.pairwise(places)), places


@pytest.mark.parametrize("view", [lambda x: x[1:], lambda x: x.reshape(2, -1).T,
                                  lambda x: x.view(mlgpu.int32), lambda x: x.detach(),
                                  lambda x: x.numpy()[::2], lambda x: np.from_dlpack(x),
                                  lambda x: np.asarray(x).reshape(4, -1)[1]],
                         ids=["slice", "transposed", "dtype", "detached", "numpy", "dlpack",
                              "array"])
def test_no_view_ever_loses_its_memory(view):
    x = mlgpu.ones(MIB)
    seen = view(x)
    before = np.array(seen.numpy() if isinstance(seen, mlgpu.Tensor) else seen)
    del x
    gc.collect()
    assert memory.stats("cpu").cached == 0
    others = [mlgpu.full((MIB,), 7.0) for _ in range(3)]
    np.testing.assert_array_equal(seen.numpy() if isinstance(seen, mlgpu.Tensor) else seen, before)
    del seen, others
    gc.collect()
    assert memory.stats("cpu").cached > 0


def test_memory_of_others_never_enters_the_pool():
    owned = np.ones(MIB, np.float32)
    x = mlgpu.from_numpy(owned)
    del x
    assert memory.stats("cpu").cached == 0
    y = mlgpu.zeros(MIB)
    y += 1
    np.testing.assert_array_equal(owned, 1)


def test_released_memory_returns_at_once():
    x = mlgpu.empty(MIB)
    x.release()
    assert memory.stats("cpu").cached == 4 * MIB


def test_the_pool_adds_little_to_the_peak(monkeypatch):
    """Live and cached together stay near what was live at once, whatever the sizes."""
    monkeypatch.setattr(pool, "_pool", pool.Pool())
    held = [mlgpu.empty(16 * MIB) for _ in range(4)]
    most = pool._pool.peak * 9 // 8 + pool._SPARE
    del held
    for n in range(16, 9, -1):
        held = [mlgpu.empty(n * MIB) for _ in range(4)]
        assert pool._pool.leased + pool._pool.cached <= most
        del held


def test_a_step_finds_what_the_last_one_let_go(monkeypatch):
    """Some sizes on the way forward, others on the way back, more than are live at once."""
    monkeypatch.setattr(pool, "_pool", pool.Pool())

    def step():
        forward = [mlgpu.empty(n * 64, 1024) for n in range(8, 12)]
        while forward:
            back = mlgpu.empty(*forward.pop().shape, 3)
        return back

    for _ in range(2):
        step()
    made, new = [], pool._new
    monkeypatch.setattr(pool, "_new", lambda size: made.append(size) or new(size))
    step()
    assert made == []


def test_the_bound_holds_and_zero_turns_it_off():
    before = pool._pool.bound
    try:
        memory.cache_limit("6 MiB")
        held = [mlgpu.empty(MIB) for _ in range(4)]
        del held
        assert memory.stats("cpu").cached == 4 * MIB
        memory.cache_limit(0)
        assert memory.stats("cpu").cached == 0
        x = mlgpu.empty(MIB)
        del x
        assert memory.stats("cpu").cached == 0
        with pytest.raises(ShapeError, match="memory: expected a size"):
            memory.cache_limit("much")
    finally:
        memory.cache_limit(before)


def test_the_oldest_goes_first():
    before = pool._pool.bound
    try:
        small, large = mlgpu.empty(MIB // 4), mlgpu.empty(MIB)
        place = large.data_ptr()
        memory.cache_limit(4 * MIB)
        del small, large
        assert memory.stats("cpu").cached == 4 * MIB
        assert mlgpu.empty(MIB).data_ptr() == place
    finally:
        memory.cache_limit(before)


def test_the_books_do_not_count_what_waits():
    before = memory.stats("cpu")
    x = mlgpu.empty(MIB)
    assert memory.stats("cpu").allocated == before.allocated + 4 * MIB
    del x
    after = memory.stats("cpu")
    assert after.allocated == before.allocated
    assert after.cached == 4 * MIB


def test_what_waits_makes_room_before_memory_is_out(monkeypatch):
    x = mlgpu.empty(MIB)
    del x
    real, calls = pool._new, []

    def scarce(size):
        calls.append(memory.stats("cpu").cached)
        if len(calls) == 1:
            raise MemoryError("scarce")
        return real(size)

    monkeypatch.setattr(pool, "_new", scarce)
    assert mlgpu.empty(2 * MIB).numel() == 2 * MIB
    assert calls[1] == 0
    monkeypatch.setattr(pool, "_new", lambda size: (_ for _ in ()).throw(MemoryError("none")))
    leased = pool._pool.leased
    with pytest.raises(OutOfMemoryError, match="the system has no"):
        mlgpu.empty(4 * MIB)
    assert pool._pool.leased == leased


def test_threads_never_get_the_same_block():
    wrong = []

    def use(number):
        for step in range(200):
            x = runtime.empty((MIB // 8 + 128 * (step % 3),), np.float32)
            x.fill(number)
            y = runtime.empty((MIB // 8,), np.float32)
            y.fill(-number)
            if x[0] != number or not (x == number).all():
                wrong.append(number)

    team = [threading.Thread(target=use, args=(n,)) for n in range(1, 5)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_uses_the_pool():
    x = mlgpu.ones(MIB)
    child = os.fork()
    if not child:
        y = mlgpu.ones(MIB)
        os._exit(0 if (x + y).sum().item() == 2 * MIB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_training_takes_nothing_from_the_system_once_it_is_warm(monkeypatch):
    model = mlgpu.nn.Sequential(mlgpu.nn.Linear(256, 512), mlgpu.nn.GELU(), mlgpu.nn.Linear(512, 8))
    optimizer = mlgpu.optim.AdamW(model.parameters())
    x = mlgpu.randn(128, 256)

    def step():
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    fresh = []
    real = pool._new
    monkeypatch.setattr(pool, "_new", lambda size: fresh.append(size) or real(size))
    for _ in range(5):
        step()
    assert fresh == []
