"""What the machine does while a run trains."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from mlgpu.errors import DeviceError
from mlgpu.extras import require
from mlgpu.train.callback import Callback

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer

CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "acpitz")


class SystemMonitor(Callback):
    """Adds readings of the machine to the records of training steps.

    "cpu_use": percent of all cores since the last record; "ram": bytes in use; "cpu_temperature":
    degrees Celsius, where the system tells it; on a CUDA device whose driver answers "gpu_use" and
    "gpu_temperature", as `mlgpu.cuda.utilization` and `temperature` give them.  Needs
    `mlgpu[train]` (psutil).
    """

    def __init__(self) -> None:
        self._psutil = require("psutil", "train", "SystemMonitor")
        self._psutil.cpu_percent()  # which counts from its last call

    def measure(self, trainer: Trainer) -> dict[str, float]:
        values = {"cpu_use": float(self._psutil.cpu_percent()),
                  "ram": float(self._psutil.virtual_memory().used)}
        temperature = self._temperature()
        if temperature is not None:
            values["cpu_temperature"] = temperature
        if trainer.device.type == "cuda":
            from mlgpu import cuda

            with contextlib.suppress(DeviceError):  # no driver: a simulated device
                values["gpu_use"] = float(cuda.utilization(trainer.device))
                values["gpu_temperature"] = float(cuda.temperature(trainer.device))
        return values

    def _temperature(self) -> float | None:
        """The warmest reading of the processor's sensors; None where there is none."""
        read = getattr(self._psutil, "sensors_temperatures", dict)  # not on every system
        found: dict[str, list[Any]] = read()
        for name in CPU_SENSORS:
            if found.get(name):
                return max(float(sensor.current) for sensor in found[name])
        return None
