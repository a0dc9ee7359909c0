"""Threads and forks: one model serves many threads, and what is per thread stays there."""

from __future__ import annotations

import os
import sys
import threading
import weakref

import numpy as np
import pytest

import mlgpu
from mlgpu import memory, nn, storage

THREADS = 8


def in_threads(work, count=THREADS):
    """work(0), work(1), ... each in its thread, all let loose at once; their results in order."""
    results, errors = [None] * count, []
    barrier = threading.Barrier(count)

    def run(i):
        try:
            barrier.wait()
            results[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they meet in every line
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    return results


def generator(seed):
    made = mlgpu.Generator()
    made.manual_seed(seed)
    return made


def network(seed):
    """A model of many kinds of layers, its weights drawn from a seed."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 32), nn.GELU(), nn.LayerNorm(32), nn.Dropout(0.0), nn.Linear(32, 10))
    source = generator(seed)
    with mlgpu.no_grad():
        for parameter in model.parameters():
            parameter.copy_(mlgpu.randn(parameter.shape, generator=source) * 0.1)
    return model


def batch(seed, n=16):
    source = generator(1000 + seed)
    x = mlgpu.randn(n, 1, 8, 8, generator=source)
    return x, mlgpu.randint(0, 10, (n,), generator=source)


def bits(tensors):
    return [t.detach().numpy().tobytes() for t in tensors]


def infer(model, seed):
    with mlgpu.no_grad():
        return bits(model(batch(seed + step)[0]) for step in range(5))


def train(seed, steps=12):
    model = network(seed)
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        x, target = batch(100 * seed + step)
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss)
    return bits([*losses, *model.parameters(), *model.buffers()])


def test_eight_threads_of_inference_on_one_model():
    model = network(0).eval()
    serial = [infer(model, i) for i in range(THREADS)]
    assert in_threads(lambda i: infer(model, i)) == serial


def test_eight_threads_train_separate_models():
    serial = [train(i) for i in range(THREADS)]
    assert in_threads(train) == serial


def test_inference_and_training_at_once():
    model = network(0).eval()
    serial = [infer(model, i) if i % 2 else train(i) for i in range(THREADS)]
    assert in_threads(lambda i: infer(model, i) if i % 2 else train(i)) == serial


def test_threads_record_separate_graphs_over_shared_weights():
    """Each thread takes its own gradients of one model by autograd.grad."""
    model = network(1).eval()
    parameters = list(model.parameters())

    def gradients(i):
        x, target = batch(i)
        loss = nn.functional.cross_entropy(model(x), target)
        return bits(mlgpu.autograd.grad(loss, parameters))

    serial = [gradients(i) for i in range(THREADS)]
    assert in_threads(gradients) == serial
    assert all(p.grad is None for p in parameters)


def test_first_uses_may_collide():
    """Fused functions are traced, families imported and programs lowered by whoever comes first."""
    for _ in range(20):
        fused = mlgpu.fuse(lambda a, b: mlgpu.where(a > b, (a * b).sin(), a - b).exp())
        x = mlgpu.tensor(np.linspace(-1, 1, 1000), requires_grad=True)

        def work(i, fused=fused, x=x):
            y = fused(x, i / 7)
            return bits([y, *mlgpu.autograd.grad(y.sum(), x)])

        found = in_threads(work)
        assert found == [work(i) for i in range(THREADS)]


def test_grad_mode_belongs_to_its_thread():
    with mlgpu.no_grad():
        assert in_threads(lambda i: mlgpu.is_grad_enabled()) == [True] * THREADS
    with mlgpu.inference_mode():
        assert not any(in_threads(lambda i: mlgpu.is_inference_mode_enabled()))

    def work(i):
        seen = []
        for _ in range(200):
            with mlgpu.set_grad_enabled(i % 2 == 0):
                x = mlgpu.ones(1, requires_grad=True)
                seen.append((x * 2).requires_grad)
        return set(seen)

    assert in_threads(work) == [{i % 2 == 0} for i in range(THREADS)]


def test_a_shared_context_manager_keeps_its_threads_apart():
    """One no_grad object, as a decorator makes it, used by all threads at once."""
    @mlgpu.no_grad()
    def frozen(x):
        return (x * 2).requires_grad

    def work(i):
        x = mlgpu.ones(1, requires_grad=True)
        return {(frozen(x), (x * 2).requires_grad) for _ in range(200)}

    assert in_threads(work) == [{(False, True)}] * THREADS


def test_the_default_device_belongs_to_its_thread():
    def work(i):
        mlgpu.set_default_device("cpu" if i % 2 else None)
        with mlgpu.device("cpu"):
            return str(mlgpu.zeros(1).device), str(mlgpu.get_default_device())

    assert in_threads(work) == [("cpu", "cpu")] * THREADS


def test_budgets_belong_to_their_thread():
    def work(i):
        size = 1000 * (i + 1)
        outcomes = set()
        for _ in range(50):
            with memory.budget(size):
                x = mlgpu.zeros(size, dtype=mlgpu.uint8)
                try:
                    mlgpu.zeros(1)
                except mlgpu.OutOfMemoryError as error:
                    outcomes.add(f"of {memory.format_bytes(size)} are in use" in str(error))
                else:
                    outcomes.add("not refused")
                del x
        return outcomes

    assert in_threads(work) == [{True}] * THREADS


def test_one_stream_of_random_numbers_is_shared_without_loss():
    mlgpu.manual_seed(5)
    serial = sorted(bits(mlgpu.rand(1000) for _ in range(10 * THREADS)))
    mlgpu.manual_seed(5)
    parallel = in_threads(lambda i: bits(mlgpu.rand(1000) for _ in range(10)))
    assert sorted(b for part in parallel for b in part) == serial


def test_gradients_into_one_leaf_by_turns():
    """Accumulating into a shared leaf needs a lock of the user's; with it nothing is lost."""
    w, lock = mlgpu.zeros(100, requires_grad=True), threading.Lock()

    def work(i):
        for _ in range(50):
            loss = (w * float(i + 1)).sum()
            with lock:
                loss.backward()

    in_threads(work)
    assert w.grad.tolist() == [50.0 * sum(range(1, THREADS + 1))] * 100


# --- fork -----------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# Forking while other threads run is what Python warns of; that it works here is the point.
ignored = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def in_child(work, timeout=60.0):
    """Run `work` in a forked process; its exit code, or None if it hung and was killed."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    done = threading.Event()
    killer = threading.Thread(target=lambda: done.wait(timeout) or os.kill(child, 9))
    killer.start()
    _, status = os.waitpid(child, 0)
    done.set()
    killer.join()
    return os.waitstatus_to_exitcode(status)


@forks
@ignored
def test_a_forked_child_computes():
    serial = train(3, steps=3)
    assert in_child(lambda: train(3, steps=3) == serial) == 0


@forks
@ignored
def test_a_fork_amid_busy_threads_leaves_no_lock_behind():
    stop = threading.Event()
    source = generator(0)

    def busy():
        while not stop.is_set():
            mlgpu.rand(10, generator=source)
            mlgpu.rand(10)
            memory.snapshot()
            mlgpu.zeros(10) + 1

    def compute():
        mlgpu.manual_seed(1)
        x = mlgpu.rand(100, generator=source).add(mlgpu.rand(100)).requires_grad_()
        (x * x).sum().backward()
        before = memory.stats().allocated
        y = mlgpu.zeros(1000)
        return memory.stats().allocated - before == y.nbytes and x.grad is not None

    threads = [threading.Thread(target=busy) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    try:
        codes = [in_child(compute, timeout=20) for _ in range(40)]
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert codes == [0] * 40


def test_views_made_at_once_are_all_released(monkeypatch):
    """No thread's view is forgotten, or it would keep memory that was to be given back."""
    x, kept, ref, others = mlgpu.ones(64), [], weakref.ref, []

    def meanwhile(holder):
        # Another thread comes in the midst of a view's making.
        if not others and isinstance(holder, mlgpu.Tensor):
            others.append(threading.Thread(target=lambda: kept.extend(x[n:] for n in range(40))))
            others[0].start()
            others[0].join(0.2)
        return ref(holder)

    kept.append(x[1:])
    monkeypatch.setattr(storage.weakref, "ref", meanwhile)
    kept.append(x[2:])
    others[0].join()
    monkeypatch.undo()
    x.release()
    assert len(kept) == 42
    assert [type(view._array) for view in kept] == [storage._Released] * 42
