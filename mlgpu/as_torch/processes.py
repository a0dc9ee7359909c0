"""Processes that a program starts by "spawn" or "forkserver": they too have torch answered.

Such a process first imports the program's main module, and what it is to do is unpickled after
that, which imports whatever it needs.  So it is told to import `worker` in the program's place,
which installs the finder, and then the program.
"""

from __future__ import annotations

import json
import multiprocessing.spawn as spawn
import os
from typing import Any

MAIN = "MLGPU_AS_TORCH_MAIN"
_original = spawn.get_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    """What a new process is told, with this module to be imported as its main one."""
    data: dict[str, Any] = _original(name)
    given = {key: data.pop(key) for key in ("init_main_from_name", "init_main_from_path")
             if key in data}
    os.environ[MAIN] = json.dumps(given)  # which the new process inherits
    return {**data, "init_main_from_name": "mlgpu.as_torch.worker"}


def install() -> None:
    """Tell every process started from here on."""
    spawn.get_preparation_data = _preparation_data
