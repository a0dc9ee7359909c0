"""torch.fx: marks for a tracer, of which mlgpu has none."""

from __future__ import annotations

from typing import Any


def wrap(fn_or_name: Any) -> Any:
    """The function itself: nothing is traced, so that there is nothing to leave whole."""
    return fn_or_name
