"""Elementwise operations on operands that lie one way and another: the CPU's numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlgpu
from mlgpu.cuda import evaluate
from mlgpu.errors import DTypeError

SHAPES = ((64, 128), (3, 36, 20), (2, 8, 4, 12), (33, 64), (64, 30), (1, 48), (8, 12, 1))


def lying(x, how):
    """The values of x in memory of another order."""
    if how == "transposed":
        return x.mT.contiguous().mT
    if how == "turned":  # the first dimension the innermost
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if how == "cut":  # rows begin in the middle of vectors
        wide = x.new_zeros((*x.shape[:-1], x.shape[-1] + 1))
        wide[..., 1:] = x
        return wide[..., 1:]
    return {"row": x[..., :1, :], "column": x[..., :1], "one": x[..., :1, :1]}.get(how, x)


def values(dtype, shape, device, start):
    made = (mlgpu.arange(int(np.prod(shape)), device=device) + start) % 23 - 9
    return made.to(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.int8, mlgpu.complex128])
def test_transposed_operands(dtype, monkeypatch):
    tiles = []
    made = evaluate._tiled
    monkeypatch.setattr(evaluate, "_tiled", lambda *key: tiles.append(key) or made(*key))
    hows = [("plain", "transposed", "plain"), ("transposed", "plain", "row"),
            ("transposed", "column", "one"), ("turned", "transposed", "plain"),
            ("plain", "transposed", "cut"), ("row", "transposed", "column")]
    for shape, how in itertools.product(SHAPES, hows):
        results = []
        for device in ("cpu", "cuda"):
            a, b, c = (lying(values(dtype, shape, device, 5 * k), each)
                       for k, each in enumerate(how))
            results.append(mlgpu.addcmul(a, b, c).cpu())
        assert mlgpu.equal(*results), (shape, how)
    assert bool(tiles) == (dtype.itemsize < 16)


def test_in_place_and_of_two_types():
    x = values(mlgpu.float32, (64, 48), "cuda", 0)
    y = lying(values(mlgpu.bfloat16, (64, 48), "cuda", 7), "transposed")
    expected = x.cpu() * y.cpu()
    x *= y
    assert mlgpu.equal(x.cpu(), expected)
    found = mlgpu.where(lying(y > 0, "plain"), y, x)
    assert mlgpu.equal(found.cpu(), mlgpu.where(y.cpu() > 0, y.cpu(), expected))


def test_what_is_kept_holds_for_operands_that_lie_alike():
    flat = values(mlgpu.float32, (4 * 6 + 1,), "cuda", 0)
    b = values(mlgpu.float32, (4, 6), "cuda", 5)
    turned = flat[:24].reshape(6, 4).T
    kinds = [flat[:24].reshape(4, 6), flat[1:].reshape(4, 6), turned, flat[:6], flat[:4, None],
             flat[:24].reshape(4, 6).double(), flat[0]]
    for number, a in itertools.product((2.0, -3.0), kinds):
        made, expected = a * b * number, a.cpu() * b.cpu() * number
        assert made.stride() == ((1, 4) if a is turned else (6, 1))
        assert made.dtype is expected.dtype
        assert mlgpu.equal(made.cpu(), expected)


def test_a_gradient_of_another_dtype_is_refused_each_time():
    x = values(mlgpu.float32, (4, 8), "cuda", 0).requires_grad_()
    right = mlgpu.ones(4, 8, device="cuda")
    for grad in (right, right.double()) * 2:
        y = x.softmax(1)
        if grad is right:
            y.backward(grad)
        else:
            with pytest.raises(DTypeError, match="dy must be float32, got float64"):
                y.backward(grad)


def test_squares_are_turned_in_registers():
    layout = evaluate._layout((64, 128), ((256, 2), (2, 128)), ((64, 128),) * 2, (2, 2))
    assert layout.tile is not None
    assert layout.tile.modes == ("next", "cross")
    assert layout.tile.struct["size"].tolist() == [[2, 8, 8, 4]]
    for shape, other in (((64, 126), (2, 128)), ((64, 128), (2, 130)), ((64, 128), (6, 384))):
        rest = evaluate._layout(shape, ((2 * shape[1], 2), other), (shape,) * 2, (2, 2))
        assert rest.tile is None
