"""Our own Python per kernel launch, and per operation, in microseconds.

    python benchmarks/cuda_launch.py

CuPy's launch is replaced by a function that does nothing, so what is timed is what mlgpu adds to
it: checking and converting arguments, choosing the kernel, and in operations allocation and the
bookkeeping around.  Medians of interleaved runs, processor time.  Needs CuPy; on a machine without
a GPU run it with MLGPU_CUDA=sim, where allocations go through the simulated runtime and take
longer.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("MLGPU_CUDA", "sim")

import mlgpu
from mlgpu.cuda.launch import Kernel, Strided

RUNS, CALLS = 15, 2000


def silence() -> None:
    """Let every kernel that is loaded do nothing."""
    original = Kernel._load

    def load(kernel: Kernel, device: int) -> Any:
        original(kernel, device)
        kernel._loaded[device] = lambda grid, block, given, shared_mem: None
        return kernel._loaded[device]

    Kernel._load = load  # type: ignore[method-assign]


def measure(cases: dict[str, Callable[[], Any]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        call()
    for _ in range(RUNS):
        for name, call in cases.items():
            start = time.process_time()
            for _ in range(CALLS):
                call()
            times[name].append((time.process_time() - start) / CALLS * 1e6)
    for name, found in times.items():
        print(f"{name:34} {statistics.median(found):7.2f} us")


def main() -> None:
    silence()
    x, y = mlgpu.ones(64, 64, device="cuda"), mlgpu.empty(64, 64, device="cuda")
    kernel = Kernel("""extern "C" __global__ void scale(float* y, const float* x, float s,
                    long long n) {}""", "scale", "scale.cu")
    a, b = x._array, y._array
    measure({
        "launch: 2 arrays, 2 numbers": lambda: kernel(16, 256, (b, a, 0.5, 4096)),
        "launch: the same, strided": lambda: kernel(16, 256, (Strided(b), Strided(a), 0.5, 4096)),
        "x + y": lambda: x + y,
        "x.add_(y)": lambda: x.add_(y),
        "mlgpu.empty": lambda: mlgpu.empty(64, 64, device="cuda"),
    })


if __name__ == "__main__":
    main()
