"""The C++ library's pipelines, barriers and atomics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

HEADERS = ("nv/target", "cuda/atomic")


@program("libcu.cu", headers=HEADERS)
def gemm_pipeline(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((10, 30), np.float32), rng.standard_normal((30, 13), np.float32)
    c = m.empty((10, 13), np.float32)
    args = m.array(a), m.array(b), c, np.int32(10), np.int32(13), np.int32(30)
    mod.kernel("gemm_pipeline").launch((2, 2), (8, 8), args)
    assert_allclose(c.numpy(), a.astype(np.float64) @ b, rtol=1e-5, atol=4e-6)


@program("libcu.cu", headers=HEADERS)
def specialised(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal((2, 8, 96), np.float32)
    sums = m.empty((2, 96), np.float32)
    mod.kernel("specialised").launch(2, 160, (m.array(x), sums, np.int32(8)))
    exact = (x.astype(np.float64) * x[:, :, ::-1]).sum(1)
    assert_allclose(sums.numpy(), exact, rtol=1e-5, atol=1e-6)


@program("libcu.cu", headers=HEADERS)
def barrier_copy(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).integers(-99, 99, 900, np.int32)
    y = m.empty(900, np.int32)
    mod.kernel("barrier_copy").launch(2, 64, (m.array(x), y, np.int32(900)))
    pieces = [x[i:i + 256][::-1] for i in range(0, 900, 256)]
    assert_array_equal(y.numpy(), 3 * np.concatenate(pieces))


@program("libcu.cu", headers=HEADERS)
def tokens(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(3).standard_normal((2, 64), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("tokens").launch(2, 64, (m.array(x), y, np.int32(5)))
    exact = x.astype(np.float64)
    for _ in range(5):
        exact = 0.5 * exact + 0.25 * (np.roll(exact, 1, 1) + np.roll(exact, -1, 1))
    assert_allclose(y.numpy(), exact, rtol=1e-5, atol=1e-6)


@program("libcu.cu", headers=HEADERS)
def chain(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(4).integers(-99, 99, (5, 64), np.int32)
    sums, turn = m.empty(5, np.int32), m.zeros(1, np.uint32)
    mod.kernel("chain").launch(5, 64, (m.array(x), sums, turn))
    assert_array_equal(sums.numpy(), x.sum(1).cumsum())


@program("libcu.cu", headers=HEADERS)
def products(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(5).choice(np.array([-3, -1, 1, 5], np.int32), 100)
    x[7] = 9
    product, top = m.array(np.ones(1, np.int32)), m.array(np.full(1, -1e30, np.float32))
    mod.kernel("products").launch(2, 64, (m.array(x), product, top, np.int32(100)))
    exact = 1
    for value in x.tolist():
        exact *= value
    assert int(product.numpy()[0]) % 2**32 == exact % 2**32
    assert top.numpy()[0] == 4.5
