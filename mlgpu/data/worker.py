"""What runs in a worker process: it fetches the batches it is told to, in order.

A worker ends when it is told to, and also when its parent is gone, however that came about.
Ctrl-C is the parent's business: workers ignore it.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np

from mlgpu.cpu.threads import set_num_threads
from mlgpu.data.fetch import Fetch
from mlgpu.data.transport import Packed, Segment, unpack
from mlgpu.device import CPU
from mlgpu.random import manual_seed


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker of how many this process is, its seed, and its copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(frozen=True)
class Setup:
    """What all workers of a loader have in common."""

    fetch: Fetch
    worker_init_fn: Callable[[int], object] | None
    num_workers: int


@dataclass(frozen=True)
class Failure:
    """An exception on its way to the parent, with the worker's own traceback as text."""

    error: BaseException | None  # None where it cannot be pickled
    summary: str
    trace: str


Channel: TypeAlias = "Connection[Any, Any]"
_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a DataLoader, who it is; None in the main process.

    In an IterableDataset's `__iter__`, and in `worker_init_fn`, use it to give each worker its part
    of the samples.
    """
    return _info


def work(channel: Channel, inherited: Sequence[Channel], worker: int, slots: int,
         setup: Setup | None) -> None:
    """The life of worker number `worker`; the setup comes by the channel where it is None."""
    ignore_interrupts()
    for other in inherited:
        other.close()
    set_num_threads(1)  # workers share the machine with each other and with training
    threading.Thread(target=end_with_parent, daemon=True).start()
    # A forked worker has its parent's current device, of which it can use nothing but the CPU.
    with CPU, suppress(EOFError, ConnectionError):  # the parent has closed its end: nobody waits
        state: Setup | Failure | None = setup
        if state is None:
            segment = Segment.receive(channel, private=True)
            state = guarded(unpack, segment, channel.recv(), False)
        channel.send("up")
        _serve(channel, worker, slots, state)


def _serve(channel: Channel, worker: int, slots: int, state: Any) -> None:
    outbox = _Outbox(channel, slots)
    fetch: Any = None
    base_seed = 0
    while (message := channel.recv()) is not None:
        kind, content = message
        if kind == "epoch":
            # A Failure, here or in unpacking, is the answer to every request until the parent ends.
            failed = isinstance(state, Failure)
            fetch = state if failed else guarded(_start, state, worker, content)
            base_seed = content
        elif isinstance(fetch, Failure):
            outbox.put(fetch)
        else:
            number, request = content
            _seed(np.random.SeedSequence(base_seed, spawn_key=(number,)))
            outbox.put(guarded(fetch, request))


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # Blocked by the parent while it started us, so that none could strike before this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _start(setup: Setup, worker: int, base_seed: int) -> Callable[[Any], Any]:
    """Seed all generators, tell the worker who it is, and open the dataset for one epoch."""
    global _info
    _seed(np.random.SeedSequence([base_seed, worker]))
    first = _info is None
    _info = WorkerInfo(worker, setup.num_workers, base_seed + worker, setup.fetch.dataset)
    if first and setup.worker_init_fn is not None:
        setup.worker_init_fn(worker)
    return setup.fetch.open()


def _seed(sequence: np.random.SeedSequence) -> None:
    """Seed mlgpu's, Python's and NumPy's generators.

    Before each batch, so that its random numbers follow from the epoch's seed and its number alone:
    neither the number of workers nor a resumption within the epoch changes them.
    """
    words = sequence.generate_state(4)
    seed = int(words[0]) << 32 | int(words[1])
    manual_seed(seed)
    random.seed(seed)
    np.random.seed(words)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, or the Failure that says what it raised."""
    try:
        return function(*arguments)
    except Exception as error:
        trace = traceback.format_exc()
        summary = "".join(traceback.format_exception_only(error)).strip()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever a user's exception does when pickled, its text arrives
            return Failure(None, summary, trace)
        return Failure(error, summary, trace)


class _Outbox:
    """Sends results, each in the slot that the parent has certainly emptied.

    The parent asks for at most `slots` batches ahead, so when it asks for one more, it has taken
    the one that was `slots` before.
    """

    def __init__(self, channel: Channel, slots: int) -> None:
        self._channel = channel
        self._segments: list[Segment | None] = [None] * slots
        self._count = 0

    def put(self, result: Any) -> None:
        packed = guarded(Packed, result)
        if isinstance(packed, Failure):
            packed = Packed(packed)
        slot = self._count % len(self._segments)
        self._count += 1
        segment = self._segments[slot]
        if segment is not None and segment.capacity >= packed.nbytes:
            packed.write(segment)
            self._channel.send((slot, packed.sizes, False))
            return
        if segment is not None:
            segment.close_handle()  # not before: the parent has certainly received it by now
        # A quarter more, so that batches of slightly different sizes soon all fit.
        segment = self._segments[slot] = Segment.create(packed.nbytes + packed.nbytes // 4)
        packed.write(segment)
        self._channel.send((slot, packed.sizes, True))
        segment.share(self._channel)
