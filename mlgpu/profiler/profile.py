"""The profile of a block of code, and of chosen steps of a loop."""

from __future__ import annotations

import enum
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.profiler import trace
from mlgpu.profiler.averages import EventList
from mlgpu.profiler.events import Event, MemoryPoint
from mlgpu.profiler.recorder import Recorder, record_function

if TYPE_CHECKING:
    from typing_extensions import Self


class ProfilerActivity(enum.Enum):
    """What is profiled: operations on the CPU, operations on CUDA devices."""

    CPU = "cpu"
    CUDA = "cuda"


class ProfilerAction(enum.Enum):
    """What a schedule says of a step."""

    NONE = "none"
    WARMUP = "warmup"  # recorded, and thrown away
    RECORD = "record"
    RECORD_AND_SAVE = "record and save"  # the last of a cycle: on_trace_ready is called after it


Schedule = Callable[[int], ProfilerAction]


def schedule(*, wait: int, warmup: int, active: int, repeat: int = 0,
             skip_first: int = 0) -> Schedule:
    """Skip `skip_first` steps; then, `repeat` times (0: for ever), wait, warm up, and record.

    Raises ShapeError (a ValueError) for steps below 0 and for no active ones.
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active < 1:
        raise ShapeError("schedule: numbers of steps must be >= 0, and active >= 1, got wait="
                         f"{wait}, warmup={warmup}, active={active}, repeat={repeat}, "
                         f"skip_first={skip_first}")
    length = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        if step < 0 or (repeat and step >= repeat * length):
            return ProfilerAction.NONE
        place = step % length
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if place == length - 1 else ProfilerAction.RECORD

    return action


class profile:
    """Records what operations take in a block of code, as torch.profiler.profile.

    - `activities`: what to record; by default operations on the CPU and on CUDA devices.
    - `schedule`: which steps of a loop to record, of which `step()` marks the ends.
    - `on_trace_ready`: called with the profile when it, or a cycle of the schedule, is complete.
    - `record_shapes`: keep the shapes of inputs, for `key_averages(group_by_input_shape=True)`.
    - `profile_memory`: keep how many bytes are live before and after each operation.
    - `with_stack`: keep the line of the program that called each operation.

    All threads are recorded.  Raises MlgpuError while another profile runs.
    """

    def __init__(self, *, activities: Iterable[ProfilerActivity] | None = None,
                 schedule: Schedule | None = None,
                 on_trace_ready: Callable[[profile], object] | None = None,
                 record_shapes: bool = False, profile_memory: bool = False,
                 with_stack: bool = False) -> None:
        self._activities = set(ProfilerActivity if activities is None else activities)
        self._scheduled = schedule is not None
        self._schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self._ready = on_trace_ready
        self._options = {"shapes": record_shapes, "memory": profile_memory, "stack": with_stack}
        self._recorder: Recorder | None = None
        self._kept: Recorder | None = None  # what the figures below are of
        self._step: record_function | None = None
        self.step_num = 0

    def start(self) -> None:
        """Begin with step 0."""
        self.step_num = 0
        self._begin()

    def step(self) -> None:
        """The end of one step of a loop, and the beginning of the next."""
        last = self._schedule(self.step_num)
        self.step_num += 1
        following = self._schedule(self.step_num)
        if self._step is not None:
            self._step.__exit__()
            self._step = None
        keeps = last is ProfilerAction.RECORD and following in (
            ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if not keeps and not (last is following is ProfilerAction.WARMUP):
            self._end(save=last is ProfilerAction.RECORD_AND_SAVE)
        self._begin()

    def stop(self) -> None:
        """End, and read the times of the devices."""
        if self._step is not None:
            self._step.__exit__()
            self._step = None
        action = self._schedule(self.step_num)
        self._end(save=action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE))

    def _begin(self) -> None:
        if self._schedule(self.step_num) is ProfilerAction.NONE:
            return
        if self._recorder is None:
            self._recorder = Recorder(cpu=ProfilerActivity.CPU in self._activities,
                                      cuda=ProfilerActivity.CUDA in self._activities,
                                      **self._options)
            try:
                self._recorder.start()
            except MlgpuError:
                self._recorder = None
                raise
        if self._scheduled or self.step_num:
            self._step = record_function(f"ProfilerStep#{self.step_num}")
            self._step.__enter__()

    def _end(self, save: bool) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        recorder.stop()
        if save:
            self._kept = recorder
            if self._ready is not None:
                self._ready(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _recorded(self) -> Recorder:
        if self._kept is None:
            raise MlgpuError("profile: nothing is recorded yet; its figures are there when its "
                             "block, or a cycle of its schedule, is over")
        return self._kept

    def events(self) -> list[Event]:
        """Every operation and range, in the order in which they began."""
        return list(self._recorded().events)

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """The events of each name (and of each shape of inputs) taken together."""
        return EventList.of(self._recorded().events, group_by_input_shape)

    def memory_timeline(self) -> list[MemoryPoint]:
        """Live bytes of each device at the beginning and the end of each operation.

        Empty without `profile_memory`.
        """
        return list(self._recorded().points)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file for https://ui.perfetto.dev or chrome://tracing."""
        recorded = self._recorded()
        trace.export(path, recorded.events, recorded.points)


def tensorboard_trace_handler(dir_name: str | os.PathLike[str],
                              worker_name: str | None = None) -> Callable[[profile], None]:
    """For `on_trace_ready`: write each trace into a folder, as TensorBoard's profiler wants it."""
    def write(finished: profile) -> None:
        folder = Path(dir_name)
        folder.mkdir(parents=True, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        finished.export_chrome_trace(folder / f"{worker}.{time.time_ns() // 10**6}.pt.trace.json")

    return write
