"""The DataLoader's worker processes: order, errors, deaths, seeds, and that none is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mlgpu
from mlgpu import data, memory
from mlgpu.errors import GraphError, MlgpuError
from mlgpu.random import Generator


@pytest.fixture(scope="module", autouse=True)
def helped():
    """Multiprocessing's own helper runs, and stays."""
    next(iter(data.DataLoader([0], num_workers=1)))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No process and no file descriptor survives a test."""
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert multiprocessing.active_children() == []
    assert descriptors() == before


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class Images(data.Dataset):
    def __init__(self, n, shape=(40, 50)):
        self.n = n
        self.shape = shape

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return {"image": np.full(self.shape, index, np.float32), "label": index, "name": str(index),
                "half": mlgpu.full((3,), float(index), dtype=mlgpu.bfloat16),
                "nothing": mlgpu.zeros(0, 2)}


class Doing(data.Dataset):
    """Does something of the kind `what` at index 5."""

    def __init__(self, what, n=12):
        self.what = what
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == 5:
            getattr(self, self.what)()
        return index

    def fail(self):
        raise KeyError("sample", 5)

    def fail_oddly(self):
        raise Odd(1, 2)

    def stop(self):
        next(iter([]))

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self):
        os._exit(7)

    def hang(self):
        time.sleep(1000)


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"odd {one} {two}")


class Random(data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), np.random.rand(), mlgpu.rand(()).item()


class RandomStream(data.IterableDataset):
    def __iter__(self):
        start = random.random()
        for _ in range(3):
            yield start, *Random()[0]


class Sharded(data.IterableDataset):
    def __iter__(self):
        info = data.get_worker_info()
        return iter(range(info.id, 10, info.num_workers))


class Logged(data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 100

    def __getitem__(self, index):
        with open(self.path, "a") as file:
            file.write(".")
        return index


class WithGraph(data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return mlgpu.ones(2).requires_grad_().view(1, 2)


def as_is(samples):
    return samples


def numbers(batch):
    if isinstance(batch, dict):
        return {key: numbers(value) for key, value in batch.items()}
    return (batch.dtype, batch.tolist()) if hasattr(batch, "tolist") else batch


def labels(loader):
    return [batch.tolist() for batch in loader]


# --- order and values -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_those_of_a_single_process(workers):
    options = {"batch_size": 3, "shuffle": True}
    alone = data.DataLoader(Images(20), generator=Generator().manual_seed(3), **options)
    helped = data.DataLoader(Images(20), generator=Generator().manual_seed(3), num_workers=workers,
                             **options)
    assert [numbers(b) for b in helped] == [numbers(b) for b in alone]
    assert [numbers(b) for b in helped] == [numbers(b) for b in alone]


def test_growing_batches_and_plain_objects():
    loader = data.DataLoader(list(range(9)), batch_sampler=[[i] * 4**i for i in range(9)],
                             num_workers=1, collate_fn=np.array)
    for i, batch in enumerate(loader):
        assert type(batch) is np.ndarray
        assert (batch == i).all()
        assert batch.shape == (4**i,)
    loader = data.DataLoader(["a", (1, None), {"x": {2}}], num_workers=2, batch_size=None)
    assert list(loader) == ["a", [1, None], {"x": {2}}]


def test_a_tensor_dataset_is_shared_with_the_workers():
    rows = mlgpu.tensor(np.arange(60_000.0).reshape(600, 100))
    loader = data.DataLoader(data.TensorDataset(rows), batch_size=100, num_workers=2)
    got = mlgpu.cat([x for x, in loader])
    assert (np.asarray(got) == np.asarray(rows)).all()


def test_batches_are_ordinary_memory_on_the_books():
    before = memory.stats("cpu").allocated
    batch = next(iter(data.DataLoader(Images(4, (100, 100)), batch_size=4, num_workers=1)))
    image = batch.pop("image")
    del batch
    assert memory.stats("cpu").allocated == before + 4 * 100 * 100 * 4
    image.fill_(1)
    assert image.view(-1)[0].item() == 1


def test_iterable_datasets_in_turn():
    loader = data.DataLoader(Sharded(), batch_size=2, num_workers=3)
    assert labels(loader) == [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]]
    loader = data.DataLoader(Sharded(), batch_size=2, num_workers=3, drop_last=True)
    assert labels(loader) == [[0, 3], [1, 4], [2, 5], [6, 9]]
    loader = data.DataLoader(Sharded(), batch_size=None, num_workers=2)
    assert list(loader) == list(range(10))


def test_workers_fetch_ahead_but_not_further(tmp_path):
    log = tmp_path / "log"
    iterator = iter(data.DataLoader(Logged(log), batch_size=2, num_workers=2, prefetch_factor=3))
    deadline = time.monotonic() + 20
    while not log.exists() or log.stat().st_size < 12:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    assert log.stat().st_size == 2 * 2 * 3
    next(iterator)
    time.sleep(0.2)
    assert log.stat().st_size == 2 * (2 * 3 + 1)


def test_resuming_with_workers():
    def loader():
        return data.DataLoader(list(range(20)), batch_size=3, shuffle=True, num_workers=2,
                               generator=Generator().manual_seed(1))

    first = loader()
    iterator = iter(first)
    next(iterator), next(iterator)
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert labels(second) == labels(iterator)


def test_two_threads_with_loaders_of_their_own():
    results = {}

    def run(name):
        results[name] = labels(data.DataLoader(list(range(name)), batch_size=4, num_workers=1))

    threads = [threading.Thread(target=run, args=(n,)) for n in (17, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[n] == labels(data.DataLoader(list(range(n)), batch_size=4))
               for n in (17, 21))


# --- seeds and setup ------------------------------------------------------------------------------


def drawing(dataset, workers=2, **options):
    return data.DataLoader(dataset, num_workers=workers, generator=Generator().manual_seed(5),
                           collate_fn=as_is, **options)


def drawn(**options):
    loader = drawing(Random(), **options)
    return [list(loader), list(loader)]


def test_random_numbers_of_workers_follow_from_the_generator():
    first, second = drawn()
    assert first != second
    values = [x for sample, in first + second for x in sample]
    assert len(set(values)) == len(values)
    assert drawn(workers=3) == drawn(persistent_workers=True) == [first, second]


@pytest.mark.parametrize("dataset", [Random(), RandomStream()], ids=["indexed", "iterable"])
def test_resuming_repeats_the_random_numbers_of_workers(dataset):
    loader = drawing(dataset)
    iterator = iter(loader)
    next(iterator), next(iterator), next(iterator)
    state, rest, following = loader.state_dict(), list(iterator), list(loader)
    assert rest
    loader.load_state_dict(state)
    assert [list(loader), list(loader)] == [rest, following]


class Introduced(data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        info = data.get_worker_info()
        return info.id, info.num_workers, info.dataset is self, os.environ.get("INTRODUCED")


def introduce(worker):
    os.environ["INTRODUCED"] = f"{worker} of {data.get_worker_info().num_workers}"


def test_workers_know_who_they_are_and_are_initialized():
    loader = data.DataLoader(Introduced(), num_workers=2, collate_fn=as_is,
                             worker_init_fn=introduce)
    expected = [(0, 2, True, "0 of 2"), (1, 2, True, "1 of 2")] * 2
    assert [sample for sample, in loader] == expected
    assert data.get_worker_info() is None


def refuse(worker):
    raise ValueError(f"worker {worker} will not")


def test_a_failing_initialization_is_raised():
    with pytest.raises(ValueError, match="worker 0 will not"):
        list(data.DataLoader([1, 2], num_workers=2, worker_init_fn=refuse))


def test_persistent_workers_stay_and_go_with_the_loader():
    loader = data.DataLoader(list(range(10)), batch_size=2, num_workers=2, persistent_workers=True)
    assert labels(loader) == labels(loader)
    workers = {p.pid for p in multiprocessing.active_children()}
    abandoned = iter(loader)
    next(abandoned)
    assert labels(loader) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert {p.pid for p in multiprocessing.active_children()} == workers
    assert len(workers) == 2
    with pytest.raises(MlgpuError, match="newer iteration"):
        next(abandoned)
    del loader, abandoned


def test_persistent_workers_are_replaced_after_a_failure():
    loader = data.DataLoader(Doing("fail"), num_workers=2, persistent_workers=True)
    for _ in range(2):
        with pytest.raises(KeyError):
            list(loader)
    assert multiprocessing.active_children() == []


def test_functions_that_cannot_travel_are_explained():
    with pytest.raises(MlgpuError, match=r"picklable.*top level of a module.*fork"):
        iter(data.DataLoader([1], num_workers=1, collate_fn=lambda batch: batch))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_take_anything():
    loader = data.DataLoader(Images(9), batch_size=2, num_workers=2, collate_fn=lambda b: len(b),
                             multiprocessing_context="fork")
    assert list(loader) == [2, 2, 2, 2, 1]
    with pytest.raises(KeyError):
        list(data.DataLoader(Doing("fail"), num_workers=2, multiprocessing_context="fork"))


# --- errors and deaths ----------------------------------------------------------------------------


def test_an_error_arrives_as_itself_with_the_workers_traceback():
    with pytest.raises(KeyError) as caught:
        list(data.DataLoader(Doing("fail"), batch_size=2, num_workers=2))
    assert caught.value.args == ("sample", 5)
    assert 'raise KeyError("sample", 5)' in str(caught.value.__cause__)
    assert multiprocessing.active_children() == []


def test_batches_before_the_error_arrive_first():
    iterator = iter(data.DataLoader(Doing("fail"), num_workers=3))
    assert [next(iterator).item() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.parametrize(("what", "text"), [("fail_oddly", "Odd: odd 1 2"), ("stop", "StopIter")])
def test_errors_that_cannot_be_raised_here_as_they_were(what, text):
    with pytest.raises(MlgpuError, match=text) as caught:
        list(data.DataLoader(Doing(what), num_workers=2))
    assert f"in {what}" in str(caught.value.__cause__)


@pytest.mark.parametrize(("what", "text"), [("kill", r"worker 1 \(pid \d+\).*SIGKILL"),
                                            ("leave", "exited with code 7")])
def test_a_dead_worker_is_reported(what, text):
    iterator = iter(data.DataLoader(Doing(what), num_workers=2))
    assert [next(iterator).item() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(MlgpuError, match=text):
        next(iterator)


def test_a_hanging_worker_is_reported_and_ended():
    started = time.monotonic()
    with pytest.raises(MlgpuError, match=r"timed out after 0\.5 seconds: worker 1"):
        list(data.DataLoader(Doing("hang"), num_workers=2, timeout=0.5))
    assert time.monotonic() - started < 10


def test_a_tensor_with_a_graph_cannot_leave():
    with pytest.raises(GraphError, match="detach"):
        list(data.DataLoader(WithGraph(), num_workers=1, collate_fn=as_is))


@pytest.mark.parametrize("how", ["break", "error in the loop", "never used"])
def test_an_abandoned_iteration_ends_its_workers_at_once(how):
    loader = data.DataLoader(Images(50), num_workers=2)
    if how == "never used":
        iter(loader)
    elif how == "break":
        for _ in loader:
            break
    else:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            for _ in loader:
                1 / 0  # noqa: B018
    assert multiprocessing.active_children() == []


# --- the whole process ----------------------------------------------------------------------------

SCRIPT = '''
import multiprocessing, os, signal, sys, time
import mlgpu
from mlgpu import data

class Slow(data.Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.02)
        return index

def main():
    # A shell starts its background jobs, the test run perhaps, with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for batch in data.DataLoader(Slow(), num_workers=2, persistent_workers={persistent}):
        if batch.item() == 1:
            print(*[p.pid for p in multiprocessing.active_children()], flush=True)
        {then}

{guard}main()
'''


def script(tmp_path, guard="if __name__ == '__main__': ", then="pass", persistent=False):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(guard=guard, then=then, persistent=persistent))
    root = Path(mlgpu.__file__).parents[1]
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, "PYTHONPATH": str(root)})


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose new parent has not reaped it yet is dead all the same.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids):
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "workers are still running"
        time.sleep(0.02)


posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@posix
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    with script(tmp_path) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
        process.communicate()
    wait_until_gone(pids)


@posix
@pytest.mark.parametrize("persistent", [False, True])
def test_ctrl_c_ends_quietly(tmp_path, persistent):
    with script(tmp_path, persistent=persistent) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
        _, errors = process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until_gone(pids)


@posix
def test_leaving_in_the_middle_ends_quietly(tmp_path):
    with script(tmp_path, then="if batch.item() == 3: sys.exit(5)", persistent=True) as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (5, "")
    wait_until_gone(int(pid) for pid in output.split())


def test_a_script_without_main_guard_is_told(tmp_path):
    with script(tmp_path, guard="") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "if __name__ == '__main__'" in errors.rstrip().splitlines()[-1]
