"""Attention on CUDA cores: forward, backward, decoding from a paged and from a split cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from sim.corpus.program import program

from mlgpu import sim

D = 32
SCALE = np.float32(D**-0.5)


def reference(q: Any, k: Any, v: Any, causal: bool) -> tuple[Any, Any, Any]:
    """Results, weights and log of the sums of exponentials, in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        s = np.where(np.tri(s.shape[-2], s.shape[-1], dtype=bool), s, -np.inf)
    top = s.max(-1, keepdims=True)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    return p / total @ v, p / total, (top + np.log(total))[..., 0]


def inputs(seed: int, count: int, heads: int, n: int) -> list[Any]:
    return list(np.random.default_rng(seed).standard_normal((count, heads, n, D), np.float32))


@program("attention.cu")
def forward(m: sim.Machine, mod: Any) -> None:
    for causal, n in ((0, 25), (1, 19)):
        q, k, v = inputs(n, 3, 2, n)
        o, lse = m.empty(q.shape, np.float32), m.empty((2, n), np.float32)
        args = (*map(m.array, (q, k, v)), o, lse, np.int32(n), np.int32(causal), SCALE)
        mod.kernel("forward").launch((-(-n // 16), 2), 64, args)
        exact, _, sums = reference(q, k, v, bool(causal))
        assert_allclose(o.numpy(), exact, rtol=2e-5, atol=2e-6)
        assert_allclose(lse.numpy(), sums, rtol=2e-6, atol=2e-6)


@program("attention.cu")
def backward(m: sim.Machine, mod: Any) -> None:
    for causal, n in ((1, 21), (0, 9)):
        q, k, v, d_o = inputs(n, 4, 2, n)
        o, p, lse = reference(q, k, v, bool(causal))
        delta = m.empty((2, n), np.float32)
        rows = np.int32(2 * n)
        mod.kernel("backward_delta").launch(
            -(-2 * n // 4), 128, (m.array(o.astype(np.float32)), m.array(d_o), delta, rows))
        exact_delta = (o * d_o).sum(-1)
        assert_allclose(delta.numpy(), exact_delta, rtol=1e-5, atol=2e-6)

        dq, dk, dv = m.zeros(q.shape, np.float32), *(m.empty(q.shape, np.float32) for _ in "kv")
        args = (*map(m.array, (q, k, v, d_o, lse.astype(np.float32))), delta, dq, dk, dv,
                np.int32(n), np.int32(causal), SCALE)
        mod.kernel("backward").launch((-(-n // 16), 2), 64, args)
        d_s = p * (d_o @ v.swapaxes(-1, -2).astype(np.float64) - exact_delta[..., None]) * D**-0.5
        for got, exact in ((dq, d_s @ k), (dk, d_s.swapaxes(-1, -2) @ q),
                           (dv, p.swapaxes(-1, -2) @ d_o)):
            assert_allclose(got.numpy(), exact, rtol=3e-5, atol=5e-6)


@program("attention.cu")
def paged_decode(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    lengths, pages, heads, kv_heads = np.array([1, 37, 16], np.int32), 12, 4, 2
    cache = rng.standard_normal((2, pages, kv_heads, 8, D), np.float32)
    table = np.full((3, 5), -1, np.int32)  # pages that a sequence does not have are not looked up
    order = iter(rng.permutation(pages))
    for row, length in enumerate(lengths):
        for i in range(-(-int(length) // 8)):
            table[row, i] = next(order)
            if 8 * (i + 1) > length:
                cache[:, table[row, i], :, length % 8:] = np.nan  # nor are tokens past the end
    q = rng.standard_normal((3, heads, D), np.float32)
    o = m.empty(q.shape, np.float32)
    args = (*map(m.array, (q, cache[0], cache[1], table, lengths)), o, np.int32(5),
            np.int32(heads), np.int32(kv_heads), SCALE)
    mod.kernel("paged_decode").launch((heads, 3), 128, args)
    for row, length in enumerate(lengths):
        used = table[row, :-(-int(length) // 8)]
        # [kv head, token, D], repeated for the query heads of each group
        k, v = (np.repeat(c[used].swapaxes(0, 1).reshape(kv_heads, -1, D)[:, :length], 2, 0)
                for c in cache)
        exact, _, _ = reference(q[row][:, None], k, v, False)
        assert_allclose(o.numpy()[row], exact[:, 0], rtol=2e-5, atol=2e-6)


@program("attention.cu")
def split_decode(m: sim.Machine, mod: Any) -> None:
    for n, splits in ((77, 3), (5, 4)):
        _, k, v = (x[0] for x in inputs(n, 3, 1, n))
        q = inputs(9, 1, 1, 1)[0][0]
        acc, sums = m.empty((splits, D), np.float32), m.empty((splits, 2), np.float32)
        o = m.empty(D, np.float32)
        args = *map(m.array, (q, k, v)), acc, sums, np.int32(n), SCALE
        mod.kernel("split_decode").launch(splits, 64, args)
        mod.kernel("merge_splits").launch(1, D, (acc, sums, o, np.int32(splits)))
        exact, _, _ = reference(q, k, v, False)
        assert_allclose(o.numpy(), exact[0], rtol=2e-5, atol=2e-6)
