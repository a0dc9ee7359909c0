"""What CuPy on simulated devices costs: start, launches, compilation.

    python benchmarks/simulated_cuda.py

Each figure is the median of repeats, the kinds of work in turn, so that what else the computer does
falls on all of them alike; beside it stands the processor time, which that hardly changes.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

START = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import mlgpu.sim
mlgpu.sim.install()
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
REPEATS, LAUNCHES = 9, 50


def main() -> None:
    starts = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True,
                             text=True)
        wall, cpu = map(float, run.stdout.split())
        starts.append((wall, cpu))
    show("import and install", starts, "s", 1)

    import mlgpu.sim

    mlgpu.sim.install()
    import cupy

    device = cupy.cuda.Device()
    add = cupy.RawKernel("""
    extern "C" __global__ void add(float* x, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) x[i] += 1;
    }""", "add")
    small, large = cupy.zeros(32, cupy.float32), cupy.zeros(1 << 22, cupy.float32)
    numbers = itertools.count()

    def compiled() -> None:
        name = f"k{os.getpid()}_{next(numbers)}"  # none that CuPy has in its cache
        source = f'extern "C" __global__ void {name}(float* x) {{ x[threadIdx.x] = 1; }}'
        cupy.RawKernel(source, name)((1,), (32,), (small,))

    kinds: dict[str, tuple[Callable[[], Any], int, str, float]] = {
        "RawKernel of 32 threads": (lambda: add((1,), (32,), (small, cupy.int32(32))), LAUNCHES,
                                    "ms", 1e3),
        "ufunc of 32 elements": (lambda: cupy.add(small, 1, out=small), LAUNCHES, "ms", 1e3),
        "the same in a large array": (lambda: add((1,), (32,), (large, cupy.int32(32))), LAUNCHES,
                                      "ms", 1e3),
        "x += 1 of 4M elements": (lambda: cupy.add(large, 1, out=large), 1, "ms", 1e3),
        "a new kernel": (compiled, 1, "ms", 1e3)}
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for repeat in range(REPEATS + 1):
        for kind, (work, count, _, _) in kinds.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                work()
            device.synchronize()
            if repeat:  # the first one compiles
                times[kind].append(((time.perf_counter() - wall) / count,
                                    (time.process_time() - cpu) / count))
    for kind, (_, _, unit, scale) in kinds.items():
        show(kind, times[kind], unit, scale)


def show(what: str, times: list[tuple[float, float]], unit: str, scale: float) -> None:
    """A line of the table."""
    wall, cpu = (statistics.median(column) * scale for column in zip(*times, strict=True))
    print(f"{what:28}{wall:9.2f} {unit:3}{cpu:9.2f} {unit} of processor time")


if __name__ == "__main__":
    main()
