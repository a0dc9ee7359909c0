"""Layers in NF4 on CUDA: which kernels they take, agreement with the CPU, memory."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
import mlgpu.cuda.nf4
from mlgpu import nn, peft


def layer(device, dtype, **options):
    weight = np.random.default_rng(0).standard_normal((24, 128)).astype(np.float32)
    model = nn.Sequential(nn.Linear(128, 24, bias=False, device=device))
    with mlgpu.no_grad():
        model[0].weight.copy_(mlgpu.tensor(weight, device=device))
    model.to(dtype)
    peft.quantize(model, ["0"], **options)
    return model[0]


@pytest.mark.parametrize(("dtype", "rows", "options", "kernels"), [
    ("bfloat16", 3, {"double_quant": True}, ["nf4_gemv", "nf4_gemm"]),
    ("bfloat16", 9, {}, ["nf4_gemm", "nf4_gemm"]),
    ("float32", 2, {}, ["nf4_gemv", "nf4_whole"]),
    ("float32", 9, {"block": 48}, ["nf4_whole", "nf4_whole"])])
def test_kernels(monkeypatch, dtype, rows, options, kernels):
    dtype, taken = getattr(mlgpu, dtype), []
    launch = mlgpu.cuda.nf4.launch

    def noted(family, expression, *rest):
        taken.append(expression.partition("<")[0])
        launch(family, expression, *rest)

    monkeypatch.setattr(mlgpu.cuda.nf4, "launch", noted)
    values = np.random.default_rng(1).standard_normal((rows, 128 + 24))
    found = []
    for device in ("cpu", "cuda"):
        module = layer(device, dtype, **options)
        x, dy = mlgpu.tensor(values, device=device).to(dtype).split([128, 24], 1)
        x = x.contiguous().requires_grad_()
        y = module(x)
        found.append([t.detach().cpu().double().numpy()
                      for t in (y, *mlgpu.autograd.grad([y], [x], [dy]))])
    assert taken == kernels
    for cpu, cuda in zip(*found, strict=True):
        assert np.abs(cpu - cuda).max() < {4: 1e-5, 2: 1e-2}[dtype.itemsize] * np.abs(cpu).max()


def test_no_weight_is_made_whole():
    module = layer("cuda", mlgpu.bfloat16)
    x = mlgpu.ones(5, 128, device="cuda", dtype=mlgpu.bfloat16, requires_grad=True)
    mlgpu.cuda.synchronize()
    before = mlgpu.cuda.memory_allocated()
    mlgpu.cuda.reset_peak_memory_stats()
    y = module(x)
    y.backward(mlgpu.ones_like(y))
    assert mlgpu.cuda.max_memory_allocated() - before < 24 * 128 * 2
