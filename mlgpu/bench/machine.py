"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from .peers import Peer


def facts() -> dict[str, Any]:
    """CPU, cores, memory, system, Python, NumPy and its BLAS."""
    import numpy as np

    from mlgpu.info import collect  # the driver's process alone asks

    found = collect()
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory": _memory(),
            "gpus": [gpu.name for gpu in found.gpus], "system": found.platform,
            "python": platform.python_version(), "numpy": np.__version__,
            "blas": [f"{blas.name} {blas.version}" for blas in found.blas]}


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return named.group(1) if named else platform.machine()


def _memory() -> int | None:
    """Bytes of the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def versions(peer: Peer) -> str:
    """The versions of what a peer is made of; what is not installed is left out."""
    found = []
    for package in peer.packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            if package == "mlgpu":
                from mlgpu import __version__

                found.append(f"mlgpu {__version__}")
    return ", ".join(found)
