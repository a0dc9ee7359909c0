"""kernels/conv*.cu and depthwise*.cu: values in all dtypes, and what launches count."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cuda import conv, conv_mma
from mlgpu.ops.window import Windows

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
C128, I8 = np.dtype(np.complex128), np.dtype(np.int8)
TOLERANCE = {F32: 2e-6, F64: 1e-14, F16: 1e-3, BF16: 8e-3, C128: 1e-14, I8: 0}


def windows(large, kernel, stride=1, dilation=1, before=0):
    axes = len(large)
    stride, dilation, before = (v if isinstance(v, tuple) else (v,) * axes
                                for v in (stride, dilation, before))
    sizes = zip(large, kernel, stride, dilation, before, strict=True)
    small = tuple((n + 2 * b - d * (k - 1) - 1) // s + 1 for n, k, s, d, b in sizes)
    return Windows(large, small, kernel, stride, dilation, before)


def exact(dtype):
    if dtype.kind == "c":
        return np.complex128
    return dtype if dtype.kind in "iu" else np.float64


def pairs(win):
    """For each tap what it sees: (tap, positions, elements)."""
    for tap in win.taps():
        places = win.tap_slices(tap, (0,) * len(tap), win.small)
        if places is not None:
            yield tap, *((slice(None), slice(None), *p) for p in places)


def grouped(a, groups):
    return a.reshape(len(a), groups, a.shape[1] // groups, *a.shape[2:])


def small_of(x, weight, win, groups):
    out = np.zeros((len(x), groups, len(weight) // groups, *win.small), x.dtype)
    w = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    for tap, seen, elements in pairs(win):
        value = np.einsum("ngc...,goc->ngo...", grouped(x[elements], groups), w[(..., *tap)])
        out[(slice(None), *seen)] += value
    return out.reshape(len(x), len(weight), *win.small)


def large_of(y, weight, win, groups):
    channels = weight.shape[1]
    out = np.zeros((len(y), groups * channels, *win.large), y.dtype)
    w = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    for tap, seen, elements in pairs(win):
        value = np.einsum("ngo...,goc->ngc...", grouped(y[seen], groups), w[(..., *tap)])
        out[elements] += value.reshape(len(y), groups * channels, *value.shape[3:])
    return out


def weight_of(x, y, shape, win, groups):
    out = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for tap, seen, elements in pairs(win):
        a, b = grouped(x[elements], groups), grouped(y[seen], groups)
        out[(..., *tap)] = np.einsum("ngcp,ngop->goc", a.reshape(*a.shape[:3], -1),
                                     b.reshape(*b.shape[:3], -1))
    return out.reshape(shape)


def random(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        return rng.integers(-9, 9, shape).astype(dtype)
    drawn = rng.standard_normal(shape)
    return (drawn + 1j * rng.standard_normal(shape) if dtype.kind == "c" else drawn).astype(dtype)


def close(found, expected, dtype):
    scale = max(1.0, float(np.abs(expected).max()))
    error = np.abs(found.astype(exact(dtype)) - expected).max()
    assert error <= TOLERANCE[dtype] * scale


def clean(reports, dtype, arch):
    for report in reports:
        assert not report.findings
        # Tiles of which but a part is there count among so few passes.
        if dtype.itemsize > 1 and report.metrics["shared_wavefronts"] > 1500:
            assert report.metrics["bank_conflicts"] <= 0.1 * report.metrics["shared_wavefronts"]
        if dtype in (F32, F16, BF16) and arch != "sm_75":
            assert report.metrics["spill_stores"] == 0, report
            assert report.metrics["local_load_instructions"] == 0


def everything(host, dtype, images, channels, rows, win, groups=1):
    """All three maps on the device, compared; the reports of each."""
    x = random(dtype, (images, channels, *win.large), 1)
    weight = random(dtype, (rows, channels // groups, *win.kernel), 2)
    y = random(dtype, (images, rows, *win.small), 3)
    bias = random(dtype, (rows,), 4)
    wide = exact(dtype)
    wx, ww, wy = (a.astype(wide) for a in (x, weight, y))
    reports = []
    for function, given, expected in (
            (conv.to_small, (x, weight, bias),
             small_of(wx, ww, win, groups) + bias.astype(wide).reshape(-1, *(1,) * len(win.large))),
            (conv.to_large, (y, weight, None), large_of(wy, ww, win, groups)),
            (conv.to_weight, (x, y), weight_of(wx, wy, weight.shape, win, groups))):
        found = host.wrap(function)(*given, win, groups)
        close(np.asarray(found), expected, dtype)
        clean(host.reports, dtype, host.arch)
        reports.append(list(host.reports))
    return reports


@pytest.fixture
def host(monkeypatch):
    return hosted(monkeypatch, conv, conv_mma)


@pytest.mark.parametrize(("dtype", "images", "channels", "rows", "win", "groups"), [
    (F32, 1, 4, 70, windows((9, 8), (3, 3), stride=(2, 1), dilation=(1, 2), before=(1, 2)), 2),
    (F16, 1, 12, 140, windows((9, 8), (3, 3), stride=(2, 1), before=1), 2),
    (BF16, 1, 3, 16, windows((15, 13), (7, 7), before=3), 1),
    (F16, 1, 3, 12, windows((4, 5, 6), (3, 2, 3), before=1), 1),
    (BF16, 2, 12, 10, windows((37,), (5,), stride=3, before=2), 1),
    (F16, 2, 32, 70, windows((9, 7), (3, 3), before=1), 1),
    (BF16, 3, 40, 33, windows((40,), (1,)), 1),
    (BF16, 3, 12, 33, windows((5, 9), (1, 1)), 1),
    (F16, 1, 12, 16, windows((60,), (40,), before=8), 1),
    (F16, 2, 24, 40, windows((9, 7), (3, 3), stride=2, before=1), 1),
    (BF16, 1, 12, 40, windows((9,), (1,), stride=2), 1),
    (F16, 1, 24, 20, windows((4, 6, 8), (2, 3, 4), stride=(2, 1, 2), before=1), 2),
    (BF16, 2, 2, 20, windows((19, 18), (17, 15), before=2), 1),
    (F16, 2, 6, 44, windows((3, 4, 31), (2, 3, 30), before=1), 2),
    (F64, 2, 6, 40, windows((5, 4, 3), (2, 2, 2), before=(0, 1, 1)), 2),
    (C128, 1, 12, 40, windows((11,), (3,)), 1),
    (I8, 1, 3, 9, windows((11,), (3,), before=1), 1),
    (F32, 2, 6, 6, windows((7, 5), (3, 3), stride=2, before=1), 6),
    (F16, 2, 4, 12, windows((9, 5), (3, 3), before=1), 4),
    (F16, 2, 3, 6, windows((9, 16), (5, 3), stride=(2, 1), dilation=(2, 1), before=(1, 1)), 3),
    (F32, 2, 3, 3, windows((40,), (7,), before=3), 3),
    (BF16, 3, 2, 2, windows((3, 528), (3, 5), before=(1, 2)), 2),
    (BF16, 1, 8, 3, windows((9, 8), (3, 3), before=1), 1),
])
def test_values(host, dtype, images, channels, rows, win, groups):
    everything(host, dtype, images, channels, rows, win, groups)


@pytest.mark.parametrize(("arch", "dtype"), [
    ("sm_75", BF16), ("sm_75", F16), ("sm_120", F16)])
def test_targets(monkeypatch, arch, dtype):
    host = hosted(monkeypatch, conv, conv_mma, arch=arch)
    everything(host, dtype, 1, 6, 12, windows((6, 8), (2, 2)))


def test_split_sums(host):
    """A tile of many terms is shared out among blocks, and finished in their order."""
    win = windows((4, 4), (3, 3), before=1)
    for dtype, channels in ((F16, 128), (F32, 40)):
        x, weight = random(dtype, (1, channels, 4, 4)), random(dtype, (33, channels, 3, 3), 1)
        found = np.asarray(host.wrap(conv.to_small)(x, weight, None, win, 1))
        wide = exact(dtype)
        close(found, small_of(x.astype(wide), weight.astype(wide), win, 1), dtype)
        clean(host.reports, dtype, host.arch)
        assert "conv_finish" in repr(host.reports[-1])


@pytest.mark.parametrize(("channels", "rows", "win", "most"), [
    (256, 128, windows((16, 8), (1, 1)), 14), (128, 64, windows((16, 16), (3, 3), before=1), 9),
    (16, 64, windows((16, 16), (3, 3), before=1), 16)])
def test_tensor_cores(host, channels, rows, win, most):
    """As many products as the tiles have, few instructions beside them, whole sectors and no bank
    conflicts, also where operands are laid out."""
    taps = math.prod(win.kernel)
    reports = everything(host, F16, 2, channels, rows, win)
    positions, terms = 2 * math.prod(win.small), channels * taps
    for found, a, b, k in zip(reports, (rows, channels, rows),
                                     (positions, positions, terms),
                                     (terms, rows * taps, positions), strict=True):
        metrics = max((r.metrics for r in found), key=lambda m: m["tensor_instructions"])
        high = conv_mma.height(a, *() if found is reports[2] else (-(-b // 128),))
        tiles = -(-a // high) * -(-b // 128)
        steps = -(-k // 32)
        # m16n8k16: 2048 multiply-adds each
        assert metrics["tensor_instructions"] == tiles * steps * high * 128 * 32 // 2048
        assert metrics["instructions"] <= most * metrics["tensor_instructions"]
        for report in found:
            assert report.metrics["bank_conflicts"] == 0
            for kind in ("load", "store"):
                assert (report.metrics[f"global_{kind}_sectors"]
                        <= report.metrics[f"global_{kind}_sectors_ideal"] / 0.95)


def test_stride_two(host):
    """Neighbours in the gradient of the input are made and written together."""
    win = windows((16, 16), (3, 3), stride=2, before=1)
    for report in everything(host, BF16, 2, 64, 96, win)[1][2:]:
        assert "conv_gather_pairs" in repr(report)
        metrics = report.metrics
        assert metrics["global_store_sectors"] == metrics["global_store_sectors_ideal"]
        assert metrics["bank_conflicts"] == 0


def test_channels_last(host):
    """What lies so in memory is not laid out anew."""
    win = windows((8, 8), (3, 3), before=1)
    x, y = random(F16, (2, 8, 8, 16)), random(F16, (2, 8, 8, 24), 1)
    weight = random(F16, (24, 3, 3, 16), 2)
    x, y, weight = (np.moveaxis(a, -1, 1) for a in (x, y, weight))
    wx, wy, ww = (a.astype(np.float64) for a in (x, y, weight))
    found = np.asarray(host.wrap(conv.to_small)(x, weight, None, win, 1))
    close(found, small_of(wx, ww, win, 1), F16)
    assert [r.metrics["tensor_instructions"] > 0 for r in host.reports] == [True]
    found = np.asarray(host.wrap(conv.to_weight)(x, y, win, 1))
    close(found, weight_of(wx, wy, weight.shape, win, 1), F16)
    assert [r.metrics["tensor_instructions"] > 0 for r in host.reports] == [True, False]


def test_depthwise_bytes(host):
    """Each element comes from memory once, and no vector is loaded for its ends alone."""
    win = windows((32, 32), (3, 3), before=1)
    small, large, weight = everything(host, F32, 2, 16, 16, win, groups=16)
    plane = 2 * 16 * 32 * 32 * 4
    for report in (small[0], large[-1], weight[0]):
        metrics = report.metrics
        assert metrics["global_load_sectors"] <= metrics["global_load_sectors_ideal"] / 0.95
    for report, arrays in ((small[0], 2), (large[-1], 2), (weight[0], 2)):
        assert report.metrics["dram_bytes"] <= 1.05 * arrays * plane


def test_same_bits_again(host):
    win = windows((9, 8), (3, 3), before=1)
    x, y = random(F16, (3, 12, 9, 8)), random(F16, (3, 20, 9, 8), 5)
    first, second = (np.asarray(host.wrap(conv.to_weight)(x, y, win, 1)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
