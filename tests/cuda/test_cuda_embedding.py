"""The gradient of embedding, added up in an order of its own or as threads come."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.sim.cuda.install import installed

SYSTEM = installed()


@pytest.fixture
def atomic(monkeypatch):
    monkeypatch.setattr(mlgpu.backends.cuda, "embedding_backward", "atomic")


def gradient(dtype, index_type=mlgpu.int64, **options):
    rng = np.random.default_rng(0)
    index = mlgpu.tensor(rng.integers(0, 20, (8, 30)), dtype=index_type, device="cuda")
    weight = mlgpu.tensor(rng.standard_normal((25, 24)), device="cuda", dtype=dtype,
                          requires_grad=True)
    dy = mlgpu.tensor(rng.standard_normal((8, 30, 24)), device="cuda", dtype=dtype)
    F.embedding(index, weight, **options).backward(dy)
    return weight.grad.float().cpu().numpy()


OPTIONS = [{}, {"padding_idx": 3}, {"scale_grad_by_freq": True},
           {"padding_idx": -6, "scale_grad_by_freq": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float16, mlgpu.bfloat16, mlgpu.float64],
                         ids=str)
def test_both_ways_give_the_same(dtype, options, monkeypatch):
    sorted_ = gradient(dtype, **options)
    monkeypatch.setattr(mlgpu.backends.cuda, "embedding_backward", "atomic")
    for kind in (mlgpu.int64, mlgpu.int32):
        tolerance = 1e-5 if dtype.itemsize > 2 else 2e-2
        np.testing.assert_allclose(gradient(dtype, kind, **options), sorted_, tolerance, tolerance)


def launched(call):
    names = []

    def note(launch, module):
        names.append(launch.code.name)

    mlgpu.cuda.synchronize()
    SYSTEM.watchers.append(note)
    try:
        call()
        mlgpu.cuda.synchronize()
    finally:
        SYSTEM.watchers.remove(note)
    return names


def sorts(names):
    return sum("sort" in name or "combine" in name for name in names)


@pytest.mark.skipif(SYSTEM is None, reason="launches are counted by simulated devices")
def test_what_is_launched(atomic):
    assert sorts(launched(lambda: gradient(mlgpu.float32))) == 0
    index = mlgpu.zeros(64, dtype=mlgpu.int64, device="cuda")
    for dtype, more in ((mlgpu.float32, 0), (mlgpu.float16, 1)):
        weight = mlgpu.zeros(4, 16, device="cuda", dtype=dtype, requires_grad=True)
        y, dy = F.embedding(index, weight), mlgpu.zeros(64, 16, device="cuda", dtype=dtype)
        names = launched(lambda y=y, dy=dy: y.backward(dy))
        assert sum("add_rows" in name for name in names) == 1
        assert len(names) == 1 + more  # the sums of float16 are cast


@pytest.mark.skipif(SYSTEM is None, reason="launches are counted by simulated devices")
def test_deterministic_algorithms_go_before(atomic):
    mlgpu.use_deterministic_algorithms(True)
    try:
        assert sorts(launched(lambda: gradient(mlgpu.float32))) > 0
    finally:
        mlgpu.use_deterministic_algorithms(False)


def test_a_wrong_choice(monkeypatch):
    monkeypatch.setattr(mlgpu.backends.cuda, "embedding_backward", "fast")
    with pytest.raises(ShapeError, match="embedding_backward: must be 'deterministic' or 'atomic'"):
        gradient(mlgpu.float32)


def test_wrong_indices_and_nothing_to_add(atomic):
    weight = mlgpu.ones(4, 3, device="cuda", requires_grad=True)
    nothing = mlgpu.zeros(0, dtype=mlgpu.int64, device="cuda")
    F.embedding(nothing, weight, scale_grad_by_freq=True).sum().backward()
    assert not weight.grad.any().item()
    F.embedding(mlgpu.tensor([1, 9, -1], device="cuda"), weight).sum().backward()
    with pytest.raises(IndexError, match=r"embedding: index (9|-1) is out of range for 4 rows"):
        mlgpu.cuda.synchronize()
    assert weight.grad.tolist() == [[0] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_a_captured_step(atomic):
    weight = mlgpu.zeros(5, 8, device="cuda", requires_grad=True)

    def step(index):
        return mlgpu.autograd.grad(F.embedding(index, weight).sum(), [weight])[0]

    captured = mlgpu.cuda.graph(step)
    for k in range(4):
        index = mlgpu.tensor([k, k, 0], device="cuda")
        assert captured(index).tolist() == step(index).tolist()
