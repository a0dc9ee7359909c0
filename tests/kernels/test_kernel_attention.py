"""kernels/attention_*.cu by their host code on the simulated GPU, against NumPy in float64."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cpu import random as numbers
from mlgpu.cuda import attention
from mlgpu.random import Stream

SHARED = {"sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_90": 227, "sm_120": 99}  # KiB of a block
BF16 = ml_dtypes.bfloat16
TOLERANCE = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 4e-6,
             np.dtype(np.float16): 4e-3, np.dtype(BF16): 3e-2}


class Attention:
    """Both directions on a machine; the reports of the launches of each."""

    def __init__(self, monkeypatch, arch="sm_90"):
        self.host = hosted(monkeypatch, attention, arch=arch)
        monkeypatch.setattr(attention, "_shared_limit", lambda: SHARED[arch] << 10)
        self.cell = self.host.zeros(3, np.int64)
        monkeypatch.setattr(attention, "fault", lambda: self.cell)

    def __call__(self, q, k, v, mask=None, dy=None, mask_gradient=False, **options):
        lengths = options.pop("lengths", None)
        options = attention.Options(options.pop("scale", 1 / math.sqrt(q.shape[-1])),
                                    options.pop("causal", False), **options)
        out, lse = self.host.wrap(attention.forward)(q, k, v, mask, lengths, options,
                                                       True)
        self.forward_report = self.host.reports[0]
        if dy is None:
            return (out,)
        grads = self.host.wrap(attention.backward)(dy, q, k, v, mask, lengths, out, lse,
                                                   options, mask_gradient)
        self.backward_reports = self.host.reports
        return out, *(g for g in grads if g is not None)


@pytest.fixture
def attend(monkeypatch):
    return Attention(monkeypatch)


def reference(q, k, v, mask=None, dy=None, scale=None, causal=False, kept=1.0):
    """The output, the gradients of q, k, v (summed to their shapes), and that of the scores."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = scale * (q @ k.swapaxes(-1, -2))
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    top = scores.max(-1, keepdims=True)
    p = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    p = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    out = (p * kept) @ v
    if dy is None:
        return (out,)
    dp = (dy @ v.swapaxes(-1, -2)) * kept
    ds = p * (dp - (dy * out).sum(-1, keepdims=True))
    grads = (scale * ds @ k, scale * ds.swapaxes(-1, -2) @ q, (p * kept).swapaxes(-1, -2) @ dy)
    return out, *(g if g.shape == x.shape else g.sum(
        tuple(d for d in range(g.ndim) if x.shape[d] == 1 and g.shape[d] > 1), keepdims=True)
        for g, x in zip(grads, (q, k, v), strict=True)), ds


def close(found, exact, dtype):
    for name, x, y in zip(("out", "dq", "dk", "dv", "dmask"), found, exact, strict=False):
        assert x.shape == y.shape, name
        limit = TOLERANCE[np.dtype(dtype)] * max(1.0, np.abs(y).max(initial=0.0))
        assert np.abs(np.asarray(x, np.float64) - y).max(initial=0.0) < limit, name


def drawn(dtype, *shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def exactly(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def check(attend, dtype, q, k, v, dy, mask=None, **options):
    found = attend(q, k, v, mask, dy, **options)
    exact = mask if mask is None or mask.dtype == bool else mask.astype(np.float64)
    options.pop("mask_gradient", None)
    kept, stream = 1.0, options.pop("stream", None)
    if stream is not None:
        p, shape = options.pop("dropout"), (*q.shape[:-1], k.shape[-2])
        kept = numbers.kept(stream, p, 0, math.prod(shape)).reshape(shape) / (1 - p)
    close(found, reference(*exactly(q, k, v), exact, *exactly(dy), kept=kept, **options), dtype)


# --- values ---------------------------------------------------------------------------------------

ALL = [np.float32, np.float64, np.float16, BF16]


@pytest.mark.parametrize("dtype", ALL)
def test_grouped_causal_heads_that_are_views(attend, dtype):
    """(batch, positions, heads, columns) as attention takes them: by strides, in both ways."""
    q, dy, k, v = drawn(dtype, (1, 35, 4, 40), (1, 35, 4, 24), (1, 40, 2, 40), (1, 40, 2, 24))
    q, dy = (x.reshape(1, 35, 2, 2, -1).transpose(0, 2, 3, 1, 4) for x in (q, dy))
    k, v = (x[:, :, :, None].transpose(0, 2, 3, 1, 4) for x in (k, v))
    check(attend, dtype, q, k, v, dy, causal=True)


@pytest.mark.parametrize(("dtype", "columns"), [
    (np.float32, 3), (np.float16, 7), (np.float16, 20)])
def test_rows_of_any_alignment(attend, dtype, columns):
    arrays = drawn(dtype, (2, 5, columns), (2, 9, columns), (2, 9, columns), (2, 5, columns))
    check(attend, dtype, *arrays)


@pytest.mark.parametrize(("dtype", "columns"), [
    (np.float32, 192), (np.float16, 96), (np.float16, 128), (np.float16, 256)])
def test_wide_heads(attend, dtype, columns):
    arrays = drawn(dtype, (2, 18, columns), (2, 21, columns), (2, 21, columns), (2, 18, columns))
    check(attend, dtype, *arrays)


@pytest.mark.parametrize(("columns", "arch", "dtype"), [
    (192, "sm_75", np.float16), (256, "sm_120", BF16)])
def test_all_at_once_of_wide_heads(monkeypatch, arch, dtype, columns):
    """More tiles of queries and of keys than one, with edges in them; heads that share keys."""
    q, k, v, dy = drawn(dtype, (2, 2, 70, columns), (2, 1, 75, columns), (2, 1, 75, columns),
                        (2, 2, 70, columns))
    attend, lengths = Attention(monkeypatch, arch), np.array([75, 33])
    options = {"dropout": 0.3, "stream": Stream(5, 3)}
    check(attend, dtype, q, k, v, dy, causal=True, **options)
    mask = np.random.default_rng(1).standard_normal((2, 1, 70, 75)).astype(np.float32)
    found = attend(q, k, v, mask, dy, True, lengths=lengths)
    hidden = np.where(np.arange(75) < lengths[:, None, None, None], mask.astype(np.float64),
                      -np.inf)
    close(found, reference(*exactly(q, k, v), hidden, *exactly(dy)), dtype)


@pytest.mark.parametrize(("dtype", "kind"), [
    *((np.float16, kind) for kind in ("bool", "hidden", "padding", "added", "infinite")),
    (np.float32, "added")])
def test_masks(attend, dtype, kind):
    rng = np.random.default_rng(1)
    mask = {"bool": lambda: rng.random((3, 33, 45)) < 0.6,
            "hidden": lambda: np.broadcast_to(np.arange(33)[:, None] > 3, (33, 45)),
            "padding": lambda: np.array([20, 45, 1])[:, None, None] > np.arange(45),
            "added": lambda: rng.standard_normal((33, 45)).astype(dtype),
            "infinite": lambda: np.where(rng.random((3, 1, 45)) < 0.5, 0, -np.inf).astype(
                np.float32)}[kind]()
    arrays = drawn(dtype, (3, 33, 8), (3, 45, 8), (3, 45, 8), (3, 33, 8))
    check(attend, dtype, *arrays, mask, mask_gradient=kind == "added")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dropout_is_the_cpu_s(attend, dtype):
    """Odd lengths, so that rows begin within a block of eight."""
    arrays = drawn(dtype, (2, 37, 16), (2, 43, 16), (2, 43, 16), (2, 37, 16))
    check(attend, dtype, *arrays, dropout=0.3, stream=Stream(5, 3), causal=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [-1.3, 0.0])
def test_scales(attend, dtype, scale):
    check(attend, dtype, *drawn(dtype, (9, 8), (20, 8), (20, 8), (9, 8)), scale=scale)


def test_great_scores_do_not_overflow(attend):
    q, k, v, dy = drawn(np.float16, (17, 16), (65, 16), (65, 16), (17, 16))
    q *= np.float16(60)
    out, *grads = attend(q, k, v, dy=dy)
    close([out], reference(*exactly(q, k, v)), np.float16)
    assert all(np.isfinite(g).all() for g in grads)


def test_many_keys_are_split_and_added_in_order(attend):
    arrays = drawn(np.float16, (70, 64), (300, 64), (300, 64), (70, 64))
    first = attend(*arrays[:3], dy=arrays[3])
    again = attend(*arrays[:3], dy=arrays[3])
    close(first, reference(*exactly(*arrays[:3]), dy=exactly(arrays[3])[0]), np.float16)
    assert all((x == y).all() for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize(("arch", "dtype", "columns"), [
    ("sm_75", np.float16, 64), ("sm_75", BF16, 16), ("sm_120", np.float16, 64)])
def test_other_targets(monkeypatch, arch, dtype, columns):
    arrays = drawn(dtype, (2, 40, columns), (2, 50, columns), (2, 50, columns), (2, 40, columns))
    check(Attention(monkeypatch, arch), dtype, *arrays, causal=True)


@pytest.mark.parametrize(("dtype", "causal"), [
    *((dtype, False) for dtype in ALL), (np.float32, True), (np.float16, True)])
def test_lengths(attend, dtype, causal):
    """Keys and values beyond a length are never read, and their gradients are zeros."""
    q, k, v, dy = drawn(dtype, (4, 2, 35, 16), (4, 1, 150, 16), (4, 1, 150, 16), (4, 2, 35, 16))
    lengths = np.array([150, 0, 3, 97], np.int32 if causal else np.int64)
    there = np.arange(150) < lengths[:, None, None, None]
    exact = exactly(q, k, v, dy)
    beyond = ~np.broadcast_to(there.swapaxes(-1, -2), (4, 1, 150, 16))
    for x in (k, v):
        x[beyond] = np.nan
    for x in exact[1:3]:
        x[beyond] = 0
    found = attend(q, k, v, dy=dy, lengths=lengths, causal=causal)
    close(found, reference(*exact[:3], np.broadcast_to(there, (4, 1, 35, 150)), exact[3],
                           causal=causal), dtype)
    assert not found[2][beyond].any()
    assert not found[3][beyond].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lengths_with_a_mask_that_needs_a_gradient(attend, dtype):
    arrays = drawn(dtype, (3, 33, 8), (3, 45, 8), (3, 45, 8), (3, 33, 8))
    mask = np.random.default_rng(1).standard_normal((33, 45)).astype(dtype)
    lengths = np.array([20, 0, 45])
    found = attend(*arrays[:3], mask, arrays[3], True, lengths=lengths)
    hidden = np.where(np.arange(45) < lengths[:, None, None], mask.astype(np.float64), -np.inf)
    close(found, reference(*exactly(*arrays[:3]), hidden, *exactly(arrays[3])), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lengths_of_keys_that_are_split(attend, dtype):
    """One query of each head; some blocks have no keys, and none of the third sequence has."""
    q, k, v = drawn(dtype, (3, 1, 4, 1, 32), (3, 1, 1, 1500, 32), (3, 1, 1, 1500, 32))
    lengths = np.array([1500, 100, 0])
    found = attend(q, k, v, lengths=lengths)
    there = lengths[:, None, None, None, None] > np.arange(1500)
    close(found, reference(*exactly(q, k, v), there), dtype)
    read = attend.forward_report.metrics["global_load_sectors"] * 32
    assert read <= 1.05 * (k.nbytes + v.nbytes) * 1600 / 4500 + q.nbytes * 5


def test_lengths_save_what_they_hide(attend):
    """Tiles beyond a length are neither fetched nor multiplied, in either direction."""
    arrays = drawn(np.float16, (2, 128, 64), (2, 512, 64), (2, 512, 64), (2, 128, 64))
    attend(*arrays[:3], dy=arrays[3], lengths=np.array([512, 128]))
    forward, backward = attend.forward_report.metrics, attend.backward_reports[1].metrics
    assert forward["tensor_instructions"] == 4 * 128 * 640 * 64 / 4096
    assert backward["tensor_instructions"] == 10 * 128 * 640 * 64 / 4096


@pytest.mark.parametrize(("dtype", "kind"), [(np.float16, np.int64), (np.float32, np.int32)])
@pytest.mark.parametrize("wrong", [-1, 41])
def test_a_length_outside_the_range_is_recorded(attend, dtype, kind, wrong):
    q, k, v = drawn(dtype, (2, 20, 16), (2, 40, 16), (2, 40, 16))
    lengths = np.array([40, wrong], kind)
    out, = attend(q, k, v, lengths=lengths)
    assert attend.cell[0] & 0xFFFFFFFF == 1
    assert attend.cell[1:].tolist() == [wrong, 40]
    close([out], reference(*exactly(q, k, v), np.arange(40) < lengths[:, None, None]), dtype)


# --- counters -------------------------------------------------------------------------------------


def measured(attend, queries, keys, columns, causal=False):
    arrays = drawn(np.float16, (1, queries, columns), (1, keys, columns), (1, keys, columns),
                   (1, queries, columns))
    attend(*arrays[:3], dy=arrays[3], causal=causal)
    return attend.forward_report.metrics, attend.backward_reports[1].metrics


@pytest.mark.parametrize(("arch", "queries", "columns", "wavefronts"), [
    ("sm_90", 128, 64, 1.6), ("sm_90", 128, 128, 1.65), ("sm_120", 256, 128, 1.55)])
def test_forward_is_near_what_tensor_cores_can_do(monkeypatch, arch, queries, columns, wavefronts):
    attend, keys = Attention(monkeypatch, arch), 768
    monkeypatch.setattr(attention, "_LEAST", 1000)  # keys are not split between blocks
    q, k, v = drawn(np.float16, *((1, n, columns) for n in (queries, keys, keys)))
    attend(q, k, v)
    m = attend.forward_report.metrics
    assert m["tensor_instructions"] == 4 * queries * keys * columns / 4096
    assert m["shared_wavefronts"] / m["tensor_instructions"] <= wavefronts
    assert m["bank_conflicts"] == m["async_copy_bank_conflicts"] == 0
    assert m["global_load_sectors"] * 32 == 2 * (queries + 2 * keys) * columns
    assert m["global_store_sectors"] * 32 == 2 * queries * columns + 4 * queries
    assert m["spill_stores"] == m["stack"] == 0


@pytest.mark.parametrize(("arch", "queries", "keys", "columns", "wavefronts"), [
    ("sm_90", 512, 128, 64, 2.75), ("sm_90", 384, 128, 128, 2.35), ("sm_90", 256, 64, 256, 2.7),
    ("sm_120", 192, 64, 128, 2.35), ("sm_120", 128, 32, 256, 3.35)])
def test_backward_is_near_what_tensor_cores_can_do(monkeypatch, arch, queries, keys, columns,
                                                   wavefronts):
    _, m = measured(Attention(monkeypatch, arch), queries, keys, columns)
    assert m["tensor_instructions"] == 10 * queries * keys * columns / 4096
    assert m["shared_wavefronts"] / m["tensor_instructions"] <= wavefronts
    assert m["bank_conflicts"] == m["async_copy_bank_conflicts"] == 0
    assert m["global_store_sectors"] * 32 == 4 * queries * columns + 2 * 2 * keys * columns
    assert m["spill_stores"] == m["stack"] == 0


def test_hidden_tiles_are_not_computed(attend):
    forward, backward = measured(attend, 256, 256, 64, causal=True)
    assert forward["tensor_instructions"] / (2 * 256 * 256 * 64 / 4096) <= 1 + 128 / 256
    assert backward["tensor_instructions"] / (5 * 256 * 256 * 64 / 4096) <= 1 + 128 / 256


def test_plain_kernels_meet_no_bank_twice(attend):
    arrays = drawn(np.float32, (64, 64), (64, 64), (64, 64), (64, 64))
    attend(*arrays[:3], dy=arrays[3])
    for report in (attend.forward_report, *attend.backward_reports):
        m = report.metrics
        assert m["bank_conflicts"] == m["async_copy_bank_conflicts"] == 0
        assert m["spill_stores"] == m["stack"] == 0


# --- few queries, many keys -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_keys_are_split_between_blocks(attend, dtype):
    """One query of each head, four heads to a key; no part of the third sequence counts."""
    q, k, v = drawn(dtype, (3, 1, 4, 1, 32), (3, 1, 1, 1500, 32), (3, 1, 1, 1500, 32))
    lengths = np.array([1500, 100, 0])
    mask = lengths[:, None, None, None, None] > np.arange(1500)
    found = attend(q, k, v, mask)
    assert found[0].shape == (3, 1, 4, 1, 32)
    close(found, reference(*exactly(q, k, v), mask), dtype)
    m = attend.forward_report.metrics
    assert m["grid_size"] == 3 * 5
    least = k.nbytes + v.nbytes
    assert least <= m["global_load_sectors"] * 32 <= 1.05 * least + 8 * mask.nbytes


def test_statistics_of_parts(attend):
    """Backward goes on from the logsumexp of all parts."""
    arrays = drawn(np.float16, (2, 5, 16), (2, 600, 16), (2, 600, 16), (2, 5, 16))
    check(attend, np.float16, *arrays)
