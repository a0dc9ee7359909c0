"""Where the time and the memory of a program go, operation by operation, under PyTorch's names.

    with mlgpu.profiler.profile(profile_memory=True) as prof:
        train_step()
    print(prof.key_averages().table(sort_by="self_cpu_time_total"))
    prof.export_chrome_trace("trace.json")          # for https://ui.perfetto.dev

docs/profiler.md is the guide.
"""

from mlgpu.profiler.averages import EventAverage, EventList
from mlgpu.profiler.events import Event, MemoryPoint
from mlgpu.profiler.nvtx import emit_nvtx
from mlgpu.profiler.profile import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    schedule,
    tensorboard_trace_handler,
)
from mlgpu.profiler.recorder import record_function

__all__ = ["Event", "EventAverage", "EventList", "MemoryPoint", "ProfilerAction",
           "ProfilerActivity", "emit_nvtx", "profile", "record_function", "schedule",
           "tensorboard_trace_handler"]
