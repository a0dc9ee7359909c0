"""Asynchronous copies, barriers in shared memory and matrix operations used amiss."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import IN_VAIN, expect, fault

from mlgpu import sim

SOURCE = "synccheck_async.cu"
X = np.arange(2048, dtype=np.float32)


@fault(SOURCE, since="sm_80")
def copy_without_wait(m: sim.Machine, mod: Any) -> None:
    y = m.empty(256, np.float32)
    mod.kernel("copy_without_wait").launch(1, 64, (m.array(X[:256]), y))
    expect(y, X[:256])


@fault(SOURCE, since="sm_80")
def last_group_under_way(m: sim.Machine, mod: Any) -> None:
    x, y = X[:1280].reshape(5, 256), m.empty(256, np.float32)
    mod.kernel("last_group_under_way").launch(1, 64, (m.array(x), y, np.int32(5)))
    expect(y, x.sum(0))


@fault(SOURCE, since="sm_80")
def copy_not_committed(m: sim.Machine, mod: Any) -> None:
    x, y = X[:512].reshape(2, 64, 4), m.empty((64, 4), np.float32)
    mod.kernel("copy_not_committed").launch(1, 64, (m.array(x), y))
    expect(y, x.sum(0)[::-1])


@fault(SOURCE, since="sm_80")
def wait_before_commit(m: sim.Machine, mod: Any) -> None:
    y = m.empty((32, 2), np.float32)
    mod.kernel("wait_before_commit").launch(1, 64, (m.array(X[:64]), y))
    expect(y, X[:64].reshape(32, 2)[:, ::-1])


@fault(SOURCE, since="sm_80", tools=IN_VAIN)
def arrivals_too_few(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("arrivals_too_few").launch(1, 64, (m.array(X[:64]), y))
    expect(y, X[:64][::-1])


@fault(SOURCE, since="sm_80")
def barrier_not_initialised(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("barrier_not_initialised").launch(1, 64, (m.array(X[:64]), y))
    expect(y, 2 * X[:64][::-1])


@fault(SOURCE, since="sm_80")
def wmma_under_guard(m: sim.Machine, mod: Any) -> None:
    a, b = np.random.default_rng(0).integers(-8, 9, (2, 16, 16)).astype(np.float16)
    c = m.zeros((16, 16), np.float32)
    mod.kernel("wmma_under_guard").launch(1, 32, (m.array(a), m.array(b), c, np.int32(12)))
    expect(c, a.astype(np.float32) @ b.astype(np.float32))


@fault(SOURCE, since="sm_80")
def ldmatrix_under_guard(m: sim.Machine, mod: Any) -> None:
    x, out = np.arange(256, dtype=np.uint16).reshape(32, 8), m.empty((32, 4, 2), np.uint16)
    mod.kernel("ldmatrix_under_guard").launch(1, 32, (m.array(x), out))
    expect(out, x.reshape(4, 8, 4, 2).transpose(1, 2, 0, 3))
