"""How many kernels a transformer block and a step of an optimizer launch."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu import nn
from mlgpu.sim.cuda.install import installed

SYSTEM = installed()
pytestmark = pytest.mark.skipif(SYSTEM is None, reason="launches are counted by simulated devices")


class Counting:
    """Within it, the names of the kernels launched."""

    def __enter__(self):
        mlgpu.cuda.synchronize()
        self.names = []
        SYSTEM.watchers.append(self._add)
        return self.names

    def _add(self, launch, module):
        self.names.append(launch.code.name)

    def __exit__(self, *exception):
        mlgpu.cuda.synchronize()
        SYSTEM.watchers.remove(self._add)


def block(dtype):
    layer = nn.TransformerEncoderLayer(64, 2, 256, 0.0, "gelu", batch_first=True, norm_first=True,
                                       device="cuda", dtype=dtype)
    x = mlgpu.rand(2, 32, 64, device="cuda").to(dtype).requires_grad_()
    mask = mlgpu.full((32, 32), float("-inf"), device="cuda", dtype=dtype).triu(1)
    return layer, x, mask


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.bfloat16], ids=str)
def test_a_gpt_block(dtype):
    layer, x, mask = block(dtype)
    with Counting() as forward:
        y = layer(x, mask, is_causal=True)
    dy = mlgpu.ones_like(y)
    with Counting() as backward:
        y.backward(dy)
    assert len(forward) <= 8, forward
    assert len(backward) <= 18, backward


def test_an_optimizer_step():
    layer, x, mask = block(mlgpu.float32)
    optimizer = mlgpu.optim.AdamW(layer.parameters(), lr=1e-3)
    for _ in range(2):  # the first makes the state
        optimizer.zero_grad()
        layer(x, mask, is_causal=True).backward(mlgpu.ones_like(x))
        with Counting() as names:
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
    assert len(names) <= 4, names


def test_a_captured_step_is_one_launch():
    layer, x, mask = block(mlgpu.float32)
    optimizer = mlgpu.optim.AdamW(layer.parameters(), lr=1e-3)

    @mlgpu.cuda.graph
    def step(x, mask):
        optimizer.zero_grad()
        loss = (layer(x, mask, is_causal=True) ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        return loss

    given = x.detach()
    losses = [step(given, mask).item() for _ in range(4)]
    assert losses[3] < losses[0]
    assert step.graph is not None


def test_static_and_dynamic_shared_memory_count_together():
    source = """
        extern "C" __global__ void held(int* y, int n) {
          extern __shared__ int many[];
          __shared__ int few[1024];
          few[threadIdx.x] = many[n - 1 - threadIdx.x] = threadIdx.x;
          __syncthreads();
          y[threadIdx.x] = few[threadIdx.x] + many[n - 32 + threadIdx.x];
        }"""
    y = mlgpu.zeros(32, dtype=mlgpu.int32, device="cuda")
    for count in (11 * 1024, 12 * 1024):  # 48 KiB in all, and more, for which to ask the driver
        mlgpu.cuda.kernel(source, "held")(1, 32, (y, count), shared=4 * count)
        assert y.tolist() == [31] * 32
