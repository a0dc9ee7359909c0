"""Deformable convolution on CUDA: halves, one image at a time, channels in groups and parts."""

from __future__ import annotations

import numpy as np

import mlgpu
import mlgpu.cuda.deform_conv
from mlgpu.nn import functional as F

SHAPES = (2, 4, 3, 3), (2, 16, 2, 2), (4, 2, 2, 2), (4,), (2, 8, 2, 2)  # two groups, two parts


def gradients(device):
    rng = np.random.default_rng(0)
    x, offset, weight, bias, mask = leaves = [
        mlgpu.tensor(rng.standard_normal(shape), device=device).bfloat16().requires_grad_()
        for shape in SHAPES]
    y = F.deform_conv2d(x, offset, weight, bias, mask=mask)
    made = y, *mlgpu.autograd.grad([y], leaves, [mlgpu.ones_like(y)])
    return [t.detach().float().cpu().numpy() for t in made]


def test_images_one_after_the_other(monkeypatch):
    monkeypatch.setattr(mlgpu.cuda.deform_conv, "CHUNK", 1)
    for cpu, cuda in zip(gradients("cpu"), gradients("cuda"), strict=True):
        assert np.abs(cuda - cpu).max() <= 1e-2 * np.abs(cpu).max()
