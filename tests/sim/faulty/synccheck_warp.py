"""Masks of warp operations that do not go with the lanes that are there."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "synccheck_warp.cu"
X = np.arange(32, dtype=np.float32)


@fault(SOURCE)
def full_mask_in_branch(m: sim.Machine, mod: Any) -> None:
    y = m.empty(32, np.float32)
    mod.kernel("full_mask_in_branch").launch(1, 32, (m.array(X), y))
    expect(y.numpy()[0], X[:16].sum())
    expect(y.numpy()[16:], X[16:])


@fault(SOURCE)
def mask_of_the_gone(m: sim.Machine, mod: Any) -> None:
    y = m.empty(20, np.float32)
    mod.kernel("mask_of_the_gone").launch(1, 32, (m.array(X[:20]), y, np.int32(20)))
    expect(y, np.full(20, X[:20].sum()))


@fault(SOURCE)
def mask_without_caller(m: sim.Machine, mod: Any) -> None:
    y = m.empty(32, np.float32)
    mod.kernel("mask_without_caller").launch(1, 32, (m.array(X), y))
    expect(y, np.repeat([X[:16].sum(), X[16:].sum()], 16))


@fault(SOURCE)
def syncwarp_of_first_group(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(32, dtype=np.int32), m.empty((4, 8), np.int32)
    mod.kernel("syncwarp_of_first_group").launch(1, 32, (m.array(x), y))
    expect(y, np.roll(x.reshape(4, 8), -1, axis=1))


@fault(SOURCE)
def vote_in_uneven_loop(m: sim.Machine, mod: Any) -> None:
    lengths, rounds = np.arange(32, dtype=np.int32) // 2, m.empty(32, np.int32)
    mod.kernel("vote_in_uneven_loop").launch(1, 32, (m.array(lengths), rounds))
    crowded = sum((lengths > r).sum() > 16 for r in range(lengths.max()))
    expect(rounds, np.full(32, crowded))


@fault(SOURCE)
def mask_of_the_others(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-3, 3, 32, np.int32)
    y = m.empty(32, np.int32)
    mod.kernel("mask_of_the_others").launch(1, 32, (m.array(x), y))
    expect(y, [(x > 0).sum() if v > 0 else -(x == v).sum() for v in x])


@fault(SOURCE)
def shuffle_under_condition(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(3, 35, dtype=np.int32), m.empty(32, np.int32)
    mod.kernel("shuffle_under_condition").launch(1, 32, (m.array(x), y))
    expect(y, x.cumsum())
