"""Casts that lose imaginary parts say so, as PyTorch's do; gradients that lose them do not."""

from __future__ import annotations

import warnings

import pytest

import mlgpu

Z = mlgpu.tensor([1 + 2j, 3j])


@pytest.mark.parametrize("cast", [
    lambda z: z.float(), lambda z: z.to(mlgpu.int32), lambda z: z.to(dtype=mlgpu.float16),
    lambda z: mlgpu.zeros(2).copy_(z), lambda z: z.type_as(mlgpu.zeros(1))])
def test_lost_imaginary_parts_are_warned_of(cast):
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert cast(Z).tolist() == [1, 0]


def test_assignment_warns():
    x = mlgpu.zeros(2)
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        x[:] = Z
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        x[[1, 0]] = Z
    assert x.tolist() == [0, 1]


def test_truth_and_gradients_do_not_warn():
    x = mlgpu.ones(2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Z.bool().tolist() == [True, True]
        (x * Z).abs().sum().backward()
        (x.to(mlgpu.complex64) * Z).real.sum().backward()
    assert x.grad.dtype is mlgpu.float32
