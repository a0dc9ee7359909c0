"""Histograms' edges and refusals, and what gradient and nonzero_static make of odd inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DerivativeError, DTypeError, MlgpuError, ShapeError


def test_what_lies_on_edges_and_outside():
    x = mlgpu.tensor([0.0, 1, 2, 3, math.nan, -1, 3.5])
    hist, edges = mlgpu.histogram(x, mlgpu.tensor([0.0, 1, 3]))
    assert hist.tolist() == [1, 3]
    assert edges.tolist() == [0, 1, 3]
    assert x.histogram(3, range=(0.0, 3.0)).hist.tolist() == [1, 1, 2]
    hist, edges = mlgpu.histogram(mlgpu.ones(4), 2)
    assert hist.tolist() == [0, 4]
    assert edges.tolist() == [0.5, 1, 1.5]
    assert mlgpu.histogram(mlgpu.zeros(0), 2).hist.tolist() == [0, 0]


def test_histograms_of_many_dimensions():
    x = np.random.default_rng(0).uniform(-1, 1, (4, 25, 3))
    hist, edges = mlgpu.histogramdd(mlgpu.tensor(x), [2, 3, 4], density=True,
                                    range=[-1, 1, -0.5, 1, -1, 0.5])
    expected, places = np.histogramdd(x.reshape(-1, 3), (2, 3, 4), ((-1, 1), (-0.5, 1), (-1, 0.5)),
                                      density=True)
    np.testing.assert_allclose(hist, expected)
    for found, wanted in zip(edges, places, strict=True):
        np.testing.assert_allclose(found, wanted)


def test_derivatives_of_histograms():
    x = mlgpu.rand(9, requires_grad=True)
    weight = mlgpu.rand(9, requires_grad=True)
    hist, edges = mlgpu.histogram(x, 3, weight=weight)
    assert not edges.requires_grad
    with pytest.raises(DerivativeError, match="histogram: has no derivative with respect to input"):
        hist.sum().backward()
    mlgpu.histogram(x.detach(), 3, weight=weight).hist.sum().backward()
    assert weight.grad.tolist() == [1] * 9


def test_refusals():
    x = mlgpu.rand(4, 3)
    for call, error, match in (
            (lambda: mlgpu.histogram(x.int(), 3), DTypeError, "expected a floating tensor"),
            (lambda: mlgpu.histogram(x, 0), ShapeError, "bins must be positive, got 0"),
            (lambda: mlgpu.histogram(x, 2, range=(1.0, 0.0)), ShapeError, "range must ascend"),
            (lambda: mlgpu.histogram(x, 2, weight=x[0]), ShapeError, "weight must have the shape"),
            (lambda: mlgpu.histogram(x, x), ShapeError, "edges must be a vector"),
            (lambda: mlgpu.histogram(x / 0, 2), MlgpuError, "is not finite; give range"),
            (lambda: mlgpu.histogramdd(x[0], 2), ShapeError, "expected points"),
            (lambda: mlgpu.histogramdd(x, [2, 2]), ShapeError, "bins of 2 dimensions for points"),
            (lambda: mlgpu.histogramdd(x, 2, range=[0, 1]), ShapeError, "range must have 6"),
            (lambda: mlgpu.histogramdd(x, 2, weight=x), ShapeError, "weight must have the shape"),
            (lambda: mlgpu.gradient(x, edge_order=3), ShapeError, "edge_order must be 1 or 2"),
            (lambda: mlgpu.gradient(x, spacing=[1.0]), ShapeError, "1 spacings for 2 dimensions"),
            (lambda: mlgpu.gradient(x, dim=(0, 0)), ShapeError, "a dimension appears twice"),
            (lambda: mlgpu.gradient(x[:2], edge_order=2), ShapeError, "needs at least 3"),
            (lambda: mlgpu.gradient(x, spacing=[x[0]], dim=0), ShapeError, "one vector of 4"),
            (lambda: mlgpu.gradient(x.bool()), DTypeError, "expected signed numbers, got bool"),
            (lambda: mlgpu.nonzero_static(x, size=-1), ShapeError, "size must not be negative")):
        with pytest.raises(error, match=match):
            call()


def test_odd_inputs():
    assert mlgpu.gradient(mlgpu.tensor([1, 4, 9]))[0].tolist() == [3, 4, 5]
    assert mlgpu.nonzero_static(mlgpu.zeros(0, 3), size=2).tolist() == [[-1, -1]] * 2
    assert mlgpu.tensor(5).nonzero_static(size=2).shape == (2, 0)
    assert mlgpu.tensor([[0, 1], [2, 3]]).nonzero_static(size=0).shape == (0, 2)
