"""Device memory shared with CuPy, both ways, in order and with its owner kept."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import dtypes, memory

cupy = pytest.importorskip("cupy", reason="sharing device memory needs CuPy")

DTYPES = [dtypes.float32, dtypes.float16, dtypes.bfloat16, dtypes.int64, dtypes.bool_,
          dtypes.complex64]


def values(dtype):
    return mlgpu.tensor([[1, 0, 2], [3, 1, 0]], device="cuda").to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("take", [cupy.from_dlpack, cupy.asarray], ids=["dlpack", "interface"])
def test_lent_to_cupy(dtype, take):
    if dtype is dtypes.bfloat16 and take is cupy.asarray:
        pytest.skip("the CUDA Array Interface has no bfloat16")
    x = values(dtype)
    there = take(x)
    assert there.data.ptr == x.data_ptr()
    assert there.dtype == dtype.numpy
    there[0, 0] = 0
    cupy.cuda.get_current_stream().synchronize()
    assert x.to(dtypes.complex64).cpu().numpy()[0, 0] == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_borrowed_from_cupy(dtype):
    array = cupy.arange(12).reshape(3, 4).astype(dtype.numpy)[:, ::2]
    x = mlgpu.from_dlpack(array)
    assert x.is_cuda
    assert x.dtype is dtype
    assert x.data_ptr() == array.data.ptr
    np.testing.assert_array_equal(x.cpu().numpy(), array.get())
    y = mlgpu.as_tensor(array)
    assert y.data_ptr() == array.data.ptr
    assert mlgpu.tensor(array).data_ptr() != array.data.ptr
    assert mlgpu.from_dlpack(array, copy=True).data_ptr() != array.data.ptr
    assert mlgpu.from_dlpack(array, device="cpu").is_cpu


def test_what_is_borrowed_keeps_its_owner_and_is_counted_apart():
    gc.collect()
    before = memory.stats("cuda:0")
    x = mlgpu.from_dlpack(cupy.full(1000, 7, np.float32))
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    during = memory.stats("cuda:0")
    assert during.mapped == before.mapped + 4000
    assert during.allocated == before.allocated
    assert x[::250].tolist() == [7.0] * 4
    del x
    assert memory.stats("cuda:0").mapped == before.mapped


def test_what_is_lent_outlives_the_tensor():
    x = mlgpu.full((1000,), 3.0, device="cuda")
    there = cupy.from_dlpack(x)
    x.release()
    del x
    other = mlgpu.full((1000,), 4.0, device="cuda")
    assert float(there[500]) == 3.0
    assert other[500].item() == 4.0


def test_work_on_another_stream_is_waited_for():
    side = mlgpu.cuda.Stream()
    with mlgpu.cuda.stream(side):
        x = mlgpu.zeros(4096, device="cuda")
        for _ in range(5):
            x += 1
    assert (cupy.from_dlpack(x) == 5).all()
    assert cupy.asarray(x).sum() == 5 * 4096


def test_refused():
    x = mlgpu.ones(3, device="cuda", requires_grad=True)
    with pytest.raises(BufferError, match="requires grad"):
        x.__dlpack__()
    assert not hasattr(x, "__cuda_array_interface__")
    assert not hasattr(mlgpu.ones(3), "__cuda_array_interface__")
    with pytest.raises(mlgpu.MlgpuError):
        mlgpu.from_dlpack(cupy.arange(3, dtype=np.uint16))


def test_gradients_flow_into_what_was_borrowed():
    array = cupy.asarray([1.0, 2.0], np.float32)
    x = mlgpu.from_dlpack(array).requires_grad_()
    (x * x).backward(mlgpu.ones(2, device="cuda"))
    assert cupy.asarray(x.grad.detach()).tolist() == [2.0, 4.0]
