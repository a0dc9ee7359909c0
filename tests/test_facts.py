"""What a tensor is, asked by functions and by PyTorch's oldest names; shapes changed in place."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.typed import CPU_CLASSES, CUDA_CLASSES


def test_questions_have_the_answers_of_methods(device):
    x = mlgpu.ones(2, 3, device=device)
    assert mlgpu.is_tensor(x)
    assert not mlgpu.is_tensor(1)
    assert mlgpu.is_floating_point(x)
    assert mlgpu.is_signed(x)
    assert mlgpu.numel(x) == 6
    assert mlgpu.is_same_size(x, x + 1)
    assert not x.is_same_size(x[0])
    assert x.ndimension() == 2
    assert mlgpu.is_nonzero(x[0, 0])
    assert not mlgpu.zeros(1).is_nonzero()
    with pytest.raises(ShapeError, match="is_nonzero"):
        mlgpu.is_nonzero(x)
    assert not (x.is_sparse)
    assert not (x.is_quantized)
    assert not (x.is_meta)
    assert not (x.is_mps)
    assert not (x.is_nested)
    assert not (x.is_xpu)
    assert mlgpu.detach(x.requires_grad_()).requires_grad is False
    assert x.untyped_storage().data_ptr() == x[0].untyped_storage().data_ptr()
    assert x[1].untyped_storage().nbytes() >= 24
    assert x.untyped_storage().size() >= 24
    assert (mlgpu.pi, mlgpu.e, mlgpu.inf) == (math.pi, math.e, math.inf)
    assert math.isnan(mlgpu.nan)
    assert x[mlgpu.newaxis].shape == (1, 2, 3)


def test_layouts_have_names_and_change_no_values(device):
    x = mlgpu.rand(1, 2, 3, 4, device=device)
    for layout in (mlgpu.channels_last, mlgpu.contiguous_format, mlgpu.preserve_format):
        assert isinstance(layout, mlgpu.memory_format)
        assert mlgpu.equal(x.to(memory_format=layout).contiguous(memory_format=layout), x)
    assert isinstance(mlgpu.strided, mlgpu.layout)
    assert repr(mlgpu.channels_last_3d) == "mlgpu.channels_last_3d"


@pytest.mark.parametrize("name", list(CPU_CLASSES))
def test_types_have_names(name, device):
    kind = (CUDA_CLASSES if device.startswith("cuda") else CPU_CLASSES)[name]
    made = kind([0, 1])
    assert isinstance(made, kind)
    assert made.dtype is kind.dtype
    assert made.type() == str(kind)
    assert not isinstance(made, CPU_CLASSES["DoubleTensor" if name != "DoubleTensor" else
                                            "FloatTensor"])
    assert mlgpu.ones(2, device=device).type(kind).type(str(kind)).dtype is kind.dtype
    assert mlgpu.ones(2, device=device).type(kind.dtype).dtype is kind.dtype


def test_types_are_the_packages_own():
    assert isinstance(mlgpu.ones(2), mlgpu.FloatTensor)
    assert mlgpu.LongTensor(2, 3).shape == (2, 3)
    assert [mlgpu.ones(1).byte().dtype, mlgpu.ones(1).char().dtype] == [mlgpu.uint8, mlgpu.int8]
    names = ("BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor HalfTensor IntTensor "
             "ShortTensor")
    assert all(getattr(mlgpu, name) is CPU_CLASSES[name] for name in names.split())
    with pytest.raises(DTypeError, match=r"torch\.LongTensor"):
        mlgpu.ones(1).type("torch.LongTensors")
    with pytest.raises(DTypeError, match="complex64"):
        mlgpu.ones(1, dtype=mlgpu.complex64).type()


def test_a_subclass_keeps_memory_and_history(device):
    class Named(mlgpu.Tensor):
        pass

    x = mlgpu.ones(3, device=device, requires_grad=True)
    named = (x * 2).as_subclass(Named)
    assert type(named) is Named
    assert type(named + 1) is mlgpu.Tensor
    named.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
    x.as_subclass(Named).sum().backward()
    assert x.grad.tolist() == [3, 3, 3]
    with pytest.raises(TypeError, match="subclass"):
        x.as_subclass(int)


def test_asarray_shares_or_copies_as_told():
    array = np.ones(3, np.float32)
    assert np.shares_memory(mlgpu.asarray(array).numpy(), array)
    assert np.shares_memory(mlgpu.asarray(array, copy=False).numpy(), array)
    assert not np.shares_memory(mlgpu.asarray(array, copy=True).numpy(), array)
    assert mlgpu.asarray([1.0, 2.0], requires_grad=True).requires_grad
    with pytest.raises(ShapeError, match="copy=False"):
        mlgpu.asarray([1.0], copy=False)


def test_a_shape_changed_in_place_changes_the_object(device):
    x = mlgpu.arange(6.0, device=device).view(2, 3)
    y = x
    assert x.t_() is y
    assert y.shape == (3, 2)
    assert y.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.unsqueeze_(0).transpose_(0, 1).swapaxes_(0, 1).swapdims_(1, 2).shape == (1, 2, 3)
    assert x.squeeze_(0).shape == (2, 3)
    leaf = mlgpu.ones(1, 2, device=device, requires_grad=True)
    with pytest.raises(GraphError, match="squeeze_"):
        leaf.squeeze_(0)
    inner = leaf * 3
    inner.squeeze_(0).mul_(2)
    inner.sum().backward()
    assert leaf.grad.tolist() == [[6, 6]]


def test_resize_keeps_what_fits(device):
    x = mlgpu.arange(6.0, device=device)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    assert x.resize_(5).tolist()[:4] == [0, 1, 2, 3]
    assert x.resize_as_(x[:2]).shape == (2,)
    with pytest.raises(GraphError, match="resize_"):
        mlgpu.ones(2, requires_grad=True).resize_(1)


def test_strides_stay_within_the_memory(device):
    x = mlgpu.arange(6.0, device=device)
    assert x[2:].as_strided((2, 2), (1, 1), 0).tolist() == [[0, 1], [1, 2]]
    x.as_strided((3,), (2,), 1).fill_(9)
    assert x.tolist() == [0, 9, 2, 9, 4, 9]
    for size, stride, offset in (((3,), (10**9,), 0), ((2,), (1,), 10**6), ((2,), (-1,), 3),
                                 ((2,), (), 0)):
        with pytest.raises(ShapeError, match="as_strided"):
            mlgpu.as_strided(x, size, stride, offset)


def test_a_singular_matrix_is_told_by_a_number(device):
    a = mlgpu.tensor([[[2.0, 0], [0, 4]], [[1, 1], [1, 1]]], device=device, requires_grad=True)
    inverse, info = mlgpu.linalg.inv_ex(a)
    assert info.tolist() == [0, 2]  # the place of a zero on U's diagonal, as in PyTorch
    assert info.dtype is mlgpu.int32
    assert inverse[0].tolist() == [[0.5, 0], [0, 0.25]]
    assert bool(inverse[1].isnan().all())
    inverse[0].sum().backward()
    assert a.grad[1].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(mlgpu.LinAlgError):
        mlgpu.linalg.inv_ex(a, check_errors=True)


def test_new_tensors_are_like_the_one_asked(device):
    x = mlgpu.ones(2, dtype=mlgpu.float64, device=device)
    assert x.new(2, 3).shape == (2, 3)
    assert x.new([1, 2]).tolist() == [1, 2]
    assert (x.new().shape, x.new([1]).dtype, x.new([1]).device) == ((0,), x.dtype, x.device)
    assert not x.is_pinned()


def test_pinned_memory_says_so():
    if not mlgpu.cuda.is_available():
        pytest.skip("there is no page-locked memory without CUDA")
    assert mlgpu.ones(2).pin_memory().is_pinned()
    assert not mlgpu.ones(2).is_pinned()


def test_a_part_of_a_model_can_be_replaced(device):
    model = mlgpu.nn.Sequential(mlgpu.nn.Linear(2, 2), mlgpu.nn.Sequential(mlgpu.nn.ReLU()))
    model.set_submodule("1.0", mlgpu.nn.Tanh(), strict=True)
    assert type(model[1][0]) is mlgpu.nn.Tanh
    with pytest.raises(AttributeError, match=r"1\.3"):
        model.set_submodule("1.3", mlgpu.nn.Tanh(), strict=True)
    with pytest.raises(ValueError, match="empty"):
        model.set_submodule("", mlgpu.nn.Tanh())
    weight = model[0].weight
    assert model.to_empty(device=device)[0].weight is weight
    assert weight.device.type == mlgpu.Device(device).type
