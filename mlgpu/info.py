"""What `mlgpu info` tells: versions, BLAS and threads, devices, and which features are active."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from mlgpu.device import cuda_problem
from mlgpu.memory import format_bytes


@dataclass(frozen=True)
class Blas:
    """The library that multiplies matrices on the CPU."""

    name: str
    version: str
    threads: int


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as its driver reports it."""

    index: int
    name: str
    driver: str
    memory_used: int  # bytes
    memory_total: int  # bytes
    utilization: int  # per cent of the last sample period
    temperature: int  # degrees Celsius


@dataclass(frozen=True)
class Feature:
    """Whether a feature can be used, and if not, why."""

    name: str
    active: bool
    reason: str


@dataclass(frozen=True)
class Info:
    """Everything `mlgpu info` prints."""

    versions: dict[str, str]
    platform: str
    blas: list[Blas]
    gpus: list[Gpu]
    gpu_note: str
    features: list[Feature] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)


# Feature, the module it needs, the extra that brings it.
_OPTIONAL = (
    ("loss curves as pictures", "matplotlib", "examples"),
    ("progress bars in the examples", "tqdm", "examples"),
    ("digits example", "sklearn", "examples"),
    ("API documentation", "pdoc", "docs"),
)


def collect() -> Info:
    """Look at this machine.  Starts nothing on a GPU."""
    gpus, note = _gpus()
    return Info(_versions(), f"{platform.system()} {platform.release()} {platform.machine()}",
                _blas(), gpus, note, _features())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("mlgpu", "numpy", "ml_dtypes", "cupy-cuda12x", "cupy-cuda13x",
                    "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "mlgpu":
                from mlgpu import __version__

                found[package] = f"{__version__} (not installed: run from its sources)"
    return found


def _blas() -> list[Blas]:
    from threadpoolctl import threadpool_info

    return [Blas(str(lib["internal_api"]), str(lib["version"]), int(lib["num_threads"]))
            for lib in threadpool_info() if lib["user_api"] == "blas"]


def _gpus() -> tuple[list[Gpu], str]:
    if find_spec("pynvml") is None:
        return [], "pynvml is not installed (pip install 'mlgpu[cuda12]')"
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"no NVIDIA driver answers: {error}"
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            gpus.append(Gpu(
                index, pynvml.nvmlDeviceGetName(handle), driver, memory.used, memory.total,
                pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
                pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)))
        return gpus, "" if gpus else "the driver reports no GPU"
    finally:
        pynvml.nvmlShutdown()


def _features() -> list[Feature]:
    problem = cuda_problem()
    features = [Feature("CPU (NumPy)", True, ""),
                Feature("CUDA", problem is None, problem or "")]
    for name, module, extra in _OPTIONAL:
        active = find_spec(module) is not None
        features.append(Feature(name, active, "" if active else (
            f"{module} is not installed (pip install 'mlgpu[{extra}]')")))
    return features


def text(info: Info) -> str:
    """`info` for people."""
    lines = ["versions"]
    lines += [f"  {name:24} {version}" for name, version in info.versions.items()]
    lines += ["machine", f"  {info.platform}"]
    lines += [f"  BLAS {b.name} {b.version}, {b.threads} threads" for b in info.blas]
    lines.append("devices")
    lines.append("  cpu")
    lines += [f"  GPU {g.index}: {g.name}, driver {g.driver}, {format_bytes(g.memory_used)} of "
              f"{format_bytes(g.memory_total)} used, {g.utilization} % busy, {g.temperature} °C"
              for g in info.gpus]
    if info.gpu_note:
        lines.append(f"  no GPU: {info.gpu_note}")
    lines.append("features")
    lines += [f"  {f.name:32} {'active' if f.active else 'not active: ' + f.reason}"
              for f in info.features]
    return "\n".join(lines)
