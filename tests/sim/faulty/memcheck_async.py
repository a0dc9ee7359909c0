"""Matrix loads and asynchronous copies that go astray."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "memcheck_async.cu"
X = np.arange(2000, dtype=np.float32)


def fragments(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What ldmatrix.x4 gives each lane of rows of 16 halves: four words of two."""
    quarters = rows.reshape(2, 8, 2, 4, 2).transpose(2, 0, 1, 3, 4)  # matrix, row, word, half
    return quarters.reshape(4, 32, 2).transpose(1, 0, 2)


@fault(SOURCE, since="sm_80")
def ldmatrix_rows(m: sim.Machine, mod: Any) -> None:
    x, out = np.arange(256, dtype=np.uint16).reshape(16, 16), m.empty((32, 4, 2), np.uint16)
    mod.kernel("ldmatrix_rows").launch(1, 32, (m.array(x), out))
    expect(out, fragments(x))


@fault(SOURCE, since="sm_80")
def ldmatrix_padding(m: sim.Machine, mod: Any) -> None:
    x, out = np.arange(256, dtype=np.uint16).reshape(16, 16), m.empty((32, 4, 2), np.uint16)
    mod.kernel("ldmatrix_padding").launch(1, 32, (m.array(x), out))
    expect(out, fragments(x))


@fault(SOURCE, since="sm_80")
def cp_async_tail(m: sim.Machine, mod: Any) -> None:
    y = m.empty(999, np.float32)
    mod.kernel("cp_async_tail").launch(4, 64, (m.array(X[:999]), y, np.int32(999)))
    expect(y, X[:999] + 1)


@fault(SOURCE, since="sm_80")
def stage_past_the_ring(m: sim.Machine, mod: Any) -> None:
    x, y = X[:768].reshape(6, 128), m.empty(128, np.float32)
    mod.kernel("stage_past_the_ring").launch(1, 32, (m.array(x), y, np.int32(6)))
    expect(y, x.sum(0))


@fault(SOURCE, since="sm_80")
def cp_async_misaligned(m: sim.Machine, mod: Any) -> None:
    x, y = X[:505].reshape(5, 101), m.empty(5, np.float32)
    mod.kernel("cp_async_misaligned").launch(5, 32, (m.array(x), y, np.int32(101)))
    expect(y, x.sum(1))
