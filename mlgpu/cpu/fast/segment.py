"""Rows added by an index, in one pass: see `mlgpu.cpu.segment`."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled


@compiled
def add_rows(out: Any, low: Any, rows: Any, index: Any, source: Any, scale: Any,
             sourced: bool, scaled: bool) -> None:
    """out[index[i] - low] += scale[i] * rows[source[i]] for the i whose row is there; i ascends."""
    out[:] = 0
    high = low + out.shape[0]
    for i in range(index.size):
        target = index[i]
        if low <= target < high:
            place = source[i] if sourced else i
            if scaled:
                factor = scale[i]
                for j in range(out.shape[1]):
                    out[target - low, j] += factor * rows[place, j]
            else:
                for j in range(out.shape[1]):
                    out[target - low, j] += rows[place, j]
