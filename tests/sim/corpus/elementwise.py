"""Element by element: vectors, strides, grids, structs and tables."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import erf, expit
from sim.corpus.program import program

from mlgpu import sim

BF16 = ml_dtypes.bfloat16


@program("elementwise.cu")
def saxpy(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for n, grid, block in ((1, 1, 32), (100, 2, 64), (383, 3, 128)):
        x, y = rng.standard_normal((2, n), np.float32)
        out = m.array(y)
        mod.kernel("saxpy").launch(grid, block, (out, m.array(x), np.float32(1.5), np.int32(n)))
        assert_allclose(out.numpy(), np.float64(1.5) * x + y, rtol=1e-6, atol=1e-6)


@program("elementwise.cu")
def saxpy_float4(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    for n in (3, 4, 257, 1023):
        x, y = rng.standard_normal((2, n), np.float32)
        out = m.array(y)
        mod.kernel("saxpy_float4").launch(3, 96, (out, m.array(x), np.float32(-0.7), np.int32(n)))
        expected = np.float64(np.float32(-0.7)) * x + y
        assert_allclose(out.numpy(), expected, rtol=1e-6, atol=1e-7)


@program("elementwise.cu")
def saxpy_float4_at_offset(m: sim.Machine, mod: Any) -> None:
    # A view that begins 16 bytes into its buffer: what lies before and after it stays.
    x = np.arange(40, dtype=np.float32)
    out = m.array(np.full(40, 7, np.float32))
    n = np.int32(30)
    mod.kernel("saxpy_float4").launch(1, 32, (out.ptr + 16, m.array(x).ptr + 16, np.float32(2), n))
    expected = np.full(40, 7, np.float32)
    expected[4:34] += 2 * x[4:34]
    assert_array_equal(out.numpy(), expected)


@program("elementwise.cu")
def gelu_grid_stride(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    for n, grid in ((1, 1), (1000, 2), (517, 7)):
        x = 2 * rng.standard_normal(n, np.float32)
        out = m.empty(n, np.float32)
        mod.kernel("gelu_grid_stride").launch(grid, 128, (out, m.array(x), np.int64(n)))
        exact = 0.5 * x.astype(np.float64) * (1 + erf(x / np.sqrt(2.0)))
        assert_allclose(out.numpy(), exact, rtol=2e-5, atol=1e-6)


@program("elementwise.cu")
def swish_unrolled(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    for n, grid in ((5, 1), (700, 2)):
        x = 3 * rng.standard_normal(n, np.float32)
        out = m.empty(n, np.float32)
        mod.kernel("swish_unrolled").launch(grid, 96, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), x * expit(x.astype(np.float64)), rtol=1e-5, atol=1e-7)


@program("elementwise.cu")
def bias_relu_half8(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    for rows, columns in ((3, 8), (9, 40)):
        x = rng.standard_normal((rows, columns)).astype(np.float16)
        bias = rng.standard_normal(columns).astype(np.float16)
        out = m.empty((rows, columns), np.float16)
        args = out, m.array(x), m.array(bias), np.int32(rows), np.int32(columns)
        mod.kernel("bias_relu_half8").launch(2, 32, args)
        assert_array_equal(out.numpy(), np.maximum(x + bias, np.float16(0)))


@program("elementwise.cu")
def half2_fma(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    for n in (1, 2, 151):
        x, y = rng.standard_normal((2, n)).astype(np.float16)
        a = np.float16(1.25)
        out = m.empty(n, np.float16)
        args = out, m.array(x), m.array(y), a, np.int32(n)
        mod.kernel("half2_fma").launch(3, 32, args)
        # The double-precision value is exact here, so this rounds once, as an fma does.
        exact = np.float64(a) * x.astype(np.float64) + y
        assert_array_equal(out.numpy(), exact.astype(np.float16))


@program("elementwise.cu")
def bfloat2_mul_add(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    n = 130
    x, y, w = rng.standard_normal((3, n)).astype(BF16)
    out = m.empty(n, BF16)
    args = out, m.array(x), m.array(y), m.array(w), np.int32(n)
    mod.kernel("bfloat2_mul_add").launch(3, 32, args)
    product = (x.astype(np.float64) * y.astype(np.float64)).astype(BF16)
    expected = (product.astype(np.float64) + w.astype(np.float64)).astype(BF16)
    assert_array_equal(out.numpy().view(np.uint16), expected.view(np.uint16))


@program("elementwise.cu")
def bfloat_silu(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    n = 333
    x = (4 * rng.standard_normal(n)).astype(BF16)
    out = m.empty(n, BF16)
    mod.kernel("bfloat_silu").launch(2, 64, (out, m.array(x), np.int32(n)))
    wide = x.astype(np.float64)
    assert_allclose(out.numpy().astype(np.float64), wide * expit(wide), rtol=2**-8, atol=1e-30)


def _strided(m: sim.Machine, base: np.ndarray, view: np.ndarray) -> tuple[Any, np.void]:
    """The buffer of a base array and the struct that describes a view of it."""
    buffer = m.array(base)
    start = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    layout = np.dtype([("data", np.uint64), ("shape", np.int32, 3), ("stride", np.int64, 3)],
                      align=True)
    strides = [s // base.itemsize for s in view.strides]
    record = np.array((buffer.ptr + start, view.shape, strides), layout)
    return buffer, record[()]


@program("elementwise.cu")
def add_strided(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(8)
    shape = 3, 5, 7
    whole, row, column = (rng.standard_normal(s).astype(np.float32)
                          for s in ((7, 5, 3), (1, 7), (3, 1, 1)))
    views = [(whole, whole.transpose(2, 1, 0)), (whole, whole.transpose(2, 1, 0)[::-1, :, ::-1]),
             (row, np.broadcast_to(row, shape)), (column, np.broadcast_to(column, shape))]
    for first, second in ((0, 2), (1, 3), (2, 1)):
        kept_a, a = _strided(m, *views[first])
        kept_b, b = _strided(m, *views[second])
        out = m.empty(shape, np.float32)
        mod.kernel("add_strided").launch(2, 32, (out, a, b))
        assert_array_equal(out.numpy(), views[first][1] + views[second][1])
        kept_a.free()
        kept_b.free()


@program("elementwise.cu")
def volume(m: sim.Machine, mod: Any) -> None:
    for (nx, ny, nz), block in (((9, 5, 4), (4, 3, 2)), ((5, 7, 3), (8, 2, 3))):
        grid = tuple(-(-n // b) for n, b in zip((nx, ny, nz), block, strict=True))
        out = m.empty((nz, ny, nx), np.int32)
        mod.kernel("volume").launch(grid, block, (out, np.int32(nx), np.int32(ny), np.int32(nz)))
        z, y, x = np.indices((nz, ny, nx))
        expected = x % block[0] + 16 * (y % block[1]) + 256 * (z % block[2])
        expected += 4096 * (grid[0] + 8 * grid[1] + 64 * grid[2])
        assert_array_equal(out.numpy(), expected)


@program("elementwise.cu")
def scale_many(m: sim.Machine, mod: Any) -> None:
    arrays = [np.arange(1, n + 1, dtype=np.float32) for n in (1, 70, 33, 130)]
    buffers = [m.array(a) for a in arrays]
    table = m.array(np.array([b.ptr for b in buffers], np.uint64))
    sizes = m.array(np.array([a.size for a in arrays], np.int32))
    for _ in range(2):
        mod.kernel("scale_many").launch((2, 4), 32, (table, sizes, np.float32(0.5)))
    for buffer, array in zip(buffers, arrays, strict=True):
        assert_array_equal(buffer.numpy(), array / 4)


@program("elementwise.cu")
def fill_many(m: sim.Machine, mod: Any) -> None:
    sizes = [5, 40, 1, 64]
    buffers = [m.empty(n, np.float32) for n in sizes]
    layout = np.dtype([("pointer", np.uint64, 6), ("size", np.int32, 6), ("count", np.int32)],
                      align=True)
    table = np.zeros((), layout)
    table["pointer"][:4] = [b.ptr for b in buffers]
    table["size"][:4] = sizes
    table["count"] = 4
    mod.kernel("fill_many").launch(4, 32, (table[()], np.float32(10)))
    for i, (buffer, n) in enumerate(zip(buffers, sizes, strict=True)):
        assert_array_equal(buffer.numpy(), np.full(n, 10 + i, np.float32))


@program("elementwise.cu")
def far_index(m: sim.Machine, mod: Any) -> None:
    n = 75
    out = m.empty((n, 3), np.int64)
    first, pitch = 5_000_000_017, 98_765_432_101
    mod.kernel("far_index").launch(3, 32, (out, np.int64(first), np.int64(pitch), np.int32(n)))
    linear = [first + i * pitch for i in range(n)]
    expected = [(v // 1000003, v % 1000003, v // (i + 7)) for i, v in enumerate(linear)]
    assert_array_equal(out.numpy(), expected)


@program("elementwise.cu")
def complex_multiply(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(9)
    n = 77
    x, y = rng.standard_normal((2, n, 2)).astype(np.float32).view(np.complex64)[..., 0]
    out = m.empty(n, np.complex64)
    mod.kernel("complex_multiply").launch(3, 32, (out, m.array(x), m.array(y), np.int32(n)))
    assert_allclose(out.numpy(), x.astype(np.complex128) * y, rtol=1e-5, atol=1e-6)


@program("elementwise.cu")
def image_to_planes(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(10)
    width, height = 21, 11
    pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
    out = m.empty((3, height, width), np.float32)
    args = out, m.array(pixels), np.int32(width), np.int32(height)
    mod.kernel("image_to_planes").launch((2, 3), (16, 4), args)
    assert_allclose(out.numpy(), pixels[..., :3].transpose(2, 0, 1) / 255.0, rtol=2e-7, atol=0)


INSTANCES = {"convert<float, int>": (np.float32, np.int32),
             "convert<int, float>": (np.int32, np.float32),
             "convert<unsigned char, short>": (np.uint8, np.int16),
             "convert<long long, double>": (np.int64, np.float64),
             "convert<double, unsigned long long>": (np.float64, np.uint64),
             "convert<short, signed char>": (np.int16, np.int8),
             "convert<float, double>": (np.float32, np.float64),
             "convert<__half, float>": (np.float16, np.float32),
             "convert<float, __half>": (np.float32, np.float16),
             "convert<__nv_bfloat16, float>": (BF16, np.float32)}


@program("elementwise.cu", names=tuple(INSTANCES))
def convert(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(11)
    n = 90
    for name, (to, source) in INSTANCES.items():
        if np.dtype(source).kind in "iu":
            low = 0 if np.dtype(source).kind == "u" else -(2 ** (8 * np.dtype(source).itemsize - 2))
            x = rng.integers(low, 2 ** (8 * np.dtype(source).itemsize - 2), n).astype(source)
        else:
            x = (1000 * rng.standard_normal(n)).astype(source)
        out = m.empty(n, to)
        mod.kernel(name).launch(2, 32, (out, m.array(x), np.int32(n)))
        found, expected = out.numpy(), x.astype(to)
        assert found.tobytes() == expected.tobytes(), name


@program("elementwise.cu")
def rotary(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(12)
    tokens, heads, width = 3, 2, 36
    q = rng.standard_normal((tokens, heads, width), np.float32)
    positions = np.array([0, 17, 130_000], np.int32)  # the last one is a big argument of sincosf
    out = m.array(q)
    args = (out, m.array(positions), np.int32(heads), np.int32(width),
            np.float32(np.log(10000.0)))
    mod.kernel("rotary").launch((tokens, heads), 32, args)
    half = width // 2
    rate = np.exp(-np.log(10000.0) * np.arange(half) / half)
    angle = positions[:, None, None] * rate
    a, b = q[..., :half].astype(np.float64), q[..., half:].astype(np.float64)
    expected = np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                               a * np.sin(angle) + b * np.cos(angle)], -1)
    # The angle itself is rounded to float32: at position 130,000 it is off by some hundredths.
    for row, tolerance in ((0, 1e-6), (1, 3e-5), (2, 0.2)):
        assert_allclose(out.numpy()[row], expected[row], rtol=0, atol=tolerance)
    turned = out.numpy()[2]  # whatever the angle, a rotation keeps lengths
    assert_allclose(np.hypot(turned[:, :half], turned[:, half:]), np.hypot(a[2], b[2]), rtol=1e-5)
