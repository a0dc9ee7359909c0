"""What `mlgpu info` tells: versions, BLAS and threads, devices, and which features are active."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from mlgpu.cpu import fast
from mlgpu.cpu.threads import get_num_threads
from mlgpu.cuda import environment
from mlgpu.device import cuda_problem
from mlgpu.errors import DeviceError, MissingExtraError
from mlgpu.extras import require
from mlgpu.memory import format_bytes


@dataclass(frozen=True)
class Blas:
    """The library that multiplies matrices on the CPU."""

    name: str
    version: str
    threads: int | None  # None where it does not say


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as its driver reports it; None for what it does not answer."""

    index: int
    name: str | None
    driver: str | None
    memory_used: int | None  # bytes
    memory_total: int | None  # bytes
    utilization: int | None  # per cent of the last sample period
    temperature: int | None  # degrees Celsius


@dataclass(frozen=True)
class Feature:
    """Whether a feature can be used; if not, why, and if so, by what, where that may differ."""

    name: str
    active: bool
    reason: str


@dataclass(frozen=True)
class Info:
    """Everything `mlgpu info` prints."""

    versions: dict[str, str]
    platform: str
    threads: int  # of one operation on the CPU
    blas: list[Blas]
    gpus: list[Gpu]
    gpu_note: str
    simulated: str  # devices that MLGPU_CUDA=sim asks for, in words; "" where it does not
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
    ("training's dashboard", "rich", "train"),
    ("TensorBoard", "tensorboardX", "tensorboard"),
    ("MLflow", "mlflow", "mlflow"),
    ("Weights & Biases", "wandb", "wandb"),
)


def collect() -> Info:
    """Look at this machine.  Starts nothing on a GPU."""
    gpus, note = _gpus()
    return Info(_versions(), f"{platform.system()} {platform.release()} {platform.machine()}",
                get_num_threads(), _blas(), gpus, note, _simulated(), _features())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("mlgpu", "numpy", "ml_dtypes", "threadpoolctl", "cupy-cuda12x", "cupy-cuda13x",
                    "numba", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc", "nvidia-ml-py"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "mlgpu":
                from mlgpu import __version__

                found[package] = f"{__version__} (not installed: run from its sources)"
    return found


def _blas() -> list[Blas]:
    from threadpoolctl import threadpool_info

    loaded = [Blas(str(lib["internal_api"]), str(lib["version"]), int(lib["num_threads"]))
              for lib in threadpool_info() if lib["user_api"] == "blas"]
    if loaded:
        return loaded
    # One that threadpoolctl does not know, as macOS's Accelerate: what NumPy was built with.
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    return [Blas(str(blas.get("name", "unknown")), str(blas.get("version", "unknown")), None)]


def _gpus() -> tuple[list[Gpu], str]:
    try:
        nvml: Any = require("pynvml", "cuda12", "device facts")
    except MissingExtraError as error:
        return [], str(error)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [], f"no NVIDIA driver answers: {error}"
    try:
        count = nvml.nvmlDeviceGetCount()
        return [_gpu(nvml, index) for index in range(count)], (
            "" if count else "the driver reports no GPU")
    except nvml.NVMLError as error:
        return [], f"the driver does not count its GPUs: {error}"
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    """Each fact is asked for alone: a MIG slice has no utilisation, an old card no temperature."""

    def answer(query: Any, *arguments: Any) -> Any:
        try:
            return query(*arguments)
        except nvml.NVMLError:
            return None

    def text(value: Any) -> str | None:  # older pynvml gives bytes
        return value.decode() if isinstance(value, bytes) else value

    driver = text(answer(nvml.nvmlSystemGetDriverVersion))
    handle = answer(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Gpu(index, None, driver, None, None, None, None)
    memory = answer(nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = answer(nvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(index, text(answer(nvml.nvmlDeviceGetName, handle)), driver,
               None if memory is None else memory.used, None if memory is None else memory.total,
               None if rates is None else rates.gpu,
               answer(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU))


def _simulated() -> str:
    try:
        return environment.described()
    except DeviceError as error:
        return str(error)


def _features() -> list[Feature]:
    problem = cuda_problem()
    features = [Feature("CPU (NumPy)", True, ""), _loops(),
                Feature("CUDA", problem is None, problem or "")]
    for name, module, extra in _OPTIONAL:
        active = find_spec(module) is not None
        features.append(Feature(name, active, "" if active else (
            f"{module} is not installed (pip install 'mlgpu[{extra}]')")))
    return features


def _loops() -> Feature:
    reason = fast.problem()
    return Feature("compiled loops on the CPU", reason is None,
                   f"Numba {metadata.version('numba')}" if reason is None else reason)


def text(info: Info) -> str:
    """`info` for people."""
    lines = ["versions"]
    lines += [f"  {name:24} {version}" for name, version in info.versions.items()]
    lines += ["machine", f"  {info.platform}", f"  {info.threads} threads for one operation"]
    lines += [f"  BLAS {b.name} {b.version}, {_shown(b.threads, 'threads')}" for b in info.blas]
    lines += ["devices", "  cpu", *(f"  {_gpu_line(gpu)}" for gpu in info.gpus)]
    if info.gpu_note:
        lines.append(f"  no GPU: {info.gpu_note}")
    if info.simulated:
        lines.append(f"  CUDA: {info.simulated}")
    lines.append("features")
    lines += [f"  {f.name:32} {_state(f)}" for f in info.features]
    return "\n".join(lines)


def _state(feature: Feature) -> str:
    if not feature.active:
        return f"not active: {feature.reason}"
    return f"active ({feature.reason})" if feature.reason else "active"


def _gpu_line(gpu: Gpu) -> str:
    used, total = (None if n is None else format_bytes(n)
                   for n in (gpu.memory_used, gpu.memory_total))
    memory = "memory unknown" if used is None else f"{used} of {total} used"
    busy, heat = _shown(gpu.utilization, "% busy"), _shown(gpu.temperature, "°C")
    return (f"GPU {gpu.index}: {gpu.name or 'unknown name'}, driver {gpu.driver or 'unknown'}, "
            f"{memory}, {busy}, {heat}")


def _shown(value: int | None, unit: str) -> str:
    return f"{'unknown' if value is None else value} {unit}"
