"""kernels/ctc.cu: where examples lie, from lengths on the device; targets that no step can read."""

from __future__ import annotations

import numpy as np
import pytest
from launching import launch

SITES = (5, 6, 7)


def places(inputs, lengths, steps, width, labels):
    where, fault = np.full((len(inputs), 3), -9), np.zeros(3, np.int64)
    report = launch("ctc", "ctc_places<ml_index, int>", 1, 32,
                    (where, inputs, lengths, len(inputs), steps, width, labels, fault, *SITES))
    assert report.metrics["spill_stores"] == 0
    return where, fault[0] >> 32, fault[1:].tolist()


@pytest.mark.parametrize("batch", [1, 32, 70])
@pytest.mark.parametrize("width", [0, 9])
def test_places(batch, width):
    rng = np.random.default_rng(batch)
    inputs, lengths = rng.integers(0, 21, batch), rng.integers(0, 10, batch).astype(np.int32)
    labels = width or int(lengths.sum())
    where, site, _ = places(inputs, lengths, 20, width, labels)
    assert site == 0
    starts = np.arange(batch) * width if width else np.cumsum(lengths) - lengths
    np.testing.assert_array_equal(where, np.stack([starts, inputs, lengths], 1))


@pytest.mark.parametrize(("inputs", "lengths", "width", "labels", "found"), [
    ([21, 3], [1, 1], 4, 4, (5, [21, 20])), ([3, -2], [1, 1], 4, 4, (5, [-2, 20])),
    ([3, 3], [1, 5], 4, 4, (6, [5, 4])), ([3, 3], [-1, 1], 4, 4, (6, [-1, 4])),
    ([3, 3], [2, 3], 0, 4, (7, [5, 4])), ([3, 3], [9, 0], 0, 4, (6, [9, 4]))])
def test_wrong_lengths_are_reported_and_stay_within(inputs, lengths, width, labels, found):
    where, *got = places(np.array(inputs), np.array(lengths, np.int32), 20, width, labels)
    assert tuple(got) == found
    assert ((where[:, 1] >= 0) & (where[:, 1] <= 20)).all()
    assert (where[:, 2] >= 0).all()
    end = where[:, 0] + where[:, 2] - (0 if not width else np.arange(2) * width)
    assert (end <= labels).all()


def test_a_target_that_has_more_labels_than_there_are_steps():
    logs = np.log(np.full((2, 1, 4), 0.25, np.float32))
    alpha = np.zeros((1, 2, 5), np.float32)  # room for two labels
    result, losses = np.zeros((2, 1), np.float32)
    where, fault = np.array([[0, 2, 3]]), np.zeros(3, np.int64)
    launch("ctc", "ctc_forward<float, ml_index>", 1, 32,
           (result, losses, alpha, logs, np.array([1, 2, 1]), where, 1, 2, 4, 5, 0, True, fault, 1))
    assert losses[0] == np.inf
    assert result[0] == 0
    assert fault[0] == 0
