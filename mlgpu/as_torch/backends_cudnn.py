"""torch.backends.cudnn: mlgpu's kernels are its own, and deterministic; the switches do nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

enabled = True
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False: nothing is computed by cuDNN."""
    return False


def version() -> None:
    """None."""
    return


def flags(*args: Any, **kwargs: Any) -> Any:
    """A block in which nothing is different."""
    return nullcontext()
