"""Windows as columns: the CPU's numbers, also where lines are taken a vector at a time."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu.cuda import fold
from mlgpu.nn import functional as F


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float16, mlgpu.float64])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "by_lines"), [
    (3, 1, 1, 1, True), (2, 2, 0, 1, True), (3, 2, 1, 1, True), (4, 4, 0, 1, True),
    (5, 1, 2, 1, True), (3, 2, 0, 1, True), (3, 1, 2, 2, False), (3, 3, 0, 1, False)])
def test_unfold(dtype, kernel, stride, padding, dilation, by_lines, monkeypatch):
    names = []
    launched = fold.launch
    monkeypatch.setattr(fold, "launch",
                        lambda *given: names.append(given[1]) or launched(*given))
    for width in (144, 16):  # lines of several warps, and several lines of a warp
        x = (mlgpu.arange(2 * 3 * 9 * width) % 251 - 100).to(dtype).reshape(2, 3, 9, width)
        found, expected = (F.unfold(each, kernel, dilation, padding, stride).cpu()
                           for each in (x.cuda(), x))
        assert mlgpu.equal(found, expected)
    assert any("lines" in name for name in names) == (
        by_lines and not (dtype is mlgpu.float64 and stride == 4))
