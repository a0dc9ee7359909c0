"""Programs that stop themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "program.cu"
X = np.linspace(-2, 2, 64, dtype=np.float32)


@fault(SOURCE)
def trap_on_bad_token(m: sim.Machine, mod: Any) -> None:
    ids, counts = np.arange(64, dtype=np.int32) % 11 - 1, m.zeros(9, np.int32)
    mod.kernel("trap_on_bad_token").launch(1, 64, (m.array(ids), np.int32(9), counts))
    expect(counts, np.bincount(ids[(ids >= 0) & (ids < 9)], minlength=9))


@fault(SOURCE)
def trap_in_switch(m: sim.Machine, mod: Any) -> None:
    kinds, y = np.arange(64, dtype=np.int32) % 4, m.empty(64, np.float32)
    mod.kernel("trap_in_switch").launch(1, 64, (m.array(kinds), m.array(X), y))
    expect(y, np.choose(kinds, [X, np.maximum(X, 0), np.tanh(X), X * X]), rtol=1e-5)


@fault(SOURCE)
def assert_of_label(m: sim.Machine, mod: Any) -> None:
    labels = np.where(np.arange(64) % 5 == 2, -100, np.arange(64) % 10).astype(np.int32)
    logits = np.arange(640, dtype=np.float32).reshape(64, 10)
    picked = m.empty(64, np.float32)
    args = (m.array(labels), m.array(logits), picked, np.int32(10))
    mod.kernel("assert_of_label").launch(2, 32, args)
    expect(picked, np.where(labels < 0, 0, logits[np.arange(64), np.maximum(labels, 0)]))


@fault(SOURCE)
def assert_in_function(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("assert_in_function").launch(1, 64, (m.array(X), y))
    expect(y, -np.log(np.maximum(X, np.float32(1e-6))), rtol=1e-5)
