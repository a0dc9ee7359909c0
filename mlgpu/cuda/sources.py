"""Where the CUDA sources are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mlgpu.errors import KernelError

if TYPE_CHECKING:
    from pathlib import Path


@functools.cache
def kernels_dir() -> Path:
    """The folder with common.cuh and the .cu files.  KernelError where it is missing."""
    from pathlib import Path  # slow to import, and most programs start without needing it

    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "common.cuh").is_file():
            return folder
    raise KernelError(f"kernels: no kernel sources in {package} or beside it; reinstall mlgpu")
