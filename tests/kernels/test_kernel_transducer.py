"""kernels/transducer.cu against the CPU: several columns a thread, long rows of classes."""

from __future__ import annotations

import numpy as np
import pytest
from launching import launch
from scipy import special

from mlgpu.cpu import transducer

MOST, COLUMNS = 6, 41
FRAMES, LABELS = np.array([6, 3]), np.array([40, 17])
INSIDE = (np.arange(MOST)[:, None] < FRAMES[:, None, None]) & (
    np.arange(COLUMNS) <= LABELS[:, None, None])
SPEAKS = INSIDE & (np.arange(COLUMNS) < LABELS[:, None, None])


def test_sweeps_of_two_columns_a_thread():
    rng = np.random.default_rng(0)
    blanks, said = (transducer.laid(-rng.random((2, MOST, COLUMNS)), where)
                    for where in (INSIDE, SPEAKS))
    expected = transducer.forward(blanks, said, FRAMES, LABELS)
    with np.errstate(invalid="ignore"):  # as operations have it
        stay, move = transducer.shares(expected, FRAMES, LABELS, MOST)
    scores = np.stack([blanks, said], -1).transpose(1, 0, 2, 3).copy()
    alpha, flows = np.full(scores.shape[:-1], np.nan), np.full(scores.shape, np.nan)
    result, losses = np.zeros((2, 2))
    fault = np.zeros(3, np.int64)
    report = launch("transducer", "transducer_alpha<double, 2>", 2, 32, (
        result, losses, alpha, scores, np.zeros((2, COLUMNS - 1), np.int64), FRAMES, LABELS, MOST,
        COLUMNS, 9, fault, 1, 2, 3), 2 * COLUMNS * 8)
    assert report.metrics["spill_stores"] == 0
    assert fault[0] == 0
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-12)
    np.testing.assert_array_equal(result, losses)
    report = launch("transducer", "transducer_flows<double, 2>", 2, 32, (
        flows, alpha, scores, FRAMES, LABELS, MOST, COLUMNS), 2 * COLUMNS * 8)
    assert report.metrics["spill_stores"] == 0
    for n, t, u in np.argwhere(INSIDE):
        np.testing.assert_allclose(flows[n, t + u, u], (stay[n, t, u], move[n, t, u]), atol=1e-12)
    for n in range(2):  # each sequence says each label once, and ends once
        assert move[n].sum(0)[:LABELS[n]] == pytest.approx(1)
        assert stay[n, FRAMES[n] - 1, LABELS[n]] == 1


@pytest.mark.parametrize(("kind", "width", "classes"), [
    ("float", 4, 700), ("float", 1, 701), ("__nv_bfloat16", 8, 600)])
def test_scores_of_long_rows(kind, width, classes):
    import ml_dtypes

    rng = np.random.default_rng(1)
    dtype = ml_dtypes.bfloat16 if kind == "__nv_bfloat16" else np.float32
    logits = (rng.standard_normal((2, 2, 3, classes)) * 9).astype(dtype)
    logits[..., 5] = -np.inf
    logits[1, 1] = np.nan  # beyond the second sequence's frames
    targets, frames, labels = np.array([[4, 5], [599, 0]]), np.array([2, 1]), np.array([2, 1])
    scores = np.full((2, 4, 3, 2), np.nan, np.float32)
    lse = np.full((2, 2, 3), np.nan, np.float32)
    report = launch("transducer", f"transducer_scores<{kind}, {width}, 32, true>", 2, 256, (
        scores, lse, logits, targets, frames, labels, 12, 2, 3, classes, 3))
    assert report.metrics["spill_stores"] == 0
    wide = logits.astype(np.float64)
    inside = (np.arange(2)[:, None] < frames[:, None, None]) & (
        np.arange(3) <= labels[:, None, None])
    expected = special.logsumexp(wide, -1)
    np.testing.assert_allclose(lse[inside], expected[inside], rtol=1e-6)
    assert np.isnan(lse[~inside]).all()
    for n, t, u in np.argwhere(inside):
        blank, label = scores[n, t + u, u]
        assert blank == pytest.approx(wide[n, t, u, 3] - expected[n, t, u], rel=1e-5, abs=1e-5)
        wanted = -np.inf if u == labels[n] else (
            wide[n, t, u, targets[n, u]] - expected[n, t, u])
        assert label == pytest.approx(wanted, rel=1e-5, abs=1e-5)
