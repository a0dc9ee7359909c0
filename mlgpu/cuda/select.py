"""Median, nanmedian and mode along a dimension, from the sorted rows."""

from __future__ import annotations

from typing import Any


def select(x: Any, dim: int, name: str, keepdim: bool) -> tuple[Any, Any]:
    """(values, indices) of the median, nanmedian or mode along `dim`."""
    raise NotImplementedError
