"""Random numbers and dropout from compiled loops and from several threads: the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.cpu import fast
from mlgpu.cpu.random import BLOCK
from mlgpu.nn import functional as F
from mlgpu.random import philox

pytest.importorskip("numba", reason="compiled loops need Numba: pip install 'mlgpu[fast]'")
from mlgpu.cpu.fast import random as loops

N = 3 * BLOCK + 5


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, 0x123456789ABCDEF0])
@pytest.mark.parametrize("block", [0, 1, 2**32 - 3, 2**62])
def test_words_are_numpys(seed, block):
    out = np.empty(64, np.uint64)
    loops.words(out, np.uint64(seed), np.uint64(block))
    np.testing.assert_array_equal(out, philox((seed, 0), block, 64))


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64])
@pytest.mark.parametrize("n", [N, max(fast.ENOUGH, 13), BLOCK + 8])
def test_dropout_drops_where_numpy_drops(monkeypatch, dtype, n):
    x = mlgpu.randn(n, dtype=dtype)
    x[:4] = mlgpu.tensor([float("nan"), float("inf"), -0.0, 0.0])
    x.requires_grad_()

    def both():
        mlgpu.manual_seed(11)
        y = F.dropout(x, 0.3)
        x.grad = None
        y.sum().backward()
        return y.detach().numpy().copy(), x.grad.numpy().copy()

    compiled = both()
    monkeypatch.setattr(fast, "load", lambda family, work: None)
    for a, b in zip(compiled, both(), strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


DRAWS = {"rand": lambda: mlgpu.rand(N), "randn": lambda: mlgpu.randn(N),
         "randint": lambda: mlgpu.randint(0, 10**12, (N,)),
         "half": lambda: mlgpu.rand(N, dtype=mlgpu.bfloat16),
         "bernoulli": lambda: mlgpu.bernoulli(mlgpu.full((N,), 0.3)),
         "exponential": lambda: mlgpu.empty(N).exponential_(),
         "complex": lambda: mlgpu.randn(N, dtype=mlgpu.complex64),
         "strided": lambda: mlgpu.empty(3, N // 3).T.normal_()}


@pytest.mark.parametrize("name", DRAWS)
def test_threads_draw_the_same(name):
    before, drawn = mlgpu.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            mlgpu.set_num_threads(threads)
            mlgpu.manual_seed(5)
            drawn.append(DRAWS[name]().contiguous())
    finally:
        mlgpu.set_num_threads(before)
    assert mlgpu.equal(drawn[0], drawn[1])
    assert mlgpu.equal(drawn[0], drawn[2])
