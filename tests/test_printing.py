"""repr of tensors: PyTorch's layout, with mlgpu's names for dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu

CASES = [
    (1.5, "tensor(1.5000)"),
    ([0.0, 1.0, 2.0], "tensor([0., 1., 2.])"),
    ([1, -20], "tensor([  1, -20])"),
    ([True, False], "tensor([ True, False])"),
    ([[1.0, 2.5], [3.0, -4.0]], "tensor([[ 1.0000,  2.5000],\n        [ 3.0000, -4.0000]])"),
    ([1e-9, 1.0], "tensor([1.0000e-09, 1.0000e+00])"),
    ([float("nan"), 1.0, float("inf")], "tensor([nan, 1., inf])"),
    ([1 + 2j, 3 - 4.5j], "tensor([1.+2.0000j, 3.-4.5000j])"),
    ([], "tensor([])"),
]


@pytest.mark.parametrize(("data", "text"), CASES)
def test_layout(data, text):
    assert repr(mlgpu.tensor(data)) == text


def test_dtype_shape_and_grad_are_told():
    assert repr(mlgpu.zeros(0, 3)) == "tensor([], size=(0, 3))"
    assert repr(mlgpu.zeros(2, dtype=mlgpu.float16)) == "tensor([0., 0.], dtype=mlgpu.float16)"
    assert repr(mlgpu.zeros(2, dtype=mlgpu.bfloat16)) == "tensor([0., 0.], dtype=mlgpu.bfloat16)"
    assert repr(mlgpu.ones(1, requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert "grad_fn=<" in repr(mlgpu.ones(1, requires_grad=True).clone())


def test_large_tensors_are_summarised():
    text = repr(mlgpu.arange(2000))
    assert text == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"
    rows = repr(mlgpu.zeros(100, 100))
    assert rows.count("\n") == 6
    assert rows.count("...") == 7


def test_printing_a_released_tensor_says_so():
    x = mlgpu.zeros(3)
    x.release()
    assert "released" in repr(x)


def test_options_change_the_layout():
    from mlgpu.printing import set_printoptions

    try:
        set_printoptions(precision=2)
        assert repr(mlgpu.tensor([np.pi])) == "tensor([3.14])"
    finally:
        set_printoptions(profile="default")
    assert repr(mlgpu.tensor(np.float32(np.pi))) == "tensor(3.1416)"


def test_options_in_force_are_told():
    before = mlgpu.get_printoptions()
    mlgpu.set_printoptions(precision=2, edgeitems=1)
    try:
        found = mlgpu.get_printoptions()
        assert (found.precision, found.edgeitems, found.linewidth) == (2, 1, before.linewidth)
    finally:
        mlgpu.set_printoptions(precision=before.precision, edgeitems=before.edgeitems)
    assert mlgpu.get_printoptions() == before
