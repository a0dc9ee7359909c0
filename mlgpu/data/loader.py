"""DataLoader: batches of a dataset in an order, made here or by worker processes."""

from __future__ import annotations

import itertools
import multiprocessing
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from mlgpu.data.collate import default_collate, default_convert, pin
from mlgpu.data.dataset import Dataset, IterableDataset
from mlgpu.data.fetch import Exhausted, Fetch
from mlgpu.data.pool import WorkerPool
from mlgpu.data.sampler import BatchSampler, RandomSampler, SequentialSampler, draw_seed
from mlgpu.data.worker import Setup
from mlgpu.device import cuda_problem
from mlgpu.errors import DeviceError, FormatError, MlgpuError
from mlgpu.random import Generator

T_co = TypeVar("T_co", covariant=True)
_FIXED = {"dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers"}


class DataLoader(Generic[T_co]):
    """Iterates over the batches of `dataset`; each `iter()` is one epoch.

    The order comes from `sampler` or `batch_sampler`, else it is the dataset's, or random with
    `shuffle`; everything random follows from `generator` (the process's own if None).
    `batch_size=None` gives single samples.  `collate_fn` makes a batch of a list of samples.

    With `num_workers` > 0, that many processes fetch ahead, `prefetch_factor` batches each, and the
    batches still come in order.  They are started by "spawn" on every platform, because forking a
    process that has threads can deadlock; so dataset and functions must be picklable, and scripts
    need `if __name__ == "__main__":`.  `multiprocessing_context="fork"` forks instead.  Before each
    batch a worker seeds mlgpu's, Python's and NumPy's random numbers from a fresh seed of the epoch
    and the batch's number, so they do not depend on how many workers there are.  What a worker
    raises is raised here, with the worker's traceback; MlgpuError says that one died, or took
    longer than `timeout` seconds.  Workers end with the epoch, or with the loader if
    `persistent_workers`.

    `state_dict` and `load_state_dict` resume in the middle of an epoch with the same order.
    """

    def __init__(self, dataset: Dataset[T_co], batch_size: int | None = 1,
                 shuffle: bool | None = None, sampler: Iterable[Any] | None = None,
                 batch_sampler: Iterable[Sequence[Any]] | None = None, num_workers: int = 0,
                 collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0,
                 worker_init_fn: Callable[[int], object] | None = None,
                 multiprocessing_context: str | BaseContext | None = None,
                 generator: Generator | None = None, *, prefetch_factor: int | None = None,
                 persistent_workers: bool = False) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers,
                       multiprocessing_context)
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            _check_iterable(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("DataLoader: batch_sampler option is mutually exclusive with "
                                 "batch_size, shuffle, sampler, and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("DataLoader: batch_size=None option disables auto-batching and is "
                             "mutually exclusive with drop_last")
        if pin_memory and (problem := cuda_problem()) is not None:
            raise DeviceError(f"DataLoader: pin_memory needs CUDA, but {problem}; leave it out")
        self.dataset = dataset
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.batch_size = batch_size
        self.drop_last = drop_last
        if sampler is None and not self._iterable:
            sampler = (RandomSampler(dataset, generator=generator) if shuffle  # type: ignore[arg-type]
                       else SequentialSampler(dataset))  # type: ignore[arg-type]
        self.sampler = sampler
        if batch_size is not None:
            _check_batch_size(batch_size, drop_last)
            if sampler is not None:
                batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler
        self._batched = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self.multiprocessing_context = multiprocessing_context
        self._progress = Progress()
        self._resume: Progress | None = None
        self._pool: WorkerPool | None = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_initialized" in self.__dict__:
            raise ValueError(f"DataLoader: {name} attribute should not be set after DataLoader is "
                             "initialized; make a new one")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """Batches per epoch; TypeError where the sampler or iterable dataset has no length."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        if not self._iterable:
            return len(self.sampler)  # type: ignore[arg-type]
        count = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        resume, self._resume = self._resume, None
        requests = self._requests()
        if resume is None:
            progress, skip = Progress(0, draw_seed(self.generator)), 0
        else:
            progress, skip = Progress(0, resume.base_seed), resume.batches
        self._progress = progress
        if not self._iterable:  # skipping indices costs nothing, samples have to be fetched
            requests = itertools.islice(requests, skip, None)
            progress.batches, skip = skip, 0
        batches = self._parallel(requests, progress) if self.num_workers else self._serial(requests)
        counted = self._counted(batches, progress)
        for _ in range(skip):
            next(counted, None)
        return counted

    def _requests(self) -> Iterator[Any]:
        if self._iterable:
            return itertools.repeat(self.batch_size)
        source = self.sampler if self.batch_sampler is None else self.batch_sampler
        assert source is not None
        return iter(source)

    def _fetch(self) -> Fetch:
        return Fetch(self.dataset, self.collate_fn, self._iterable, self._batched, self.drop_last)

    def _serial(self, requests: Iterator[Any]) -> Iterator[Any]:
        fetch = self._fetch().open()
        for request in requests:
            # Popped, so that a batch which the caller has dropped is gone.
            box = [fetch(request)]
            if isinstance(box[0], Exhausted):
                return
            yield box.pop()

    def _parallel(self, requests: Iterator[Any], progress: Progress) -> Iterator[Any]:
        assert self.prefetch_factor is not None
        assert progress.base_seed is not None
        pool = self._pool
        if pool is None or pool.closed:
            setup = Setup(self._fetch(), self.worker_init_fn, self.num_workers)
            pool = WorkerPool(setup, _context(self.multiprocessing_context),
                              self.prefetch_factor, self.timeout)
            if self.persistent_workers:
                self._pool = pool
                weakref.finalize(self, pool.close)
        return ParallelIterator(pool, enumerate(requests, progress.batches), progress.base_seed,
                                self.persistent_workers)

    def _counted(self, batches: Iterator[Any], progress: Progress) -> Iterator[Any]:
        box = []
        for batch in batches:
            progress.batches += 1
            box.append(pin(batch) if self.pin_memory else batch)
            del batch
            yield box.pop()
        progress.finished = True

    # --- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch that was begun last stands, for `load_state_dict` of an equal loader.

        It holds the seeds of the epoch, the batches given so far and the state of `generator`.
        Save the process's own generator (`get_rng_state`) with it if `generator` is None.
        """
        progress = self._progress
        current = progress.base_seed is not None and not progress.finished
        stateful = self._stateful_sampler()
        return {"batches": progress.batches if current else 0,
                "base_seed": progress.base_seed if current else None,
                "sampler": stateful.state_dict() if current and stateful is not None else None,
                "generator": None if self.generator is None else self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next epoch be the rest of the one that `state` was taken in.

        The indices are the same; so are the random numbers that a dataset draws in workers, and
        without workers where the process's generators are restored too.  Batches of an
        IterableDataset are fetched again and dropped.
        """
        if set(state) != {"batches", "base_seed", "sampler", "generator"}:
            raise FormatError("DataLoader: expected the state_dict of a DataLoader, got the keys "
                              f"{sorted(state)}")
        if (state["generator"] is None) != (self.generator is None):
            raise FormatError("DataLoader: the state was taken of a loader "
                              f"{'without' if self.generator else 'with'} generator")
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        self._resume = None
        if state["base_seed"] is None:
            return
        stateful = self._stateful_sampler()
        if (stateful is None) != (state["sampler"] is None):
            raise FormatError("DataLoader: the state was taken of a loader with another sampler")
        if stateful is not None:
            stateful.load_state_dict(state["sampler"])
        self._resume = Progress(state["batches"], state["base_seed"])

    def _stateful_sampler(self) -> Any:
        inner = getattr(self.batch_sampler, "sampler", None)
        candidates = (self.batch_sampler, inner, self.sampler)
        return next((c for c in candidates if hasattr(c, "load_state_dict")), None)


@dataclass
class Progress:
    """How far an epoch has come, and the seed of its workers."""

    batches: int = 0
    base_seed: int | None = None
    finished: bool = False


class ParallelIterator(Iterator[Any]):
    """The batches that a pool's workers make, in the order of the requests."""

    def __init__(self, pool: WorkerPool, requests: Iterator[tuple[int, Any]], base_seed: int,
                 persistent: bool) -> None:
        self._pool = pool
        self._requests = requests
        self._due: deque[int] = deque()  # the workers that the next batches come from
        self._persistent = persistent
        # Also where the iterator is dropped in the middle of an epoch, and at exit.
        self._close = pool.close if persistent else weakref.finalize(self, pool.close)
        try:
            self._epoch = pool.begin(base_seed)
            for worker in list(range(pool.size)) * pool.slots:
                self._ask(worker)
        except BaseException:
            self._close()
            raise

    def _ask(self, worker: int) -> None:
        for number, request in itertools.islice(self._requests, 1):
            self._pool.ask(worker, number, request)
            self._due.append(worker)

    def __next__(self) -> Any:
        if self._due and self._pool.epoch != self._epoch:
            raise MlgpuError("DataLoader: a newer iteration has taken over the persistent workers "
                             "of this loader; finish one before you begin the next")
        try:
            while self._due:
                worker = self._due.popleft()
                batch = self._pool.take(worker)
                # Of an exhausted worker nothing more is asked, what is under way comes back empty.
                if not isinstance(batch, Exhausted):
                    self._ask(worker)
                    return batch
        except BaseException:
            self._due.clear()
            self._close()
            raise
        if not self._persistent:
            self._close()
        raise StopIteration


def _context(chosen: str | BaseContext | None) -> BaseContext:
    if isinstance(chosen, BaseContext):
        return chosen
    return multiprocessing.get_context(chosen or "spawn")


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None,
                   persistent_workers: bool, context: str | BaseContext | None) -> None:
    if num_workers < 0:
        raise ValueError("DataLoader: num_workers option should be non-negative; use num_workers=0 "
                         "to disable multiprocessing")
    if timeout < 0:
        raise ValueError("DataLoader: timeout option should be non-negative")
    if num_workers == 0:
        given = {"prefetch_factor": prefetch_factor is not None, "timeout": timeout > 0,
                 "persistent_workers": persistent_workers,
                 "multiprocessing_context": context is not None}
        for option in (name for name, is_given in given.items() if is_given):
            raise ValueError(f"DataLoader: {option} option needs num_workers > 0")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError("DataLoader: prefetch_factor option should be positive, got "
                         f"{prefetch_factor}")
    methods = multiprocessing.get_all_start_methods()
    if isinstance(context, str) and context not in methods:
        raise ValueError("DataLoader: multiprocessing_context option should specify a valid start "
                         f"method in {methods}, but got multiprocessing_context={context!r}")


def _check_iterable(shuffle: bool | None, sampler: object, batch_sampler: object) -> None:
    given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
    for option, value in given.items():
        if value is not None:
            raise ValueError("DataLoader with IterableDataset: expected unspecified "
                             f"{option} option, but got {option}={value}")


def _check_batch_size(batch_size: int, drop_last: bool) -> None:
    if type(batch_size) is not int or batch_size <= 0:
        raise ValueError("DataLoader: batch_size should be a positive integer value, but got "
                         f"batch_size={batch_size}")
    if not isinstance(drop_last, bool):
        raise ValueError("DataLoader: drop_last should be a boolean value, but got "
                         f"drop_last={drop_last}")
