"""The parent's side of worker processes: starting them, talking to them, always reaping them."""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

from mlgpu.data.transport import Packed, Segment, unpack
from mlgpu.data.worker import Failure, Setup, work
from mlgpu.errors import MlgpuError

_GRACE = 5.0  # seconds that an idle worker gets to leave before it is made to
_GRACE_BUSY = 0.5  # the same when it is in the middle of a batch that nobody wants any more


class WorkerTraceback(Exception):
    """The traceback of a worker, shown as the cause of its exception in the parent."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class WorkerPool:
    """`size` worker processes that each fetch batches in the order they are asked for.

    Not shared between threads.  `close` may be called at any time, and more than once.
    """

    size: int
    slots: int  # batches that a worker may be ahead
    epoch = 0  # how often an epoch was begun
    closed = False

    def __init__(self, setup: Setup, context: BaseContext, slots: int, timeout: float) -> None:
        self._timeout = timeout or None
        self.slots = slots
        self.size = setup.num_workers
        self._processes: list[Any] = []
        self._channels: list[Any] = []
        self._segments: list[dict[int, Segment]] = [{} for _ in range(setup.num_workers)]
        self._outstanding = [0] * setup.num_workers
        self._ready = False
        inherits = context.get_start_method() == "fork"
        payload = None if inherits else _pack(setup, context)
        shared = None
        try:
            if payload is not None:
                shared = Segment.create(payload.nbytes)
                payload.write(shared)
            for worker in range(setup.num_workers):
                self._start(worker, context, setup if inherits else None)
                if payload is not None and shared is not None:
                    self._send_setup(worker, shared, payload.sizes)
        except BaseException:
            self.close()
            raise
        finally:
            if shared is not None:
                shared.close_handle()

    def _start(self, worker: int, context: BaseContext, setup: Setup | None) -> None:
        ours, theirs = context.Pipe(duplex=True)
        self._channels.append(ours)
        # A forked worker must not hold our ends open, or the others would not see them close.
        inherited = () if setup is None else tuple(self._channels)
        process = context.Process(  # type: ignore[attr-defined]
            target=work, args=(theirs, inherited, worker, self.slots, setup), daemon=True,
            name=f"mlgpu DataLoader worker {worker}")
        with interrupts_blocked():
            process.start()
        self._processes.append(process)
        theirs.close()

    def _send_setup(self, worker: int, shared: Segment, sizes: list[int]) -> None:
        try:
            shared.share(self._channels[worker])
            self._channels[worker].send(sizes)
        except OSError:
            raise self._died(worker) from None

    # --- work -------------------------------------------------------------------------------

    def begin(self, base_seed: int) -> int:
        """Start an epoch: forget what is still on its way, seed the workers, open the dataset.

        Answers with the number of the epoch.  The first time it waits until all workers have come
        up, which the timeout is not for.
        """
        for worker in range(len(self._processes)):
            if not self._ready:
                self._wait_until_up(worker)
            while self._outstanding[worker]:
                self._receive(worker)
            self._send(worker, ("epoch", base_seed))
        self._ready = True
        self.epoch += 1
        return self.epoch

    def _wait_until_up(self, worker: int) -> None:
        try:
            self._channels[worker].recv()
        except (EOFError, OSError):
            raise self._died(worker) from None

    def ask(self, worker: int, number: int, request: Any) -> None:
        """Have a worker fetch batch `number` of the epoch; at most `slots` may be outstanding.

        That a worker has died is said where its batch is missed: those before it are whole.
        """
        self._outstanding[worker] += 1
        with contextlib.suppress(OSError):
            self._channels[worker].send(("fetch", (number, request)))

    def take(self, worker: int) -> Any:
        """The next batch of this worker.

        Raises what the worker raised, and MlgpuError where it died or exceeded the timeout.
        """
        result = self._receive(worker)
        if not isinstance(result, Failure):
            return result
        cause = WorkerTraceback(result.trace)
        if result.error is None or isinstance(result.error, StopIteration):
            # Raised as itself, a StopIteration would silently end the caller's loop.
            raise MlgpuError(f"DataLoader: worker {worker} raised {result.summary}") from cause
        raise result.error from cause

    def _send(self, worker: int, message: Any) -> None:
        try:
            self._channels[worker].send(message)
        except OSError:
            raise self._died(worker) from None

    def _receive(self, worker: int) -> Any:
        channel, process = self._channels[worker], self._processes[worker]
        ready = connection.wait([channel, process.sentinel], self._timeout)
        if not ready:
            raise MlgpuError(f"DataLoader timed out after {self._timeout} seconds: worker {worker} "
                             f"(pid {process.pid}) is still at its batch")
        try:
            # A dead worker's last messages are still there to be read.
            slot, sizes, fresh = channel.recv()
            if fresh:
                self._segments[worker][slot] = Segment.receive(channel)
        except (EOFError, OSError):
            raise self._died(worker) from None
        self._outstanding[worker] -= 1
        return unpack(self._segments[worker][slot], sizes, True)

    def _died(self, worker: int) -> MlgpuError:
        process = self._processes[worker]
        process.join(_GRACE)
        code = process.exitcode
        if code is None:
            how = "closed its connection"
        elif code < 0:
            how = f"was killed by {signal_name(-code)}"
        else:
            how = f"exited with code {code}"
        hint = {-9: "; the system kills processes when memory runs out",
                1: "; its own error is printed above. A script that starts workers must do so "
                   "under if __name__ == '__main__':"}.get(code, "")
        return MlgpuError(f"DataLoader: worker {worker} (pid {process.pid}) exited unexpectedly: "
                          f"it {how}{hint}")

    # --- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """End all workers and wait for them: politely, then by SIGTERM, then by SIGKILL."""
        self.closed = True
        channels, self._channels = self._channels, []
        processes, self._processes = self._processes, []
        for channel, outstanding in zip(channels, self._outstanding, strict=False):
            if not outstanding:  # so the pipe is empty and this cannot block
                with contextlib.suppress(OSError):
                    channel.send(None)
            channel.close()
        deadline = time.monotonic() + (_GRACE_BUSY if any(self._outstanding) else _GRACE)
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for end in ("terminate", "kill"):
            remaining = [process for process in processes if process.is_alive()]
            for process in remaining:
                getattr(process, end)()
            for process in remaining:
                process.join(_GRACE)
        for process in processes:
            if not process.is_alive():
                process.close()


def _pack(setup: Setup, context: BaseContext) -> Packed:
    try:
        return Packed(setup)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise MlgpuError(
            f"DataLoader: workers are new processes (start method {context.get_start_method()!r}), "
            "so dataset, collate_fn and worker_init_fn must be picklable, and one is not: "
            f"{error}; define it at the top level of a module, or pass "
            "multiprocessing_context='fork' if no other thread is running") from error


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes with Ctrl-C blocked: until they ignore it, it would kill them noisily."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
