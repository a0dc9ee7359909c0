"""Who steps some of a vector's environments: the caller, a thread, or a process.

Each is asked by `ask(method, arguments)`, and answers, or raises, by `answer()`.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from mlgpu.cpu.threads import set_num_threads
from mlgpu.data.pool import WorkerTraceback, interrupts_blocked, signal_name
from mlgpu.data.worker import Failure, end_with_parent, guarded, ignore_interrupts
from mlgpu.errors import MlgpuError
from mlgpu.rl.slots import Maker, Slots

_GRACE = 5.0  # seconds that a worker gets to close its environments before it is made to end


class Worker(Protocol):
    """What steps environments."""

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Begin a method of Slots."""

    def answer(self) -> Any:
        """Its result; raises what it raised."""

    def close(self) -> None:
        """Close the environments, and end."""


class Here:
    """The caller itself, when it asks for the answer."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._asked: tuple[str, tuple[Any, ...]] | None = None

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Remember it."""
        self._asked = method, arguments

    def answer(self) -> Any:
        """Do it."""
        assert self._asked is not None
        method, arguments = self._asked
        return getattr(self.slots, method)(*arguments)

    def close(self) -> None:
        """Close the environments."""
        self.slots.close()


class InThread:
    """A thread of its own, in which the environments are made as well."""

    def __init__(self, makers: Sequence[Maker], number: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"mlgpu environment {number}")
        self._asked: Future[Any] | None = None
        self._slots: Slots | None = None
        self._makers = makers

    def _do(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._slots is None:
            self._slots = Slots(self._makers)
        return getattr(self._slots, method)(*arguments)

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Begin it."""
        self._asked = self._pool.submit(self._do, method, arguments)

    def answer(self) -> Any:
        """Wait for it.  What it raised has the thread's own traceback."""
        assert self._asked is not None
        return self._asked.result()

    def close(self) -> None:
        """Let it close the environments, and end."""
        self._pool.shutdown(wait=True)
        if self._slots is not None:
            self._slots.close()


class InProcess:
    """A process of its own, which ends when it is told to, or when this one is gone."""

    def __init__(self, makers: Sequence[Maker], number: int, context: BaseContext) -> None:
        self._number = number
        self._channel, theirs = context.Pipe(duplex=True)
        # A forked worker must not hold our end open, or it would not see it close.
        inherited = self._channel if context.get_start_method() == "fork" else None
        self._process = context.Process(  # type: ignore[attr-defined]
            target=serve, args=(theirs, inherited, list(makers)), daemon=True,
            name=f"mlgpu environment {number}")
        try:
            with interrupts_blocked():
                self._process.start()
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            self._channel.close()
            raise MlgpuError(
                "AsyncVectorEnv: workers are new processes (start method "
                f"{context.get_start_method()!r}), so what makes environments must be picklable, "
                f"and one is not: {error}; define it at the top level of a module, or pass "
                "workers='thread' or multiprocessing_context='fork'") from error
        finally:
            theirs.close()

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Send it; that the worker has died is said where its answer is missed."""
        with contextlib.suppress(OSError):
            self._channel.send((method, arguments))

    def answer(self) -> Any:
        """Wait for it.  Raises what the worker raised, and MlgpuError where it died."""
        connection.wait([self._channel, self._process.sentinel])
        try:
            result = self._channel.recv()  # a dead worker's last words are still there to be read
        except (EOFError, OSError):
            raise self._died() from None
        if not isinstance(result, Failure):
            return result
        cause = WorkerTraceback(result.trace)
        if result.error is None:
            raise MlgpuError(f"AsyncVectorEnv: worker {self._number} raised {result.summary}"
                             ) from cause
        raise result.error from cause

    def _died(self) -> MlgpuError:
        self._process.join(_GRACE)
        code = self._process.exitcode
        how = ("closed its connection" if code is None else
               f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}")
        return MlgpuError(f"AsyncVectorEnv: worker {self._number} exited unexpectedly: it {how}. "
                          "A script that starts workers must do so under "
                          "if __name__ == '__main__':")

    def close(self) -> None:
        """Tell it to end, and wait; then by SIGTERM, then by SIGKILL."""
        with contextlib.suppress(OSError):
            self._channel.send(None)
        self._process.join(_GRACE)
        for end in ("terminate", "kill"):
            if self._process.is_alive():
                getattr(self._process, end)()
                self._process.join(_GRACE)
        self._channel.close()
        self._process.close()


def serve(channel: Any, inherited: Any, makers: Sequence[Maker]) -> None:
    """The life of a worker process."""
    ignore_interrupts()
    if inherited is not None:
        inherited.close()
    set_num_threads(1)  # workers share the machine with each other and with training
    threading.Thread(target=end_with_parent, daemon=True).start()
    slots = guarded(Slots, makers)  # a Failure is the answer to every question
    try:
        while (message := channel.recv()) is not None:
            method, arguments = message
            channel.send(slots if isinstance(slots, Failure)
                         else guarded(getattr(slots, method), *arguments))
    except (EOFError, ConnectionError):
        return  # the parent has closed its end: nobody wants the rest
    if isinstance(slots, Slots):
        slots.close()
