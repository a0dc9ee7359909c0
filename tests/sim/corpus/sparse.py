"""Sparse products, particles, graphs and hash tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sim.corpus.program import program

from mlgpu import sim


def _matrix(seed: int, rows: int, columns: int, dtype: Any) -> Any:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.15)
    dense[1] = 0  # an empty row
    dense[2] = rng.standard_normal(columns)  # and a full one
    return sparse.csr_array(dense.astype(dtype))


@program("sparse.cu")
def spmv_scalar(m: sim.Machine, mod: Any) -> None:
    a = _matrix(0, 70, 40, np.float32)
    x = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    y = m.empty(70, np.float32)
    args = (y, m.array(a.indptr.astype(np.int32)), m.array(a.indices.astype(np.int32)),
            m.array(a.data), m.array(x), np.int32(70))
    mod.kernel("spmv_scalar").launch(3, 32, args)
    assert_allclose(y.numpy(), a.astype(np.float64) @ x, rtol=1e-4, atol=1e-5)


@program("sparse.cu")
def spmv_vector(m: sim.Machine, mod: Any) -> None:
    a = _matrix(2, 11, 90, np.float64)
    x = np.random.default_rng(3).standard_normal(90)
    y = m.empty(11, np.float64)
    args = (y, m.array(a.indptr.astype(np.int32)), m.array(a.indices.astype(np.int32)),
            m.array(a.data), m.array(x), np.int32(11))
    mod.kernel("spmv_vector").launch(3, 128, args)
    assert_allclose(y.numpy(), a @ x, rtol=1e-12, atol=1e-12)


@program("sparse.cu")
def spmv_coo(m: sim.Machine, mod: Any) -> None:
    a = _matrix(4, 20, 50, np.float32)
    coo = a.tocoo()
    x = np.random.default_rng(5).standard_normal(50).astype(np.float32)
    y = m.zeros(20, np.float32)
    args = (y, m.array(coo.coords[0].astype(np.int32)), m.array(coo.coords[1].astype(np.int32)),
            m.array(coo.data), m.array(x), np.int32(coo.nnz))
    mod.kernel("spmv_coo").launch(-(-coo.nnz // 64), 64, args)
    assert_allclose(y.numpy(), a.astype(np.float64) @ x, rtol=1e-4, atol=1e-5)


@program("sparse.cu")
def spmm(m: sim.Machine, mod: Any) -> None:
    a = _matrix(6, 6, 80, np.float32)
    for width, block in ((5, 32), (60, 64)):
        x = np.random.default_rng(7).standard_normal((80, width)).astype(np.float32)
        y = m.empty((6, width), np.float32)
        args = (y, m.array(a.indptr.astype(np.int32)), m.array(a.indices.astype(np.int32)),
                m.array(a.data), m.array(x), np.int32(width))
        mod.kernel("spmm").launch(6, block, args)
        assert_allclose(y.numpy(), a.astype(np.float64) @ x, rtol=1e-4, atol=1e-5)


@program("sparse.cu")
def n_body(m: sim.Machine, mod: Any) -> None:
    n = 75
    bodies = np.random.default_rng(8).standard_normal((n, 4)).astype(np.float32)
    out = m.empty((n, 4), np.float32)
    args = out, m.array(bodies), np.int32(n), np.float32(0.01)
    mod.kernel("n_body").launch(3, 32, args)
    wide = bodies.astype(np.float64)
    delta = wide[None, :, :3] - wide[:, None, :3]
    cube = ((delta**2).sum(-1) + np.float32(0.01)) ** -1.5
    expected = (delta * (wide[:, 3] * cube)[..., None]).sum(1)
    assert_allclose(out.numpy()[:, :3], expected, rtol=1e-4, atol=1e-4)


@program("sparse.cu")
def bfs(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(9)
    vertices = 60
    adjacency = rng.random((vertices, vertices)) < 0.05
    starts = np.concatenate([[0], adjacency.sum(1).cumsum()]).astype(np.int32)
    edges = np.nonzero(adjacency)[1].astype(np.int32)
    first = np.full(vertices, -1, np.int32)
    first[0] = 0
    distance, b_starts, b_edges = m.array(first), m.array(starts), m.array(edges)
    frontier, following = m.zeros(vertices, np.int32), m.empty(vertices, np.int32)
    size, level = 1, 0
    while size:
        level += 1
        count = m.zeros((), np.int32)
        args = (distance, following, count, frontier, np.int32(size), b_starts, b_edges,
                np.int32(level))
        mod.kernel("bfs_level").launch(-(-size // 32), 32, args)
        frontier, following, size = following, frontier, int(count.numpy())
    expected = sparse.csgraph.shortest_path(sparse.csr_array(adjacency.astype(float)),
                                            unweighted=True, indices=0)
    expected[np.isinf(expected)] = -1
    assert level > 3
    assert_array_equal(distance.numpy(), expected)


@program("sparse.cu")
def hash_insert(m: sim.Machine, mod: Any) -> None:
    n, buckets = 90, 13
    keys = np.random.default_rng(10).integers(0, 2**32, n, np.uint32)
    heads, links = m.array(np.full(buckets, -1, np.int32)), m.empty(n, np.int32)
    args = heads, links, m.array(keys), np.int32(n), np.int32(buckets)
    mod.kernel("hash_insert").launch(3, 32, args)
    where = (keys * np.uint32(2654435761) >> np.uint32(16)) % buckets
    link = links.numpy()
    for bucket, at in enumerate(heads.numpy()):
        found = []
        while at >= 0:
            found.append(int(at))
            at = link[at]
        assert sorted(found) == list(np.flatnonzero(where == bucket))


@program("sparse.cu")
def hash_count(m: sim.Machine, mod: Any) -> None:
    n, capacity = 150, 61
    # Close multiples of the multiplier's inverse: neighbours in the table, which collide.
    inverse = np.uint32(pow(0x9E3779B1, -1, 1 << 32))
    keys = np.random.default_rng(11).integers(1, 200, n).astype(np.uint32) // 4 * 4 * inverse
    keys[keys == 0] = 4 * inverse
    slots = m.zeros(capacity, np.uint64)
    mod.kernel("hash_count").launch(3, 64, (slots, m.array(keys), np.int32(n), np.uint32(capacity)))
    used = [int(s) for s in slots.numpy() if s]
    assert {s >> 32: s & 0xFFFFFFFF for s in used} == Counter(keys.tolist())
    assert len(used) == len(set(keys.tolist()))
