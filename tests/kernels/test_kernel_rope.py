"""kernels/rope.cu on the simulated GPU: every sector is used, the tables are read once."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.types import ctype

STRUCT = np.dtype([("stride", "i8", (4, 4)), ("x_loop", "i8"), ("y_loop", "i8"), ("size", "i4", 4),
                   ("loop", "i4"), ("each", "i4"), ("pairs", "i4"), ("columns", "i4")], align=True)


def turned(x, cos, sin, interleaved, back):
    y, pairs = x.copy(), cos.shape[-1]
    first, second = ((slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else
                     (slice(pairs), slice(pairs, 2 * pairs)))
    wave = (cos + (-1j if back else 1j) * sin)[:, None]
    z = (x[..., first] + 1j * x[..., second]) * wave
    y[..., first], y[..., second] = z.real, z.imag
    return y


def rotate(x, cos, sin, vec, interleaved=False, back=False, arch="sm_90"):
    """x (positions, heads, columns), cos and sin (positions, pairs)."""
    positions, heads, columns = x.shape
    pairs = cos.shape[1]
    r = np.zeros((), STRUCT)
    r["size"] = 1, 1, 1, positions
    r["stride"][:, 3] = heads * columns, heads * columns, pairs, pairs
    r["x_loop"] = r["y_loop"] = columns
    r["loop"], r["each"], r["pairs"], r["columns"] = heads, 4, pairs, columns
    each = max(1, vec // 2) if interleaved else vec
    threads = positions * -(-heads // 4) * (pairs // each + (columns - 2 * pairs) // vec)
    y = np.zeros_like(x)
    name = (f"rotate<{ctype(x.dtype)}, {ctype(cos.dtype)}, {vec}, "
            f"{'true' if interleaved else 'false'}>")
    report = launch("rope", name, -(-threads // 256), 256,
                    (x, y, cos, sin, np.int64(threads), np.bool_(back), r[()]), arch=arch)
    return y, report


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("dtype", "table", "vec"), [
    (np.float32, np.float32, 4), (np.float64, np.float64, 2), (np.float16, np.float32, 4),
    (ml_dtypes.bfloat16, ml_dtypes.bfloat16, 8), (np.float16, np.float16, 1)])
def test_pairs_are_turned(dtype, table, vec, interleaved):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 5, 48)).astype(dtype)  # 16 columns are copied
    cos, sin = (rng.standard_normal((7, 16)).astype(table) for _ in range(2))
    for back in (False, True):
        y, _ = rotate(x, cos, sin, vec, interleaved, back)
        exact = turned(*(a.astype(np.float64) for a in (x, cos, sin)), interleaved, back)
        digits = {2: 8 if dtype is ml_dtypes.bfloat16 else 11, 4: 24, 8: 53}[x.itemsize]
        assert np.abs(y.astype(np.float64) - exact).max() < 16 * 2.0 ** -digits


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bytes_are_the_least(dtype, interleaved):
    x = np.ones((64, 8, 64), dtype)
    cos = np.ones((64, 32), np.float32)
    vec = 8 if interleaved and dtype is np.float16 else 4
    metrics = rotate(x, cos, cos.copy(), vec, interleaved)[1].metrics
    assert metrics["unique_bytes_read"] == x.nbytes + 2 * cos.nbytes
    # Two groups of four heads read the tables, mostly in one load.
    read = metrics["global_load_sectors"] * 32 - x.nbytes
    assert 2 * cos.nbytes <= read <= 2 * 2 * cos.nbytes
    assert metrics["global_store_sectors"] * 32 == x.nbytes
    assert metrics["global_load_sectors"] == metrics["global_load_sectors_ideal"]
    assert metrics["divergent_branches"] == 0
    assert metrics["spill_stores"] == metrics["stack"] == 0


def test_angles_of_long_positions_need_exact_tables():
    """As float32 angles they would be off by thousandths; cos and sin are given instead."""
    angles = np.multiply.outer(np.arange(99990.0, 100000.0), 10000.0 ** -(np.arange(16) / 16))
    x = np.random.default_rng(0).standard_normal((10, 1, 32)).astype(np.float32)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    y, _ = rotate(x, cos, sin, 4)
    exact = turned(x.astype(np.float64), np.cos(angles), np.sin(angles), False, False)
    assert np.abs(y - exact).max() < 1e-6
    assert math.isclose(float((y ** 2).sum()), float((x ** 2).sum()), rel_tol=1e-6)


@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
def test_other_targets(arch):
    x = np.random.default_rng(0).standard_normal((3, 2, 16)).astype(np.float16)
    cos = np.ones((3, 8), np.float32)
    y, _ = rotate(x, cos, np.zeros_like(cos), 8, arch=arch)
    assert (y == x).all()
