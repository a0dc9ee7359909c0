"""The one parallel loop: every task once, in any order, by no more threads than asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import blas, threads
from mlgpu.errors import ShapeError

LARGE = threads.SERIAL


@pytest.fixture
def two():
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(2)
    yield
    mlgpu.set_num_threads(before)


def record(count, work, sleep=0.0):
    """What ran: {task: thread}, and how many bodies were made."""
    ran, bodies = {}, []

    def start():
        bodies.append(threading.get_ident())

        def body(task):
            assert task not in ran
            ran[task] = threading.get_ident()
            time.sleep(sleep)
        return body

    threads.parallel(count, start, work)
    return ran, bodies


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
@pytest.mark.parametrize("work", [0, LARGE])
def test_every_task_runs_once(two, count, work):
    ran, bodies = record(count, work)
    assert sorted(ran) == list(range(count))
    assert set(bodies) == {threading.get_ident()}, "workspaces are made by the caller"


def test_a_helper_takes_part_in_large_work_alone(two):
    ran, bodies = record(60, LARGE, 0.005)
    assert len(set(ran.values())) == 2
    assert len(bodies) == 2
    ran, bodies = record(40, LARGE - 1)
    assert set(ran.values()) == {threading.get_ident()}
    assert len(bodies) == 1


def test_one_thread_asks_nobody():
    before = mlgpu.get_num_threads()
    try:
        mlgpu.set_num_threads(1)
        ran, bodies = record(10, LARGE)
        assert set(ran.values()) == {threading.get_ident()}
        assert len(bodies) == 1
    finally:
        mlgpu.set_num_threads(before)


def test_more_threads_than_cores_work_too():
    before = mlgpu.get_num_threads()
    try:
        mlgpu.set_num_threads(5)
        ran, bodies = record(50, LARGE, 0.005)
        assert sorted(ran) == list(range(50))
        assert len(bodies) == 5
        assert 2 <= len(set(ran.values())) <= 5
    finally:
        mlgpu.set_num_threads(before)


@pytest.mark.parametrize("thrower", ["caller", "helper"])
def test_an_error_is_raised_when_all_have_ended(two, thrower):
    main, active = threading.get_ident(), []

    def start():
        def body(task):
            active.append(task)
            time.sleep(0.003)
            active.remove(task)
            if (threading.get_ident() == main) == (thrower == "caller"):
                raise FloatingPointError("no such number")
        return body

    with pytest.raises(FloatingPointError, match="no such number"):
        threads.parallel(50, start, LARGE)
    assert not active
    ran, _ = record(20, LARGE)
    assert len(ran) == 20, "the team works on"


def test_a_task_may_ask_for_a_loop_itself(two):
    done = []

    def start():
        return lambda task: threads.parallel(3, lambda: lambda inner: done.append((task, inner)),
                                             LARGE)

    threads.parallel(4, start, LARGE)
    assert sorted(done) == [(t, i) for t in range(4) for i in range(3)]


def test_blas_has_one_thread_inside_and_its_own_after(two):
    library = blas._found()
    if library.get() is None:
        pytest.skip("this BLAS does not say how many threads it has")
    seen = []
    threads.parallel(4, lambda: lambda task: seen.append(library.get()), LARGE)
    assert seen == [1] * 4
    assert library.get() == 2
    with pytest.raises(ZeroDivisionError):
        threads.parallel(4, lambda: lambda task: 1 // 0, LARGE)
    assert library.get() == 2
    with blas.one_thread():
        mlgpu.set_num_threads(3)
        assert library.get() == 1
    assert library.get() == 3


def test_threads_of_the_user_share_one_team(two):
    """A second caller finds the helpers busy and works alone: two callers, one helper."""
    most, now, lock = [0], [0], threading.Lock()

    def start():
        def body(task):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1
        return body

    team = [threading.Thread(target=threads.parallel, args=(30, start, LARGE)) for _ in range(3)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert 2 <= most[0] <= 4


def test_helpers_meet_inf_and_nan_without_a_warning(two):
    x = np.full(1 << 20, -1.0, np.float32)

    def start():
        def body(task):
            time.sleep(0.002)
            np.sqrt(x[task::20])  # a warning is an error here
        return body

    with np.errstate(all="ignore"):
        threads.parallel(20, start, LARGE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_makes_its_own_helpers(two):
    record(10, LARGE, 0.001)
    child = os.fork()
    if not child:
        ran, _ = record(60, LARGE, 0.005)
        os._exit(0 if len(ran) == 60 and len(set(ran.values())) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_interrupt_waits_for_the_helpers(two):
    if sys.platform == "win32":
        pytest.skip("signals differ")
    import signal

    running = []

    def start():
        def body(task):
            running.append(task)
            time.sleep(0.01)
            running.remove(task)
        return body

    main = threading.main_thread().ident
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    try:
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            threads.parallel(1000, start, LARGE)
    finally:
        signal.signal(signal.SIGINT, before)
    # The task that the interrupt struck was the caller's own.
    assert len(running) <= 1


@pytest.mark.parametrize("threads", ["2", 2.0, None, True])
def test_a_number_of_threads_is_an_int(threads):
    with pytest.raises(TypeError, match="set_num_threads: expected an int"):
        mlgpu.set_num_threads(threads)


@pytest.mark.parametrize("threads", [0, -1])
def test_at_least_one_thread(threads):
    with pytest.raises(ShapeError, match="set_num_threads: expected at least 1"):
        mlgpu.set_num_threads(threads)


@pytest.mark.parametrize(("environment", "expected"), [
    ({"MLGPU_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"), ({"OMP_NUM_THREADS": "5"}, "5"),
    ({"OMP_NUM_THREADS": "0"}, None), ({"MLGPU_NUM_THREADS": "many"}, None)])
def test_the_default_number_of_threads(environment, expected):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    clean = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    found = subprocess.run([sys.executable, "-c", "import mlgpu; print(mlgpu.get_num_threads())"],
                           env={**clean, **environment}, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == (expected or str(cores))
