"""kernels/nf4.cu against the weight made whole on the CPU: tails of tiles, rows, words, scales."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cpu.nf4 import eighths
from mlgpu.peft import nf4_values

TYPES = {"float": np.float32, "__half": np.float16,
         "__nv_bfloat16": ml_dtypes.bfloat16}
NEAR = {"float": 1e-6, "__half": 1e-3, "__nv_bfloat16": 6e-3}


def weight(n, k, shift, small):
    """The weight, and what a kernel is told of it."""
    rng = np.random.default_rng(n)
    codes = rng.integers(0, 256, n * k // 2, np.uint8)
    table = nf4_values()
    pairs = np.stack([np.tile(table, 16), np.repeat(table, 16)], 1)
    blocks = -(-n * k // (1 << shift))
    more = mean = None
    if small:
        scales = rng.integers(0, 256, blocks, np.uint8)
        scales[scales % 128 == 127] = 0  # NaN
        more, mean = rng.random(-(-blocks // 256), np.float32), np.full(1, 0.3, np.float32)
        values = eighths()[scales] * np.repeat(more, 256)[:blocks] + mean
    else:
        scales = values = rng.random(blocks, np.float32)
    whole = pairs[codes].reshape(-1) * np.repeat(values, 1 << shift)[:n * k]
    return whole.reshape(n, k), (codes, scales, more, mean, pairs)


@pytest.mark.parametrize("small", [False, True])
def test_every_byte_is_a_scale(small):
    whole, told = weight(300, 64, 3, small)
    out = np.zeros(299 * 64, np.float32)
    kind = "unsigned char" if small else "float"
    launch("nf4", f"nf4_whole<float, float, {kind}, 8>", -(-out.size // 2048), 256,
           (out, *told, 64, out.size, 8))
    np.testing.assert_allclose(out, whole[1:].reshape(-1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "m", "rows", "small"), [
    ("float", 1, 1, True), ("__nv_bfloat16", 3, 4, False)])
def test_few_rows(kind, m, rows, small):
    n, k = 21, 1160
    whole, told = weight(n, k, 3, small)
    x = np.random.default_rng(0).standard_normal((m, k)).astype(TYPES[kind])
    y = np.zeros((m, n), x.dtype)
    report = launch("nf4", f"nf4_gemv<{kind}, {'unsigned char' if small else 'float'}, {rows}>",
                    3, 256, (y, x, *told, m, n, k, 3))
    assert report.metrics["spill_stores"] == 0
    expected = x.astype(float) @ whole.T.astype(float)
    assert np.abs(y.astype(float) - expected).max() < NEAR[kind] * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "arch", "small", "deep"), [
    ("__nv_bfloat16", "sm_90", False, True), ("__half", "sm_75", True, False)])
def test_tiles(kind, arch, small, deep):
    n, k, m = 72, 136, 67  # rows and columns of the weight, and rows of x
    whole, told = weight(n, k, 3, small)
    over, across = (k, n) if deep else (n, k)
    x = np.random.default_rng(0).standard_normal((m, over)).astype(TYPES[kind])
    y = np.zeros((m, across), x.dtype)
    name = f"nf4_gemm<{kind}, {'unsigned char' if small else 'float'}, {str(deep).lower()}>"
    report = launch("nf4", name, 2 * -(-across // 64), 128,
                    (y, x, *told, m, across, over, k, 3), arch=arch)
    assert report.metrics["spill_stores"] == 0
    assert report.metrics["shared_wavefronts"] <= 1.15 * report.metrics["shared_wavefronts_ideal"]
    expected = x.astype(float) @ (whole.T if deep else whole).astype(float)
    assert np.abs(y.astype(float) - expected).max() < NEAR[kind] * np.abs(expected).max()
