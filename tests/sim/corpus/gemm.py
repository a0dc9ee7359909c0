"""Matrix products without tensor cores, in every style from naive to stream-K."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


def operands(seed: int, m: int, n: int, k: int, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """A, B and their product in float64."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    return a, b, a.astype(np.float64) @ b.astype(np.float64)


def sizes(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(v) for v in values)


def tiles(n: int, m: int, tile: int) -> tuple[int, int]:
    """The grid that covers m rows and n columns."""
    return -(-n // tile), -(-m // tile)


@program("gemm.cu")
def naive(m: sim.Machine, mod: Any) -> None:
    for seed, (rows, columns, inner) in enumerate(((1, 1, 1), (37, 21, 19), (16, 40, 33))):
        a, b, product = operands(seed, rows, columns, inner)
        c = m.empty((rows, columns), np.float32)
        args = m.array(a), m.array(b), c, *sizes(rows, columns, inner)
        mod.kernel("gemm_naive").launch(tiles(columns, rows, 16), (16, 16), args)
        assert_allclose(c.numpy(), product, rtol=1e-5, atol=2e-6)


@program("gemm.cu")
def tiled(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(3, 40, 35, 37)
    c = m.empty((40, 35), np.float32)
    args = m.array(a), m.array(b), c, *sizes(40, 35, 37)
    gemm = mod.kernel("gemm_tiled")
    gemm.launch(tiles(35, 40, 16), (16, 16), (*args, np.float32(1), np.float32(0)))
    assert_allclose(c.numpy(), product, rtol=1e-5, atol=2e-6)
    gemm.launch(tiles(35, 40, 16), (16, 16), (*args, np.float32(2), np.float32(-0.5)))
    assert_allclose(c.numpy(), 1.5 * product, rtol=1e-5, atol=5e-6)


@program("gemm.cu")
def double(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    # Multiples of 1/8 multiply and add without rounding.
    a, b = rng.integers(-99, 99, (33, 18)) / 8, rng.integers(-99, 99, (18, 47)) / 8
    c = m.array(np.ones((33, 47)))
    args = m.array(a), m.array(b), c, *sizes(33, 47, 18), np.float64(-1), np.float64(0.25)
    mod.kernel("gemm_double").launch(tiles(47, 33, 16), (16, 16), args)
    assert_array_equal(c.numpy(), 0.25 - a @ b)


@program("gemm.cu")
def register_blocked(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(5, 50, 45, 29)
    c = m.empty((50, 45), np.float32)
    args = m.array(a), m.array(b), c, *sizes(50, 45, 29)
    mod.kernel("gemm_register").launch(tiles(45, 50, 32), 64, args)
    assert_allclose(c.numpy(), product, rtol=1e-5, atol=2e-6)


@program("gemm.cu")
def double_buffered(m: sim.Machine, mod: Any) -> None:
    for seed, inner in ((6, 70), (7, 16), (8, 5)):
        a, b, product = operands(seed, 30, 35, inner)
        c = m.empty((30, 35), np.float32)
        args = m.array(a), m.array(b), c, *sizes(30, 35, inner)
        mod.kernel("gemm_double_buffered").launch(tiles(35, 30, 16), (16, 16), args)
        assert_allclose(c.numpy(), product, rtol=1e-5, atol=3e-6)


@program("gemm.cu")
def vectorised(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(9, 45, 44, 28)
    c = m.empty((45, 44), np.float32)
    args = m.array(a), m.array(b), c, *sizes(45, 44, 28)
    mod.kernel("gemm_vector").launch(tiles(44, 45, 32), 64, args)
    assert_allclose(c.numpy(), product, rtol=1e-5, atol=2e-6)


ANY = ("gemm_any<float, false, false>", "gemm_any<float, true, false>",
       "gemm_any<float, false, true>", "gemm_any<double, true, true>")


@program("gemm.cu", names=ANY)
def transposed_operands(m: sim.Machine, mod: Any) -> None:
    for seed, name in enumerate(ANY):
        dtype = np.float64 if "double" in name else np.float32
        a, b, product = operands(seed, 23, 19, 34, dtype)
        first, second = (word.strip(" >") == "true" for word in name.split(",")[1:])
        # Each lies in a matrix with three columns more, as a view of it would.
        stored = [np.pad(np.ascontiguousarray(x.T) if flip else x, ((0, 0), (0, 3)))
                  for x, flip in ((a, first), (b, second))]
        c = m.array(np.full((23, 22), 7, dtype))
        mod.kernel(name).launch(tiles(19, 23, 16), (16, 16), (
            m.array(stored[0]), np.int32(stored[0].shape[1]), m.array(stored[1]),
            np.int32(stored[1].shape[1]), c, np.int32(22), *sizes(23, 19, 34)))
        assert_allclose(c.numpy()[:, :19], product, rtol=1e-5, atol=3e-6)
        assert_array_equal(c.numpy()[:, 19:], np.full((23, 3), 7, dtype))


@program("gemm.cu")
def swizzled(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(10, 37, 41, 45)
    c = m.empty((37, 41), np.float32)
    args = m.array(np.ascontiguousarray(a.T)), m.array(b), c, *sizes(37, 41, 45)
    mod.kernel("gemm_swizzled").launch(tiles(41, 37, 32), (32, 8), args)
    assert_allclose(c.numpy(), product, rtol=1e-5, atol=3e-6)


@program("gemm.cu")
def split_k_atomic(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(11, 20, 30, 100)
    c = m.zeros((20, 30), np.float32)
    args = m.array(a), m.array(b), c, *sizes(20, 30, 100)
    mod.kernel("gemm_split_atomic").launch((*tiles(30, 20, 16), 3), (16, 16), args)
    assert_allclose(c.numpy(), product, rtol=1e-5, atol=5e-6)


@program("gemm.cu")
def split_k_semaphore(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(12, 20, 30, 100)
    turn, first = m.zeros(4, np.int32), None
    for _ in range(2):  # the semaphores are ready for a second launch, with the same bits
        c = m.empty((20, 30), np.float32)
        args = m.array(a), m.array(b), c, turn, *sizes(20, 30, 100)
        mod.kernel("gemm_split_semaphore").launch((*tiles(30, 20, 16), 3), (16, 16), args)
        assert_allclose(c.numpy(), product, rtol=1e-5, atol=5e-6)
        first = c.numpy() if first is None else first
        assert_array_equal(c.numpy(), first)
        assert_array_equal(turn.numpy(), np.zeros(4, np.int32))


@program("gemm.cu")
def split_k_ticket(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(13, 19, 33, 90)
    tickets = m.zeros(6, np.uint32)
    for _ in range(2):
        c, partials = m.empty((19, 33), np.float32), m.empty((3, 19, 33), np.float32)
        args = m.array(a), m.array(b), c, partials, tickets, *sizes(19, 33, 90)
        mod.kernel("gemm_split_ticket").launch((*tiles(33, 19, 16), 3), (16, 16), args)
        assert_allclose(c.numpy(), product, rtol=1e-5, atol=5e-6)
        assert_array_equal(tickets.numpy(), np.zeros(6, np.uint32))


@program("gemm.cu")
def batched(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(14)
    a, b = rng.standard_normal((3, 17, 20), np.float32), rng.standard_normal((20, 25), np.float32)
    c = m.empty((3, 17, 25), np.float32)
    # B has stride 0: one matrix for the whole batch.
    args = (m.array(a), np.int64(17 * 20), m.array(b), np.int64(0), c, np.int64(17 * 25),
            *sizes(17, 25, 20))
    mod.kernel("gemm_batched").launch((*tiles(25, 17, 16), 3), (16, 16), args)
    assert_allclose(c.numpy(), a.astype(np.float64) @ b, rtol=1e-5, atol=2e-6)


@program("gemm.cu")
def grouped_by_pointers(m: sim.Machine, mod: Any) -> None:
    shapes = ((17, 9, 30), (5, 33, 7), (1, 1, 40))
    cases = [operands(seed, *shape) for seed, shape in enumerate(shapes)]
    a, b = [m.array(case[0]) for case in cases], [m.array(case[1]) for case in cases]
    c = [m.empty(shape[:2], np.float32) for shape in shapes]
    tables = [m.array(np.array([buffer.ptr for buffer in group], np.uint64)) for group in (a, b, c)]
    problems = m.array(np.array(shapes, np.int32))
    mod.kernel("gemm_grouped").launch((3, 2, 3), (16, 16), (*tables, problems))
    for out, (_, _, product) in zip(c, cases, strict=True):
        assert_allclose(out.numpy(), product, rtol=1e-5, atol=2e-6)


@program("gemm.cu")
def half_storage(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(15, 35, 21, 50, np.float16)
    c = m.empty((35, 21), np.float16)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *sizes(35, 21, 50)
    mod.kernel("gemm_half").launch(tiles(21, 35, 16), (16, 16), args)
    assert_allclose(c.numpy().astype(np.float64), product, rtol=2**-11 + 1e-5, atol=1e-5)


@program("gemm.cu")
def stream_k(m: sim.Machine, mod: Any) -> None:
    a, b, product = operands(16, 40, 20, 75)  # 6 tiles of 5 steps
    for blocks in (1, 4, 6, 7):
        c, left = m.empty((40, 20), np.float32), m.empty((blocks, 256), np.float32)
        args = m.array(a), m.array(b), c, left, m.zeros(blocks, np.int32), *sizes(40, 20, 75)
        mod.kernel("gemm_stream_k").launch(blocks, (16, 16), args)
        assert_allclose(c.numpy(), product, rtol=1e-5, atol=5e-6)
