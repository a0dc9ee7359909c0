"""The one parallel loop of the CPU: a helper thread per further core beside the calling one.

Work is cut into tasks by its shape alone, every task writes its own part, and partial results are
put together in the order of the tasks: which thread ran a task, or when, never shows in a result.

NumPy and compiled kernels let go of the interpreter while they work, so threads of one process
are enough.  A call that finds the helpers at work for another thread does its tasks alone.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable

import numpy as np

from mlgpu.cpu import blas
from mlgpu.errors import ShapeError

__all__ = ["SERIAL", "get_num_threads", "parallel", "set_num_threads"]

# Elements below which waking a helper costs more than it brings (measured on softmax and GELU).
SERIAL = 1 << 18

Body = Callable[[int], None]


class _Job:
    """Tasks that any thread with a body may take from, until there are none."""

    def __init__(self, count: int, bodies: list[Body]) -> None:
        self.count = count
        self.bodies = bodies  # for those who have not come yet; empty: too late to join
        self.tasks = itertools.count()  # next() is atomic
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work(self, body: Body) -> None:
        while (task := next(self.tasks)) < self.count:
            body(task)

    def stop(self) -> None:
        self.count = 0

    def help(self) -> None:
        """Take part, if it is not too late; tell how it ended."""
        try:
            body = self.bodies.pop()
        except IndexError:
            return
        error: BaseException | None = None
        try:
            self.work(body)
        except BaseException as raised:  # the caller raises it
            self.stop()
            error = raised
        self.ended.put(error)


class _Local(threading.local):
    inside = False  # whether this thread is running a task


class _Team:
    """The helper threads.  A forked child makes its own."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.helpers = 0

    def run(self, job: _Job, body: Body, helpers: int) -> None:
        """All tasks of a job, by this thread with `body` and by helpers with the job's own."""
        while self.helpers < helpers:
            name = f"mlgpu-{self.helpers}"
            threading.Thread(target=_help, args=(self.jobs,), name=name, daemon=True).start()
            self.helpers += 1
        for _ in range(helpers):
            self.jobs.put(job)
        errors: list[BaseException] = []
        try:
            job.work(body)
        except BaseException as error:
            job.stop()
            errors.append(error)
        # Those who came must end before their memory may serve others; nobody waits for the rest.
        late = 0
        while job.bodies:
            try:
                job.bodies.pop()
            except IndexError:
                break
            late += 1
        for _ in range(helpers - late):
            ended = job.ended.get()
            if ended is not None:
                errors.append(ended)
        if errors:
            raise errors[0]


def _help(jobs: queue.SimpleQueue[_Job]) -> None:
    np.seterr(all="ignore")  # as in every operation: inf and nan are values, not events
    _local.inside = True
    while True:
        jobs.get().help()


_local = _Local()
_team = _Team()


def _default() -> int:
    for variable in ("MLGPU_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "")
        if text.isdecimal() and int(text):
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_threads = _default()


def get_num_threads() -> int:
    """How many threads one operation on the CPU uses."""
    return _threads


def set_num_threads(threads: int) -> None:
    """Let one operation on the CPU use this many threads, BLAS's included.

    The default is MLGPU_NUM_THREADS, else OMP_NUM_THREADS, else the number of cores this process
    may run on.  Sums of large tensors may change in their last bits with the number of threads.
    Raises TypeError or ShapeError (a ValueError) unless it is an int above 0.
    """
    global _threads
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise TypeError(f"set_num_threads: expected an int, got {type(threads).__name__}")
    if threads < 1:
        raise ShapeError(f"set_num_threads: expected at least 1, got {threads}")
    _threads = threads
    blas.set_num_threads(threads)


def parallel(count: int, start: Callable[[], Body], work: int) -> None:
    """Run tasks 0 to `count` - 1, on several threads where `work` (elements) is worth it.

    `start()` makes what runs a task by its number; it is called once for each thread, in the
    calling one, so that each has workspaces of its own, accounted to the caller.  Tasks may run in
    any order and at the same time; BLAS has one thread meanwhile.  The first error is raised when
    all have ended.
    """
    threads = min(_threads, count)
    if threads < 2 or work < SERIAL or _local.inside:
        body = start()
        for task in range(count):
            body(task)
        return
    alone = True
    try:
        _local.inside = True
        alone = not _team.busy.acquire(blocking=False)
        with blas.one_thread():
            if alone:
                body = start()
                for task in range(count):
                    body(task)
            else:
                body, *bodies = [start() for _ in range(threads)]
                _team.run(_Job(count, bodies), body, threads - 1)
    finally:
        _local.inside = False
        if not alone:
            _team.busy.release()


def _forked() -> None:
    global _team
    _team = _Team()
    _local.inside = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
