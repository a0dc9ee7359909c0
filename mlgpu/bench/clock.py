"""One sample: warm up, call for a while, and say how long a call took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .workload import Case

# A call's time in seconds, given the call.
Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Sample:
    """The times of the calls of one sample, in seconds."""

    median: float
    best: float
    p99: float
    calls: int


def host(call: Callable[[], object]) -> float:
    """Wall-clock time of a call that is done when it returns."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def events(cuda: Any) -> Timer:
    """Time between two CUDA events around the call; `cuda` is the library's module of that name."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

    def timer(call: Callable[[], object]) -> float:
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    return timer


def sample(case: Case, timer: Timer, warm: float, least: float) -> Sample:
    """Call for `warm` seconds unmeasured, then until calls have taken `least` seconds.

    The warm-up belongs to every sample: threads that slept while another library had its turn
    are woken on one core, and run there for some milliseconds.
    """
    _times(case, timer, warm)
    times = sorted(_times(case, timer, least))
    n = len(times)
    return Sample((times[(n - 1) // 2] + times[n // 2]) / 2, times[0],
                  times[min(n - 1, int(0.99 * n))], n)


def _times(case: Case, timer: Timer, least: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + least
    while not times or time.perf_counter() < end:
        if case.prepare is not None:
            case.prepare()
        times.append(timer(case.call))
    return times
