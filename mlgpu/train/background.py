"""One job at a time in the background, whose failure is never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs jobs in a thread, one after the other; what one raises is raised by the next call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then begin this one.  Raises what the one before raised."""
        self.finish()
        # Not a daemon: a process that ends lets it finish.
        self._thread = threading.Thread(target=self._run, args=(job,), name="mlgpu checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what a job that has ended raised; waits for none."""
        if self._thread is not None and not self._thread.is_alive():
            self.finish()

    def finish(self) -> None:
        """Wait for the job under way.  Raises what it raised."""
        error = self.settle()
        if error is not None:
            raise error

    def settle(self) -> BaseException | None:
        """Wait for the job under way, and answer with what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        return error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # kept for the thread that trains
            self._error = error
