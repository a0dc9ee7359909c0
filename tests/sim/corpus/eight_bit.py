"""int8, four-bit and fp8 values: dot products, quantising and back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("eight_bit.cu")
def gemv_int8(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for rows, words in ((5, 40), (2, 7)):
        weight = rng.integers(-128, 128, (rows, 4 * words), np.int8)
        x = rng.integers(-128, 128, 4 * words, np.int8)
        out = m.empty(rows, np.int32)
        args = out, m.array(weight), m.array(x), np.int32(rows), np.int32(words)
        mod.kernel("gemv_int8").launch(-(-rows // 3), (32, 3), args)
        assert_array_equal(out.numpy(), weight.astype(np.int32) @ x.astype(np.int32))


@program("eight_bit.cu")
def dot_products(m: sim.Machine, mod: Any) -> None:
    a, b = np.random.default_rng(1).integers(0, 2**32, (2, 60), np.uint32)
    u, low, high = m.empty(60, np.uint32), m.empty(60, np.int32), m.empty(60, np.int32)
    mod.kernel("dot_products").launch(2, 32, (u, low, high, m.array(a), m.array(b), np.int32(60)))
    bytes_a, bytes_b = (v.view(np.uint8).reshape(-1, 4).astype(np.int64) for v in (a, b))
    assert_array_equal(u.numpy(), (bytes_a * bytes_b).sum(1) + 7)
    shorts = a.view(np.int16).reshape(-1, 2).astype(np.int64)
    signed = b.view(np.int8).reshape(-1, 4).astype(np.int64)
    assert_array_equal(low.numpy(), (shorts * signed[:, :2]).sum(1) - 5)
    assert_array_equal(high.numpy(), (shorts * signed[:, 2:]).sum(1) - 5)


@program("eight_bit.cu")
def quantise_rows(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    for rows, n in ((3, 20), (2, 200)):
        x = rng.standard_normal((rows, n)).astype(np.float32)
        x[1] = 0
        out, scales = m.empty((rows, n), np.int8), m.empty(rows, np.float32)
        mod.kernel("quantise_rows").launch(rows, 32, (out, scales, m.array(x), np.int32(n // 4)))
        top = np.abs(x).max(1)
        assert_allclose(scales.numpy(), top / 127.0, rtol=1e-6)
        inverse = np.where(top > 0, np.float32(127) / np.where(top > 0, top, 1), 0)
        expected = np.rint(x * inverse.astype(np.float32)[:, None])
        assert_array_equal(out.numpy(), np.clip(expected, -127, 127))


@program("eight_bit.cu")
def dequantise(m: sim.Machine, mod: Any) -> None:
    q = np.random.default_rng(3).integers(-128, 128, (45, 4), np.int8)
    out = m.empty((45, 4), np.float32)
    args = out, m.array(q), np.float32(0.03), np.int32(-3), np.int32(45)
    mod.kernel("dequantise").launch(2, 32, args)
    assert_array_equal(out.numpy(), (q.astype(np.float32) + 3) * np.float32(0.03))


@program("eight_bit.cu")
def dequantise_nibbles(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    words, group = 40, 32
    packed = rng.integers(0, 2**32, words, np.uint32)
    scales = rng.uniform(0.1, 2, 8 * words // group).astype(np.float16)
    out = m.empty(8 * words, np.float16)
    args = out, m.array(packed), m.array(scales), np.int32(words), np.int32(group)
    mod.kernel("dequantise_nibbles").launch(1, 32, args)
    q = (packed[:, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.int64) - 8
    expected = q.reshape(-1, group).astype(np.float16) * scales[:, None]
    assert_array_equal(out.numpy(), expected.reshape(-1))


@program("eight_bit.cu")
def nibbles_by_bits(m: sim.Machine, mod: Any) -> None:
    packed = np.random.default_rng(5).integers(0, 2**32, 70, np.uint32)
    out = m.empty((70, 2), np.float16)
    mod.kernel("nibbles_by_bits").launch(3, 32, (out, m.array(packed), np.int32(70)))
    assert_array_equal(out.numpy(), np.stack([packed & 15, packed >> 16 & 15], 1))


@program("eight_bit.cu")
def fp8_there_and_back(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    special = [0.0, -0.0, 448, 464, 465, 500, -1e6, np.inf, -np.inf, 57344, 61440, 2**-9, 2**-10,
               2**-10 * 1.01, 2**-16, 2**-17, 2**-17 * 1.01, 1.0625, 1.1875, 3.5e-38]
    x = np.concatenate([special, rng.standard_normal(60) * 2.0 ** rng.integers(-18, 17, 60)])
    x = x.astype(np.float32)
    n = x.size
    out4, out5 = m.empty(n, np.float32), m.empty(n, np.float32)
    bits4, bits5 = m.empty(n, np.uint8), m.empty(n, np.uint8)
    args = out4, out5, bits4, bits5, m.array(x), np.int32(n)
    mod.kernel("fp8_there_and_back").launch(3, 32, args)
    for out, bits, dtype in ((out4, bits4, ml_dtypes.float8_e4m3fn),
                             (out5, bits5, ml_dtypes.float8_e5m2)):
        most = float(ml_dtypes.finfo(dtype).max)
        expected = np.clip(x, -most, most).astype(dtype)
        assert_array_equal(bits.numpy(), expected.view(np.uint8))
        assert_array_equal(out.numpy(), expected.astype(np.float32))


@program("eight_bit.cu")
def fp8_pairs(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).standard_normal((50, 2)).astype(np.float32)
    scale = np.float32(64)
    packed, back = m.empty((50, 2), np.uint8), m.empty((50, 2), np.float32)
    args = packed, back, m.array(x), scale, np.int32(50)
    mod.kernel("fp8_pairs").launch(2, 32, args)
    expected = np.clip(x * scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    assert_array_equal(packed.numpy(), expected.view(np.uint8))
    assert_array_equal(back.numpy(), expected.astype(np.float32) / scale)


@program("eight_bit.cu")
def byte_lanes(m: sim.Machine, mod: Any) -> None:
    a, b = np.random.default_rng(8).integers(0, 2**32, (2, 40), np.uint32)
    out = m.empty((40, 5), np.uint32)
    mod.kernel("byte_lanes").launch(2, 32, (out, m.array(a), m.array(b), np.int32(40)))
    x, y = (v.view(np.uint8).reshape(-1, 4).astype(np.int32) for v in (a, b))
    found = out.numpy()
    assert_array_equal(found[:, 0], (x + y).astype(np.uint8).view(np.uint32)[:, 0])
    assert_array_equal(found[:, 1], np.minimum(x + y, 255).astype(np.uint8).view(np.uint32)[:, 0])
    assert_array_equal(found[:, 2], np.abs(x - y).astype(np.uint8).view(np.uint32)[:, 0])
    assert_array_equal(found[:, 3], np.maximum(a.view(np.int16), b.view(np.int16)).view(np.uint32))
    assert_array_equal(found[:, 4], np.abs(x - y).sum(1))
