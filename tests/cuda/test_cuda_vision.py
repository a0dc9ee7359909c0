"""Suppression, components, morphology and regions on a device: what small rows do not reach."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import vision
from mlgpu.cuda import nms as cuda_nms
from mlgpu.errors import PositionError, ShapeError


def both(function, *arrays):
    """What a function gives on the device and on the CPU, as arrays."""
    for device in ("cuda", "cpu"):
        found = function(*(mlgpu.tensor(a, device=device) for a in arrays))
        assert all(t.device.type == device for t in found)
        yield [t.detach().cpu().numpy() for t in found]


def test_suppression_goes_on_from_chunk_to_chunk(monkeypatch):
    monkeypatch.setattr(cuda_nms, "_ROWS", 64)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (150, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 9, (150, 2))], 1).astype(np.float16)
    found, expected = both(
        lambda b, s: (vision.nms(b, s, 0.2), vision.nms(b[:0], s[:0], 0.2)),
        boxes, rng.integers(0, 60, 150).astype(np.float32))
    assert len(expected[0]) > 20
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_wind_through_segments_and_blocks(connectivity):
    rng = np.random.default_rng(1)
    image = np.ones((2, 19, 70), np.int16)  # one path to and fro, over three segments of a row
    image[0, 1::4, :-1] = image[0, 3::4, 1:] = 0
    image[1] = rng.random((19, 70)) < 0.5
    found, expected = both(lambda x: (
        lambda labels, stats: (labels, *stats))(*vision.connected_components_with_stats(
            x, connectivity)), image)
    assert expected[1][0] == 1
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_more_taps_than_a_byte_counts():
    disc = vision.structuring_element("ellipse", 21)
    x = np.random.default_rng(0).permutation(9 * 10).reshape(9, 10).astype(np.float32)

    def gradients(x):
        x.requires_grad_()
        y = vision.erode(x, disc)
        first, = mlgpu.autograd.grad((y * y).sum(), x, create_graph=True)
        second, = mlgpu.autograd.grad((first * first).sum(), x)
        return y, first, second

    for found, expected in zip(*both(gradients, x), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pool", ["roi_align", "roi_pool"])
def test_many_regions_over_several_tiles_repeat_bit_by_bit(pool):
    rng = np.random.default_rng(2)
    x = rng.permutation(9 * 20 * 18).reshape(1, 9, 20, 18).astype(np.float32) / 100
    corner = rng.uniform(-2, 14, (260, 2))
    corner[4:254] = -50  # these touch no tile
    regions = np.concatenate([np.zeros((260, 1)), corner, corner + rng.uniform(1, 6, (260, 2))],
                             1).astype(np.float32)
    dy = rng.standard_normal((260, 9, 1, 2)).astype(np.float32)

    def gradient(x, regions, dy):
        x.requires_grad_()
        y = getattr(vision, pool)(x, regions, (1, 2))
        return y, mlgpu.autograd.grad(y, x, dy)[0]

    found, expected = both(gradient, x, regions, dy)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-4)
    again, _ = both(gradient, x, regions, dy)
    np.testing.assert_array_equal(again[1], found[1])


def test_what_only_the_device_knows_of_regions_is_raised_by_the_next_waiting_call():
    x = mlgpu.ones(2, 1, 4, 4, device="cuda")
    wrong = mlgpu.tensor([[2.0, 0, 0, 3, 3]], device="cuda")
    y = vision.roi_align(x, wrong, 2)
    with pytest.raises(PositionError, match="roi_align: image 2 is out of range for 2 images"):
        y.cpu()
    x.requires_grad_()
    with pytest.raises(ShapeError, match="384"):
        vision.roi_align(x, wrong * 0, (384, 1)).sum().backward()
