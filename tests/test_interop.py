"""Memory shared with NumPy, PyTorch and whatever else speaks DLPack: no copies, no danger."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import dtypes, memory
from mlgpu.errors import DeviceError, DTypeError, GraphError, ReleasedError, ShapeError

SHAPES = [(), (0, 3), (1,), (2, 3, 5)]


def filled(kind, shape=(2, 3)):
    return mlgpu.tensor(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind.numpy))


class Legacy:
    """A producer from before DLPack 1.0."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return 1, 0


# --- NumPy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_shares_memory_both_ways(kind, shape):
    tensor = filled(kind, shape)
    array = np.asarray(tensor)
    assert array.dtype == kind.numpy
    assert array.shape == shape
    back = mlgpu.from_numpy(array)
    assert back.dtype is kind
    assert back.data_ptr() == tensor.data_ptr() == array.ctypes.data
    if array.size:
        back.view(-1)[0] = 1
        assert tensor.view(-1)[0].item() == array.reshape(-1)[0] == 1


def test_strided_memory_is_shared():
    array = np.arange(24.0).reshape(4, 6)
    for view in (array.T, array[1::2, ::3], array[:, 1], np.broadcast_to(array[0], (3, 6))):
        tensor = mlgpu.from_numpy(view)
        assert tensor.tolist() == view.tolist()
        assert np.asarray(tensor).strides == view.strides
        assert mlgpu.from_dlpack(tensor).tolist() == view.tolist()


@pytest.mark.parametrize(("array", "error"), [
    ([1, 2], TypeError), (np.float32(1), TypeError), (np.arange(3)[::-1], ShapeError),
    (np.arange(3, dtype=">i4"), DTypeError), (np.arange(3, dtype=np.uint32), DTypeError),
    (np.array(["a"]), DTypeError), (np.array([None]), DTypeError),
    (np.zeros(3, [("a", "i1"), ("b", "f4")])["b"], ShapeError),
], ids=str)
def test_arrays_that_tensors_cannot_be(array, error):
    with pytest.raises(error):
        mlgpu.from_numpy(array)


def test_read_only_arrays_are_shared_and_stay_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = mlgpu.from_numpy(array)
    assert tensor.tolist() == [0, 1, 2]
    with pytest.raises(GraphError, match="read-only"):
        tensor.zero_()
    assert not np.asarray(tensor).flags.writeable


def test_array_protocol():
    tensor = mlgpu.ones(3)
    assert np.asarray(tensor).ctypes.data == tensor.data_ptr()
    assert np.array(tensor).ctypes.data != tensor.data_ptr()
    assert np.asarray(tensor, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(tensor, dtype=np.float64, copy=False)
    assert np.sum(tensor) == 3
    with pytest.raises(GraphError, match="detach"):
        np.asarray(mlgpu.ones(3).requires_grad_())
    gone = mlgpu.ones(3)
    gone.release()
    with pytest.raises(ReleasedError):
        np.asarray(gone)


# --- DLPack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 1), (2, 0)], ids=str)
def test_dlpack_shares_memory(kind, version):
    tensor = filled(kind)
    back = mlgpu.from_dlpack(tensor.__dlpack__(max_version=version))
    assert back.dtype is kind
    assert back.data_ptr() == tensor.data_ptr()
    assert back.tolist() == tensor.tolist()


@pytest.mark.parametrize("kind", [k for k in dtypes.ALL if k is not dtypes.bfloat16], ids=str)
def test_dlpack_with_numpy(kind):
    tensor = filled(kind)
    array = np.from_dlpack(tensor)
    assert array.dtype == kind.numpy
    assert array.ctypes.data == tensor.data_ptr()
    assert mlgpu.from_dlpack(array).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dlpack_with_pytorch(kind, shape):
    torch = pytest.importorskip("torch")
    tensor = filled(kind, shape)
    there = torch.from_dlpack(tensor)
    assert there.dtype == getattr(torch, kind.name)
    assert there.shape == shape
    assert there.tolist() == tensor.tolist()
    back = mlgpu.from_dlpack(there)
    assert back.dtype is kind
    if there.numel():
        assert there.data_ptr() == back.data_ptr() == tensor.data_ptr()
        back.view(-1)[0] = 1
        assert there.view(-1)[0].item() == 1
    assert mlgpu.from_dlpack(torch.utils.dlpack.to_dlpack(there)).tolist() == tensor.tolist()
    assert torch.utils.dlpack.from_dlpack(tensor.__dlpack__()).tolist() == tensor.tolist()


def test_copies_only_where_asked():
    tensor = mlgpu.ones(3)
    assert mlgpu.from_dlpack(tensor, copy=False).data_ptr() == tensor.data_ptr()
    assert mlgpu.from_dlpack(tensor, copy=True).data_ptr() != tensor.data_ptr()
    legacy = Legacy(tensor)
    assert mlgpu.from_dlpack(legacy).data_ptr() == tensor.data_ptr()
    assert mlgpu.from_dlpack(legacy, copy=True).data_ptr() != tensor.data_ptr()
    assert mlgpu.from_dlpack(legacy, device="cpu").data_ptr() == tensor.data_ptr()


def test_read_only_memory_stays_read_only_through_dlpack():
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = mlgpu.from_dlpack(array)
    with pytest.raises(GraphError, match="read-only"):
        tensor.zero_()
    with pytest.raises(BufferError, match="readonly"):
        tensor.__dlpack__()
    assert not np.from_dlpack(tensor).flags.writeable
    # The unversioned protocol cannot say whether writing is allowed, so it is not.
    with pytest.raises(GraphError, match="read-only"):
        mlgpu.from_dlpack(Legacy(mlgpu.ones(3))).zero_()


def test_refusals(no_cuda):
    with pytest.raises(BufferError, match="detach"):
        mlgpu.ones(3).requires_grad_().__dlpack__()
    with pytest.raises(BufferError, match="device"):
        mlgpu.ones(3).__dlpack__(dl_device=(2, 0))
    with pytest.raises(DeviceError, match="stream"):
        mlgpu.ones(3).__dlpack__(stream=1)
    with pytest.raises(TypeError, match="int"):
        mlgpu.from_dlpack(3)
    with pytest.raises(DTypeError):
        mlgpu.from_dlpack(np.arange(3, dtype=np.uint16))
    with pytest.raises(ShapeError, match="stride"):
        mlgpu.from_dlpack(np.arange(3)[::-1])
    with pytest.raises(DeviceError):
        mlgpu.from_dlpack(np.arange(3), device="cuda")
    capsule = mlgpu.ones(3).__dlpack__()
    mlgpu.from_dlpack(capsule)
    with pytest.raises(ValueError, match="consumed"):
        mlgpu.from_dlpack(capsule)


def test_foreign_dtypes_of_pytorch_are_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(DTypeError, match="8 bits"):
        mlgpu.from_dlpack(torch.zeros(3, dtype=torch.float8_e5m2))


# --- lifetimes ------------------------------------------------------------------------------------

EXPORTS = {
    "asarray": np.asarray, "numpy": lambda t: t.numpy(), "from_dlpack": np.from_dlpack,
    "from_numpy": lambda t: mlgpu.from_numpy(t.numpy()), "capsule": lambda t: t.__dlpack__(),
    "dlpack": mlgpu.from_dlpack, "view": lambda t: np.asarray(t)[10:].reshape(-1, 10)[::2],
}


def churn():
    """Reuse freed memory of the sizes in question, so that a dangling pointer shows."""
    gc.collect()
    for _ in range(20):
        mlgpu.full((100_000,), -1.0)


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("released", [False, True], ids=["dropped", "released"])
def test_exported_memory_outlives_the_tensor_and_stays_on_the_books(name, released):
    gc.collect()  # what earlier tests left in cycles
    before = memory.stats("cpu").allocated
    tensor = mlgpu.full((100_000,), 3.0)
    exported = EXPORTS[name](tensor)
    if released:
        tensor.release()
    del tensor
    churn()
    assert memory.stats("cpu").allocated == before + 400_000
    if name == "capsule":
        exported = mlgpu.from_dlpack(exported)
    values = np.asarray(exported)
    assert (values == 3).all()
    del exported
    churn()
    assert (values == 3).all()
    del values
    assert memory.stats("cpu").allocated == before


def test_borrowed_memory_outlives_its_owner():
    before = memory.stats("cpu").mapped
    array = np.full(100_000, 3.0)
    tensors = [mlgpu.from_numpy(array), mlgpu.from_dlpack(array), mlgpu.as_tensor(array)]
    assert memory.stats("cpu").mapped == before + 3 * array.nbytes
    del array
    churn()
    assert all((np.asarray(tensor) == 3).all() for tensor in tensors)
    del tensors
    assert memory.stats("cpu").mapped == before


def test_an_unused_capsule_frees_what_it_holds():
    before = memory.stats("cpu").allocated
    for kind in (mlgpu.float32, mlgpu.bfloat16):
        for version in (None, (1, 0)):
            mlgpu.ones(1000, dtype=kind).__dlpack__(max_version=version)
    assert memory.stats("cpu").allocated == before


def test_lifetimes_with_pytorch():
    torch = pytest.importorskip("torch")
    before = memory.stats("cpu")
    there = torch.from_dlpack(mlgpu.full((100_000,), 3.0, dtype=mlgpu.bfloat16))
    churn()
    assert bool((there == 3).all())
    here = mlgpu.from_dlpack(there)
    del there
    churn()
    assert (np.asarray(here).astype(np.float32) == 3).all()
    del here
    after = memory.stats("cpu")
    assert (after.allocated, after.mapped) == (before.allocated, before.mapped)
