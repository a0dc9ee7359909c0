"""Atomic additions of float32: subnormals are zeros in global memory, and numbers in shared memory.

The PTX manual says so, and an H200 does so.
"""

from __future__ import annotations

import numpy as np
import pytest

from mlgpu import sim

SOURCE = r"""
extern "C" __global__ void add_global(float* to, const float* x, float* old, int stride) {
    old[threadIdx.x] = atomicAdd(to + threadIdx.x * stride, x[threadIdx.x]);
}
extern "C" __global__ void reduce_global(float* to, const float* x, int stride) {
    atomicAdd(to + threadIdx.x * stride, x[threadIdx.x]);
}
extern "C" __global__ void add_shared(float* to, const float* x) {
    __shared__ float sums[4];
    sums[threadIdx.x] = to[threadIdx.x];
    atomicAdd(sums + threadIdx.x, x[threadIdx.x]);
    to[threadIdx.x] = sums[threadIdx.x];
}
"""
TINY, NORMAL = np.float32(1e-40), np.float32(2.0 ** -126)
BEFORE = np.float32([TINY, NORMAL, 1.5 * NORMAL, -0.0])
ADDED = np.float32([NORMAL, -TINY, -NORMAL, -TINY])
FLUSHED = np.float32([NORMAL, NORMAL, 0.0, -0.0])


@pytest.fixture(scope="module")
def module() -> sim.Module:
    return sim.Machine(arch="sm_80").module(SOURCE)


def bits(x: np.ndarray) -> list[int]:
    return x.view(np.uint32).tolist()


def test_sums_in_global_memory_are_flushed(module):
    machine = module.machine
    to, old = machine.array(BEFORE), machine.empty(4, np.float32)
    module.kernel("add_global").launch(1, 4, (to, machine.array(ADDED), old, np.int32(1)))
    assert bits(to.numpy()) == bits(FLUSHED)
    assert bits(old.numpy()) == bits(BEFORE)  # what was there, as it was
    to = machine.array(BEFORE)
    module.kernel("reduce_global").launch(1, 4, (to, machine.array(ADDED), np.int32(1)))
    assert bits(to.numpy()) == bits(FLUSHED)


@pytest.mark.parametrize("name", ["add_global", "reduce_global"])
def test_sums_of_many_threads_are_flushed(module, name):
    machine = module.machine
    to, x = machine.array(np.float32([TINY])), machine.array(np.float32([TINY, NORMAL, TINY, TINY]))
    old = (machine.empty(4, np.float32),) if name == "add_global" else ()
    module.kernel(name).launch(1, 4, (to, x, *old, np.int32(0)))
    assert to.numpy().tolist() == [NORMAL]


def test_sums_in_shared_memory_are_not(module):
    machine = module.machine
    to = machine.array(BEFORE)
    module.kernel("add_shared").launch(1, 4, (to, machine.array(ADDED)))
    assert bits(to.numpy()) == bits(BEFORE + ADDED)
