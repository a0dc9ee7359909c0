"""The environment variables that choose simulated devices for a process and those it starts.

`MLGPU_CUDA=sim` asks for them; `MLGPU_SIM_DEVICES`, `MLGPU_SIM_ARCH`, `MLGPU_SIM_MEMORY`,
`MLGPU_SIM_SEED` and `MLGPU_SIM_ALLOCATIONS` are the arguments of `mlgpu.sim.install`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mlgpu.errors import DeviceError

CHOICE, SIMULATED = "MLGPU_CUDA", "sim"
_NUMBERS = {"devices", "seed"}
_NAMES = {name: f"MLGPU_SIM_{name.upper()}"
          for name in ("devices", "arch", "memory", "seed", "allocations")}


def wanted() -> bool:
    """Whether the environment asks for simulated devices.  DeviceError where it says neither."""
    choice = os.environ.get(CHOICE, "")
    if choice not in ("", SIMULATED):
        raise DeviceError(f"{CHOICE}={choice!r}: possible are {SIMULATED!r}, for simulated "
                          "devices, and nothing, for this machine's GPUs")
    return choice == SIMULATED


def options() -> dict[str, Any]:
    """The arguments of `install` that are there.  DeviceError where a number is none."""
    found: dict[str, Any] = {}
    for name, variable in _NAMES.items():
        text = os.environ.get(variable, "")
        if not text:
            continue
        if name not in _NUMBERS:
            found[name] = text
        elif text.isascii() and text.isdecimal():
            found[name] = int(text)
        else:
            raise DeviceError(f"{variable}={text!r}: a whole number is needed")
    return found


def described() -> str:
    """What the environment has of simulated devices, for people; "" where it asks for none."""
    if not wanted():
        return ""
    given = options()
    devices, arch = given.get("devices", 2), given.get("arch", "sm_90")
    return (f"{devices} simulated device{'' if devices == 1 else 's'} {arch} of "
            f"{given.get('memory', '4 GiB')}, seed {given.get('seed', 0)} ({CHOICE}={SIMULATED})")


def ask(given: Mapping[str, Any]) -> None:
    """Have processes that this one starts simulate too, with these arguments of `install`."""
    os.environ[CHOICE] = SIMULATED
    for name, variable in _NAMES.items():
        if given.get(name) is not None:
            os.environ[variable] = str(given[name])
