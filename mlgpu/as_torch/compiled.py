"""torch._C, PyTorch's compiled part: what packages call of it in passing."""

from __future__ import annotations

from typing import Any


def _log_api_usage_once(*names: Any) -> None:
    """Nothing: mlgpu keeps no log of what is used."""


def _get_tracing_state() -> None:
    """None: nothing is being traced."""
    return
