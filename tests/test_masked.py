"""What mlgpu.masked makes of nothing, of NaN, of integers and of wrong masks."""

from __future__ import annotations

import math

import pytest

import mlgpu
from mlgpu import masked
from mlgpu.errors import DTypeError, ShapeError

NONE = mlgpu.tensor([[True, True], [False, False]])


def test_of_nothing():
    x = mlgpu.tensor([[3.0, 4.0], [5.0, 6.0]])
    for function, expected in ((masked.sum, 0), (masked.prod, 1), (masked.amax, -math.inf),
                               (masked.amin, math.inf), (masked.norm, 0),
                               (masked.logsumexp, -math.inf)):
        assert function(x, dim=1, mask=NONE)[1].item() == expected
    assert masked.norm(x, -math.inf, 1, mask=NONE).tolist() == [3, math.inf]
    for function in (masked.mean, masked.median, masked.var, masked.std):
        assert function(x, dim=1, mask=NONE)[1].isnan().item()
    for function in (masked.softmax, masked.softmin, masked.log_softmax):
        assert function(x, 1, mask=NONE)[1].isnan().all().item()
    assert masked.amax(x.int(), 1, mask=NONE).tolist() == [4, -2 ** 31]
    assert masked.amin(x.byte(), 1, mask=NONE).tolist() == [3, 255]
    assert masked.cumsum(x, 1, mask=NONE).tolist() == [[3, 7], [0, 0]]
    assert masked.cumprod(x, 1, mask=NONE).tolist() == [[3, 12], [1, 1]]
    assert masked.logaddexp(x, x, input_mask=NONE, other_mask=NONE)[1].tolist() == [-math.inf] * 2


@pytest.mark.parametrize("function", [masked.mean, masked.var, masked.std, masked.amax,
                                      masked.logsumexp, masked.norm])
def test_what_is_left_out_does_not_matter(function):
    values = [1.0, math.nan, 4.0, math.inf]
    x = mlgpu.tensor(values, requires_grad=True)
    y = mlgpu.tensor([1.0, 4.0], requires_grad=True)
    found = function(x, mask=mlgpu.tensor([True, False, True, False]))
    expected = function(y)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item())
    assert x.grad[::2].tolist() == pytest.approx(y.grad.tolist())
    assert x.grad[1::2].tolist() == [0, 0]


def test_dtypes():
    x = mlgpu.tensor([[1, 5, 3], [4, 2, 9]], dtype=mlgpu.int16)
    mask = mlgpu.tensor([True, False, True])
    assert masked.sum(x, 1, mask=mask).dtype is mlgpu.int64
    assert masked.cumsum(x, 1, mask=mask).dtype is mlgpu.int16
    assert masked.argmax(x, 1, mask=mask).tolist() == [2, 2]
    assert masked.argmin(x, 1, mask=mask).dtype is mlgpu.int16
    assert masked.mean(x, 1, dtype=mlgpu.float64, mask=mask).tolist() == [2, 6.5]
    assert masked.median(x, 1, mask=mask).tolist() == [1, 4]
    assert masked.var(x, 1, mask=mask).dtype is mlgpu.float32
    assert masked.normalize(mlgpu.tensor([3.0, 4.0]), 2.0, 0).tolist() == pytest.approx([0.6, 0.8])


def test_refusals():
    x = mlgpu.ones(2, 2)
    with pytest.raises(ShapeError, match=r"masked\.sum: a mask of shape .* has more dim"):
        masked.sum(x, mask=mlgpu.ones(1, 2, 2))
    with pytest.raises(ShapeError, match=r"masked\.sum: a dimension appears twice in \(0, -2\)"):
        masked.sum(x, (0, -2))
    with pytest.raises(DTypeError, match=r"masked\.mean: expected a floating or complex dtype"):
        masked.mean(x.int())
    with pytest.raises(DTypeError, match=r"masked\.median: of integers, the mask must choose"):
        masked.median(x.int(), mask=NONE)
    with pytest.raises(DTypeError, match=r"masked\.amax: expected real numbers, got bool"):
        masked.amax(x.bool())
    with pytest.raises(ShapeError, match=r"masked\.var: unbiased and correction say one thing"):
        masked.var(x, None, True, correction=1)
