"""Streams, events and the work in them, which runs as late as it may.

A GPU runs the work of a stream in order and promises nothing else.  So that a program which needs
more than it asked for shows it, work waits here until something needs its result: then only what
that depends on runs, and where several pieces may run next, the choice is made to hurt.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# Handles that stand for a device's default stream, and for each thread's own (CUDA's names).
LEGACY, PER_THREAD = 1, 2
NON_BLOCKING = 1  # a flag of streams
DISABLE_TIMING = 2  # a flag of events
QUEUE = 4096  # pieces of work that wait at most; the oldest then run
QUERIES = 3  # how often one is told that work is not done, before it is


@dataclass(eq=False, slots=True)
class Work:
    """A piece of work: a launch, a copy, an event's recording."""

    stream: Stream
    number: int  # in its stream
    run: Callable[[], Any] | None  # None: nothing but a point in the order
    what: str
    where: str  # "file:line" that asked for it
    needs: list[Work]  # what must be done before
    clock: dict[Stream, int]  # up to which of its pieces each stream comes before this one
    age: int  # in the order of submission, of all streams
    done: bool = False
    queries: int = 0

    def after(self, other: Work) -> bool:
        """Whether the order puts the other before this one."""
        return self.clock.get(other.stream, -1) >= other.number

    def __str__(self) -> str:
        return f"{self.what} on {self.stream} ({self.where})"


@dataclass(eq=False, slots=True)
class Stream:
    """A stream of a device."""

    handle: int
    device: int
    flags: int = 0
    priority: int = 0
    last: Work | None = None
    count: int = 0
    capture: Any = None  # graphs.Capture, while its work is recorded

    @property
    def blocking(self) -> bool:
        """Whether it takes turns with the default stream."""
        return not self.flags & NON_BLOCKING

    def __str__(self) -> str:
        name = "the default stream" if not self.handle else f"stream {self.handle:#x}"
        return f"{name} of device {self.device}"


@dataclass(eq=False, slots=True)
class Event:
    """A point in a stream's work."""

    handle: int
    device: int
    flags: int = 0
    work: Work | None = None  # the latest recording
    time: float = 0.0  # milliseconds, of the simulated clock, when that was reached
    captured: Any = None  # graphs.Node, where the recording was captured


class Streams:
    """All work of all devices."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.hurt = seed == 0  # the latest submitted first, which is the usual mistake's contrary
        self.waiting: dict[Work, None] = {}  # in the order of submission
        self.streams: dict[int, Stream] = {}
        self.default: dict[int, Stream] = {}  # by device
        self.events: dict[int, Event] = {}
        self.seen: dict[Stream, int] = {}  # up to where the host knows that streams are done
        self._ages = itertools.count()
        self._handles = itertools.count(0x5EED_0000_0010, 0x10)

    # -- handles ----------------------------------------------------------------------------------

    def create(self, device: int, flags: int = 0, priority: int = 0) -> Stream:
        """A new stream."""
        stream = Stream(next(self._handles), device, flags, priority)
        self.streams[stream.handle] = stream
        return stream

    def create_event(self, device: int, flags: int = 0) -> Event:
        """A new event."""
        event = Event(next(self._handles), device, flags)
        self.events[event.handle] = event
        return event

    def default_of(self, device: int) -> Stream:
        """A device's default stream."""
        return self.default.setdefault(device, Stream(0, device))

    # -- submitting -------------------------------------------------------------------------------

    def submit(self, stream: Stream, run: Callable[[], Any] | None, what: str, where: str,
               needs: Iterable[Work] = ()) -> Work:
        """Put work at a stream's end; it may run from now on."""
        before = [w for w in (stream.last, *self._turns(stream), *needs) if w is not None]
        clock = dict(self.seen)
        for work in before:
            for other, number in work.clock.items():
                if clock.get(other, -1) < number:
                    clock[other] = number
        number = stream.count
        stream.count += 1
        clock[stream] = number
        work = Work(stream, number, run, what, where, [w for w in before if not w.done], clock,
                    next(self._ages))
        stream.last = work
        self.waiting[work] = None
        if len(self.waiting) > QUEUE:
            self.finish([next(iter(self.waiting))])
        return work

    def _turns(self, stream: Stream) -> list[Work | None]:
        """The default stream waits for all blocking ones, and they for it."""
        if not stream.blocking:
            return []
        if stream.handle == 0:
            return [s.last for s in self.streams.values()
                    if s.device == stream.device and s.blocking]
        return [self.default_of(stream.device).last]

    # -- running ----------------------------------------------------------------------------------

    def finish(self, wanted: Iterable[Work]) -> None:
        """Run what the wanted work needs, and itself; the host knows that it is done.

        An exception of a piece of work goes on to the caller; that piece counts as done.
        """
        wanted = [w for w in wanted if w is not None]
        try:
            self._run(self._needed(wanted))
        finally:
            for work in wanted:
                for stream, number in work.clock.items():
                    if self.seen.get(stream, -1) < number:
                        self.seen[stream] = number

    def _needed(self, wanted: list[Work]) -> dict[Work, list[Work]]:
        """The work to run, each with what needs it."""
        needed: dict[Work, list[Work]] = {}
        stack = [w for w in wanted if not w.done]
        for work in stack:
            needed.setdefault(work, [])
        while stack:
            work = stack.pop()
            for before in work.needs:
                if before.done:
                    continue
                if before not in needed:
                    needed[before] = []
                    stack.append(before)
                needed[before].append(work)
        return needed

    def _run(self, needed: dict[Work, list[Work]]) -> None:
        missing = dict.fromkeys(needed, 0)
        for followers in needed.values():
            for work in followers:
                missing[work] += 1
        ready = [work for work, count in missing.items() if not count]
        while ready:
            work = ready.pop(self._choice(ready))
            self._run_one(work)
            for follower in needed[work]:
                missing[follower] -= 1
                if not missing[follower]:
                    ready.append(follower)

    def _choice(self, ready: list[Work]) -> int:
        if len(ready) == 1:
            return 0
        if self.hurt:
            return max(range(len(ready)), key=lambda i: ready[i].age)
        return self.chance.randrange(len(ready))

    def _run_one(self, work: Work) -> None:
        work.done = True  # whatever becomes of it
        self.waiting.pop(work, None)
        work.needs.clear()
        run, work.run = work.run, None
        if run is not None:
            run()

    def query(self, work: Work | None) -> bool:
        """Whether work is done: not at first, as late as a program that polls can bear."""
        if work is None or work.done:
            return True
        work.queries += 1
        if work.queries <= QUERIES:
            return False
        self.finish([work])
        return True

    def of_device(self, device: int) -> list[Work]:
        """The last work of each of a device's streams."""
        return [s.last for s in (self.default_of(device), *self.streams.values())
                if s.device == device and s.last is not None]
