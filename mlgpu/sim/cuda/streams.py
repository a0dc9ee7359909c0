"""Streams, events and the work in them, which runs as late as it may.

A GPU runs the work of a stream in order and promises nothing else.  So that a program which needs
more than it asked for shows it, work waits here until something needs its result: then only what
that depends on runs, and where several pieces may run next, the choice is made to hurt.

What comes before what is kept as vector clocks: each piece of work knows, of every stream, up to
which of its pieces the program has put that stream's work before this one, by the order within
streams, by events, by the default stream's turns, or because the host had waited for it.
"""

from __future__ import annotations

import gc
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlgpu.sim.cuda.asides import Aside

# Handles that stand for a device's default stream, and for each thread's own (CUDA's names).
LEGACY, PER_THREAD = 1, 2
HEIR = -1  # of streams of ours (see Streams.heirs)
NON_BLOCKING = 1  # a flag of streams
DISABLE_TIMING = 2  # a flag of events
QUEUE = 1024  # pieces of work that wait at most; the oldest then run
SPARE = 64  # handles of destroyed streams that are not in use again yet
QUERIES = 3  # how often one is told that work is not done, before it is
# The simulated clock, in milliseconds.  Asking for work takes the host some time, and each piece
# of work takes a little, whatever it is.
ASKING, LEAST = 1e-3, 1e-3

Ranges = tuple[tuple[int, int], ...]  # addresses and sizes in bytes


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
    start: float  # milliseconds: it cannot start earlier
    reads: Ranges = ()  # memory that it reads and writes; a launch's own accesses are seen
    writes: Ranges = ()
    done: bool = False
    queries: int = 0
    takes: float = LEAST
    end: float = 0.0  # when it was done
    then: list[Aside] = field(default_factory=list)  # what happens as soon as it is done

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
    priority: int = 0  # a hint, which promises no order
    last: Work | None = None
    count: int = 0
    queue: deque[Work] = field(default_factory=deque)  # what is not done
    forgotten: bool = False  # destroyed, and all it did is known to be done
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
    captured: Any = None  # graphs.Node, where the recording was captured


class Watch(Protocol):
    """Who looks at the accesses of work (hazards.py)."""

    def begin(self, work: Work, told: bool) -> None:
        """A piece of work is about to run; told: the host then knows that it is done."""

    def end(self, work: Work) -> None:
        """It has run."""

    def prune(self) -> None:
        """The host knows more than before."""

    def named(self) -> set[Stream]:
        """The streams whose work may still be compared with other work."""


class Streams:
    """All work of all devices."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.hurt = seed == 0  # the latest submitted first, which is the usual mistake's contrary
        self.waiting: dict[Work, None] = {}  # in the order of submission
        self.streams: dict[int, Stream] = {}
        self.default: dict[int, Stream] = {}  # by device
        self.barriers: dict[int, Work] = {}  # by device: what all its later work comes after
        self.events: dict[int, Event] = {}
        self.seen: dict[Stream, int] = {}  # up to where the host knows that streams are done
        self.live: dict[Stream, None] = {}  # those with work that the host does not know to be
        self.busy: dict[Stream, None] = {}  # those with work that is not done
        self.running: Work | None = None
        self.now = 0.0  # the host's time, in milliseconds
        self.watch: Watch | None = None
        self.notice: Callable[[], None] | None = None  # see to what was freed (guard.py)
        self.check: Callable[[Work], None] | None = None  # look at the memory that work names
        self._destroyed: dict[Stream, None] = {}  # but not forgotten yet
        # Handles of forgotten streams.  New ones get them again, as on a GPU: by them CuPy's pools
        # know what memory a stream may have.
        self._spare: deque[int] = deque()
        # What destroyed streams of a device leave to be waited for, those that take turns with
        # the default stream and the others.
        self.heirs: dict[tuple[int, bool], Stream] = {}
        self._abandoned: deque[int] = deque()  # handles of streams whose thread has ended
        self._ages = itertools.count()
        self.issued: set[int] = set()  # handles that are or were of streams
        self._handles = itertools.count(0x5EED_0000_0010, 0x10)

    # -- handles ----------------------------------------------------------------------------------

    def create(self, device: int, flags: int = 0, priority: int = 0) -> Stream:
        """A new stream."""
        while self._abandoned:
            self.destroy(self._abandoned.popleft())
        handle = self._spare.popleft() if len(self._spare) > SPARE else next(self._handles)
        stream = Stream(handle, device, flags, priority)
        self.streams[stream.handle] = stream
        self.issued.add(handle)
        return stream

    def destroy(self, handle: int) -> None:
        """The program is done with a stream; work that it has still comes to be done."""
        stream = self.streams.pop(handle, None)
        if stream is None:
            return
        self._destroyed[stream] = None
        if stream in self.live and stream.last is not None:
            del self.live[stream]
            kind = stream.device, stream.blocking
            if kind not in self.heirs:
                self.heirs[kind] = Stream(HEIR, stream.device, stream.flags)
            self.submit(self.heirs[kind], None, "the end of a stream", stream.last.where,
                        [stream.last])
        self._forget()

    def abandon(self, handle: int) -> None:
        """Destroy a stream, later: this may be called at any time, by any thread."""
        self._abandoned.append(handle)

    def create_event(self, device: int, flags: int = 0) -> Event:
        """A new event."""
        event = Event(next(self._handles), device, flags)
        self.events[event.handle] = event
        return event

    def default_of(self, device: int) -> Stream:
        """A device's default stream."""
        stream = self.default.get(device)
        if stream is None:
            stream = self.default[device] = Stream(0, device)
        return stream

    # -- submitting -------------------------------------------------------------------------------

    def submit(self, stream: Stream, run: Callable[[], Any] | None, what: str, where: str,
               needs: Iterable[Work] = (), reads: Ranges = (), writes: Ranges = ()) -> Work:
        """Put work at a stream's end; it may run from now on."""
        if self.notice is not None:
            self.notice()
        before = [w for w in (stream.last, self.barriers.get(stream.device), *self._turns(stream),
                              *needs) if w is not None]
        clock = self.seen.copy()
        self.now = start = self.now + ASKING
        for work in before:
            for other, number in work.clock.items():
                if clock.get(other, -1) < number and not other.forgotten:
                    clock[other] = number
            start = max(start, work.end)
        number = stream.count
        stream.count += 1
        clock[stream] = number
        work = Work(stream, number, run, what, where, [w for w in before if not w.done], clock,
                    next(self._ages), start, reads, writes)
        stream.last = work
        stream.queue.append(work)
        self.live[stream] = self.busy[stream] = self.waiting[work] = None
        if len(self.waiting) > QUEUE:
            self.finish([next(iter(self.waiting))], told=False)
            if work.number % QUEUE == 0:  # the host may never wait
                self._prune()
        return work

    def _turns(self, stream: Stream) -> list[Work | None]:
        """The default stream waits for all blocking ones, and they for it."""
        if not stream.blocking or stream.handle == HEIR:
            return []
        if stream.handle == 0:
            return [s.last for s in self.live if s.device == stream.device and s.blocking]
        return [self.default_of(stream.device).last]

    def moment(self) -> int:
        """An age: of what comes after all that was submitted by now."""
        return next(self._ages)

    def before(self, stream: Stream) -> list[Work]:
        """What comes before whatever is submitted to a stream next."""
        return [w for w in (stream.last, *self._turns(stream)) if w is not None]

    # -- running ----------------------------------------------------------------------------------

    def finish(self, wanted: Iterable[Work | None], told: bool = True) -> None:
        """Run what the wanted work needs, and itself.

        Told: the host learns that it is done.  All runs, whatever some of it raises; the first
        exception goes on to the caller.
        """
        if self.notice is not None:
            self.notice()
        works = [w for w in wanted if w is not None]
        needed = self._needed(works)
        error = self._run(needed, told)
        if told:
            self._tell(works)
            for work in needed:
                work.clock = {}  # it is part of what is seen
        if error is not None:
            raise error

    def _tell(self, works: list[Work]) -> None:
        """The host knows that work is done, and all that comes before it."""
        for work in works:
            for stream, number in work.clock.items():
                if self.seen.get(stream, -1) < number and not stream.forgotten:
                    self.seen[stream] = number
                    if stream.last is not None and stream.last.number <= number:
                        self.live.pop(stream, None)
            self.now = max(self.now, work.end)
        self._prune()

    def _prune(self) -> None:
        if self.watch is not None:
            self.watch.prune()
        if self._destroyed:
            self._forget()

    def _forget(self) -> None:
        """Leave destroyed streams out of clocks, once nothing is compared with their work."""
        named = self.watch.named() if self.watch is not None else set()
        for stream in (*self._destroyed, *self.heirs.values()):
            # Nobody sees when a mere point of their order is reached.
            while stream.queue and stream.queue[0].run is None and all(
                    w.done for w in stream.queue[0].needs):
                self._run_one(stream.queue[0], False)
        for stream in list(self._destroyed):
            if not stream.queue and stream not in named:
                stream.forgotten = True
                self._spare.append(stream.handle)
                self.seen.pop(stream, None)
                del self._destroyed[stream]

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

    def _run(self, needed: dict[Work, list[Work]], told: bool) -> Exception | None:
        missing = dict.fromkeys(needed, 0)
        for followers in needed.values():
            for work in followers:
                missing[work] += 1
        ready = [work for work, count in missing.items() if not count]
        first: Exception | None = None
        while ready:
            work = ready.pop(self._choice(ready))
            try:
                if not work.done:  # what a collector finalised between may have waited for it
                    self._run_one(work, told)
            except Exception as error:
                first = first or error
            for follower in needed[work]:
                missing[follower] -= 1
                if not missing[follower]:
                    ready.append(follower)
        return first

    def _choice(self, ready: list[Work]) -> int:
        if len(ready) == 1:
            return 0
        if self.hurt:
            return max(range(len(ready)), key=lambda i: ready[i].age)
        return self.chance.randrange(len(ready))

    def _run_one(self, work: Work, told: bool) -> None:
        work.done = True  # whatever becomes of it
        self.waiting.pop(work, None)
        work.stream.queue.popleft()
        if not work.stream.queue:
            del self.busy[work.stream]
        for before in work.needs:
            work.start = max(work.start, before.end)
        work.needs.clear()
        run, work.run = work.run, None
        self.running = work
        collects = gc.isenabled()
        gc.disable()  # what a collector finalises may wait for work, which must not run amid this
        try:
            if run is not None:
                if self.check is not None and (work.reads or work.writes):
                    self.check(work)
                if self.watch is not None:
                    self.watch.begin(work, told)
                run()
                if self.watch is not None:
                    self.watch.end(work)
        finally:
            self.running = None
            if collects:
                gc.enable()
            work.end = work.start + work.takes
            for aside in work.then:
                aside.passed()

    def spend(self, milliseconds: float) -> None:
        """The running work takes longer."""
        if self.running is not None:
            self.running.takes += milliseconds

    def query(self, works: list[Work]) -> bool:
        """Whether work is done: not at first, as late as a program that polls can bear."""
        behind = [w for w in works if not w.done]
        if behind:
            for work in behind:
                work.queries += 1
            if min(w.queries for w in behind) <= QUERIES:
                return False
        self.finish(works)
        return True

    # -- what to wait for -------------------------------------------------------------------------

    def tail(self, stream: Stream) -> list[Work]:
        """The work after which a stream is done; the default stream takes its turn first."""
        turns = self._turns(stream) if stream.handle == 0 else []
        return [w for w in (stream.last, *turns) if w is not None]

    def of_device(self, device: int) -> list[Work]:
        """The last work of each of a device's streams, also of those that are destroyed."""
        return [s.last for s in self.live if s.device == device and s.last is not None]

    def all(self) -> list[Work]:
        """The last work of each stream."""
        return [s.last for s in self.live if s.last is not None]

    def drop(self) -> None:
        """Forget what waits, undone."""
        if self.notice is not None:
            self.notice()
        for work in self.waiting:
            work.done, work.run = True, None
            work.needs.clear()
            work.stream.queue.clear()
            self.busy.pop(work.stream, None)
            for aside in work.then:
                aside.passed()
        works = self.all()
        self.waiting.clear()
        self._tell(works)
