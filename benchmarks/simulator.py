"""How fast the simulated GPU is: kernels of deep learning, on one core, with and without checks.

`python benchmarks/simulator.py [--only softmax,gemm] [--repeat N] [--json] [--check]`.  Every
result is compared with NumPy's before anything is measured.  Times are by the clock, best and
median, and of the processor: on a machine that does nothing else they are the same.  With `--check`
the exit status is 1 where the best processor time with all checks and counters is above its bound.
"""

from __future__ import annotations

import os

# NumPy reads these when it is imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mlgpu
from mlgpu import sim
from mlgpu.cuda import toolkit
from mlgpu.sim import nvrtc

SOURCE = Path(__file__).with_suffix(".cu")
ARCH = "sm_90"
Work = Callable[[], Any]
Setup = Callable[[sim.Machine, sim.Module], tuple[Work, Work]]


@dataclass(frozen=True)
class Case:
    """A launch to measure: what it is, and how it is set up and judged."""

    name: str
    size: str
    setup: Setup  # gives the launch, and what compares its first results with NumPy's
    bound: float | None  # seconds, all checks and counters on
    calls: int = 1  # launches of one measurement


CASES: list[Case] = []


def case(size: str, bound: float | None = None, calls: int = 1) -> Callable[[Setup], Setup]:
    """Declare the set-up of the kernel that it is named after."""
    def declare(setup: Setup) -> Setup:
        CASES.append(Case(setup.__name__, size, setup, bound, calls))
        return setup
    return declare


def normal(*shape: int) -> Any:
    """Normally distributed float32 values, the same every time."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@case("4096 x 1024 float32", bound=1.5)
def softmax(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    x = normal(4096, 1024)
    args = m.array(x), m.empty(x.shape), np.int32(1024)

    def judge() -> None:
        e = np.exp(x - x.max(axis=1, keepdims=True), dtype=np.float64)
        np.testing.assert_allclose(args[1].numpy(), e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    return lambda: mod.kernel("softmax").launch(4096, 256, args), judge


@case("256 x 256 x 256 float32, tiled", bound=3.0)
def matmul(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    a, b = normal(2, 256, 256)
    args = m.array(a), m.array(b), m.empty((256, 256)), np.int32(256)

    def judge() -> None:
        np.testing.assert_allclose(args[2].numpy(), a.astype(np.float64) @ b, rtol=1e-5, atol=1e-4)
    return lambda: mod.kernel("matmul").launch((16, 16), (16, 16), args), judge


@case("512 x 512 x 512 float16, tensor cores")
def gemm(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    a, b = normal(2, 512, 512).astype(np.float16)
    args = m.array(a), m.array(b), m.empty((512, 512)), np.int32(512)

    def judge() -> None:
        exact = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_allclose(args[2].numpy(), exact, rtol=1e-5, atol=1e-3)
    return lambda: mod.kernel("gemm").launch((8, 8), 128, args), judge


@case("4096 x 1024 float32")
def layer_norm(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    x, (weight, bias) = normal(4096, 1024), normal(2, 1024)
    args = m.array(x), m.array(weight), m.array(bias), m.empty(x.shape), np.float32(1e-5)

    def judge() -> None:
        wide = x.astype(np.float64)
        mean, var = wide.mean(axis=1, keepdims=True), wide.var(axis=1, keepdims=True)
        np.testing.assert_allclose(args[3].numpy(),
                                   (wide - mean) / np.sqrt(var + 1e-5) * weight + bias,
                                   rtol=1e-5, atol=1e-5)
    return lambda: mod.kernel("layer_norm").launch(4096, 256, args), judge


@case("4 M float32")
def adamw(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    n = 1 << 22
    p, grad, first = normal(3, n)
    second = first * first
    lr, beta1, beta2, eps, decay, step = 1e-3, 0.9, 0.999, 1e-8, 0.01, 3
    options = np.array([lr, beta1, beta2, eps, decay, 1 - beta1**step, 1 - beta2**step], np.float32)
    args = (m.array(p), m.array(grad), m.array(first), m.array(second),
            np.void(options.tobytes()), np.int32(n))

    def judge() -> None:
        new_first = beta1 * first.astype(np.float64) + (1 - beta1) * grad
        new_second = beta2 * second.astype(np.float64) + (1 - beta2) * grad.astype(np.float64)**2
        root = np.sqrt(new_second / (1 - beta2**step)) + eps
        exact = p * (1 - lr * decay) - lr * new_first / (1 - beta1**step) / root
        for found, wanted in ((args[0], exact), (args[2], new_first), (args[3], new_second)):
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-6)
    return lambda: mod.kernel("adamw").launch(n // 256, 256, args), judge


@case("2 M uint8, 256 bins")
def histogram(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    x = np.random.default_rng(0).integers(0, 256, 1 << 21, np.uint8)
    args = m.array(x), m.zeros(256, np.uint32), np.int32(len(x) // 4)

    def judge() -> None:
        np.testing.assert_array_equal(args[1].numpy(), np.bincount(x, minlength=256))
    return lambda: mod.kernel("histogram").launch(64, 256, args), judge


@case("1000 float32: a tiny launch", bound=1e-3, calls=50)
def add(m: sim.Machine, mod: sim.Module) -> tuple[Work, Work]:
    a, b = normal(2, 1000)
    args = m.array(a), m.array(b), m.empty(1000), np.int32(1000)

    def judge() -> None:
        np.testing.assert_array_equal(args[2].numpy(), a + b)
    return lambda: mod.kernel("add").launch(4, 256, args), judge


PREPARE = 0.3  # seconds beyond NVRTC for a module and its kernels


def seconds(work: Work, repeat: int, calls: int = 1) -> dict[str, float]:
    """The time of one call: by the clock, best and median; of the processor, the best."""
    times, busy = [], []
    for _ in range(repeat):
        start, start_busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            work()
        busy.append((time.process_time() - start_busy) / calls)
        times.append((time.perf_counter() - start) / calls)
    return {"best": min(times), "median": statistics.median(times), "processor": min(busy)}


def measure(case: Case, machines: dict[str, tuple[sim.Machine, sim.Module]],
            repeat: int) -> dict[str, Any]:
    """One case on every machine; AssertionError where a result is wrong."""
    row: dict[str, Any] = {"name": case.name, "size": case.size, "bound": case.bound}
    for name, (machine, module) in machines.items():
        launch, judge = case.setup(machine, module)
        launch()  # which also warms up
        judge()
        row[name] = seconds(launch, repeat, case.calls)
    return row


def preparation(repeat: int) -> dict[str, Any]:
    """The whole source's way from text to kernels that can be launched."""
    source = SOURCE.read_text(encoding="utf-8")

    def prepare(text: str) -> None:
        module = sim.Machine(ARCH).module(text)
        for kernel in module.kernels:
            module.kernel(kernel)

    def compile() -> str:
        return nvrtc.compile(source, ARCH).ptx

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLGPU_CACHE_DIR"] = ""
        ptx = compile()
        alone = seconds(compile, repeat)
        cold = seconds(lambda: prepare(ptx), repeat)
        os.environ["MLGPU_CACHE_DIR"] = folder
        prepare(source)
        cached = seconds(lambda: prepare(source), repeat)
    return {"kernels": len(CASES), "lines of PTX": ptx.count("\n"), "bound": PREPARE,
            "NVRTC alone": alone, "beyond NVRTC": cold, "all, from the cache": cached}


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    except OSError:
        pass
    return platform.processor() or platform.machine()


def about() -> dict[str, Any]:
    """The machine and the versions that the figures are of."""
    return {"processor": processor(), "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "system": platform.system(), "mlgpu": mlgpu.__version__,
            "python": platform.python_version(), "numpy": np.__version__,
            "nvrtc": ".".join(map(str, toolkit.nvrtc().version)), "arch": ARCH}


def exceeded(rows: list[dict[str, Any]], prepared: dict[str, Any] | None) -> list[str]:
    """Which bounds do not hold."""
    judged = [(row["name"], row["on"]["processor"], row["bound"]) for row in rows]
    if prepared is not None:
        judged += [(f"a module, {name}", prepared[name]["processor"], PREPARE)
                   for name in ("beyond NVRTC", "all, from the cache")]
    return [f"{name}: {shown(found)}, bound {shown(bound)}" for name, found, bound in judged
            if bound is not None and found > bound]


def shown(value: float | None) -> str:
    """Seconds for the eye."""
    if value is None:
        return ""
    return f"{value:.3f} s" if value >= 0.1 else f"{1e3 * value:.2f} ms"


def table(machine: dict[str, Any], rows: list[dict[str, Any]],
          prepared: dict[str, Any] | None) -> str:
    """Everything as text."""
    load = "" if machine["load"] is None else f", load average {machine['load']:.1f}"
    versions = (f"mlgpu {machine['mlgpu']}, Python {machine['python']}, NumPy {machine['numpy']}, "
                f"NVRTC {machine['nvrtc']}, {machine['arch']}")
    lines = [f"{machine['processor']}, one of {machine['cores']} cores, {machine['system']}{load}",
             versions]
    columns = "".join(f"{name:>10}" for name in COLUMNS)
    if rows:
        lines += ["", f"{'':44}{'all checks and counters':^40}{'none':^30}",
                  f"{'':44}{columns}{'bound':>10}{columns}"]
    lines += [f"{row['name'] + ' ' + row['size']:44}{times(row['on'])}{shown(row['bound']):>10}"
              f"{times(row['off'])}" for row in rows]
    if prepared is not None:
        what = f"{prepared['kernels']} kernels, {prepared['lines of PTX']:,} lines of PTX"
        lines += ["", f"{what}: ready to launch", *(
            f"  {name:42}{times(prepared[name])}"
            f"{'' if name == 'NVRTC alone' else shown(PREPARE):>10}"
            for name in ("NVRTC alone", "beyond NVRTC", "all, from the cache"))]
    return "\n".join(lines)


COLUMNS = ("best", "median", "processor")


def times(found: dict[str, float]) -> str:
    """A row's times, in columns."""
    return "".join(f"{shown(found[name]):>10}" for name in COLUMNS)


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="LIST",
                        help=f"of {','.join(c.name for c in CASES)},prepare")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="measurements (5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bound is exceeded")
    args = parser.parse_args()
    chosen = set(args.only.split(",")) if args.only else {*(c.name for c in CASES), "prepare"}
    unknown = chosen - {*(c.name for c in CASES), "prepare"}
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    if args.repeat < 1:
        parser.error("--repeat: 1 or more")
    machine = about()
    prepared = preparation(args.repeat) if "prepare" in chosen else None
    source = SOURCE.read_text(encoding="utf-8")
    machines = {}
    for name, m in (("on", sim.Machine(ARCH)),
                    ("off", sim.Machine(ARCH, checks=(), counters=False))):
        machines[name] = m, m.module(source, filename=SOURCE.name)
    rows = [measure(c, machines, args.repeat) for c in CASES if c.name in chosen]
    broken = exceeded(rows, prepared)
    if args.json:
        print(json.dumps({"machine": machine, "launches": rows, "module": prepared,
                          "exceeded": broken}, indent=2))
    else:
        print(table(machine, rows, prepared))
        for line in broken:
            print(f"\nabove its bound: {line}")
    return int(args.check and bool(broken))


if __name__ == "__main__":
    sys.exit(main())
