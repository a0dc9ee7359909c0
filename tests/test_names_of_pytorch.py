"""Functions, layers and refusals that mlgpu has for PyTorch's names, beyond the op table's rows."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu import nn
from mlgpu.errors import DeviceError, DTypeError, ShapeError


def test_copies_share_no_memory_and_lie_in_order():
    x = mlgpu.arange(6.0).reshape(2, 3)
    copies = [mlgpu.t_copy(x), mlgpu.detach_copy(x.mT), *mlgpu.unbind_copy(x, 1),
              mlgpu.expand_copy(x[:, :1], (2, 3))]
    assert all(c.is_contiguous() for c in copies)
    x.zero_()
    assert [c.sum().item() for c in copies] == [15, 15, 3, 5, 7, 9]
    leaf = mlgpu.ones(2, requires_grad=True)
    assert mlgpu.alias_copy(leaf).requires_grad
    assert not mlgpu.detach_copy(leaf).requires_grad


def test_memory_by_strides_and_by_order():
    x = mlgpu.empty_permuted((2, 3, 4), (2, 0, 1), dtype=mlgpu.int16)
    assert x.stride() == (3, 1, 6)
    assert x.dtype is mlgpu.int16
    assert mlgpu.zeros(1, dtype=mlgpu.int8).new_empty_strided((2, 2), (1, 2)).stride() == (1, 2)
    with pytest.raises(ShapeError, match="permutation"):
        mlgpu.empty_permuted((2, 3), (0, 0))


@pytest.mark.parametrize(("call", "error"), [
    (lambda x: x.chalf(), DTypeError),
    (lambda x: mlgpu.put(x, mlgpu.tensor([0, 1]), x[0, :1]), ShapeError),
    (lambda x: mlgpu.put(x, mlgpu.tensor([0]), mlgpu.tensor([1])), DTypeError),
    (lambda x: mlgpu.put(x, mlgpu.tensor([9]), x[0, :1]), IndexError),
    (lambda x: mlgpu.grid_sampler_2d(x[None], x, 0, 0, False), ShapeError),
    (lambda x: mlgpu.grid_sampler_3d(x[None], x, 0, 0, False), ShapeError),
    (lambda x: mlgpu.grid_sampler(x, x, 3, 0, False), ShapeError),
    (lambda x: mlgpu.native_group_norm(x, None, None, 3, 3, 1, 1, 0.1), ShapeError),
    (lambda x: mlgpu.as_strided_scatter(x, x, (2,), (1,)), ShapeError),
    (lambda x: nn.functional.fractional_max_pool2d(x[None], 2), ShapeError),
    (lambda x: nn.functional.fractional_max_pool2d(x[None], 2, output_size=3), ShapeError),
    (lambda x: nn.functional.fractional_max_pool3d(x[None], 2, output_size=1), ShapeError),
    (lambda x: nn.FractionalMaxPool2d(2, output_ratio=1.5), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "sum"), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "median", lengths=mlgpu.tensor([2])), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "sum", lengths=mlgpu.tensor([1])), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "sum", lengths=mlgpu.tensor([3, -1])), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "sum", lengths=mlgpu.tensor([2]), axis=1), ShapeError),
    (lambda x: mlgpu.segment_reduce(x, "sum", lengths=mlgpu.tensor([2.0])), DTypeError),
    (lambda x: mlgpu.segment_reduce(x.long(), "sum", lengths=mlgpu.tensor([2])), DTypeError),
    (lambda x: nn.FractionalMaxPool3d(2), ShapeError),
])
def test_wrong_arguments(call, error):
    with pytest.raises(error):
        call(mlgpu.ones(2, 3))


def test_a_segment_of_nothing_has_no_mean_and_the_rest_is_left_out():
    lengths = mlgpu.tensor([1, 0, 2])
    found = mlgpu.segment_reduce(mlgpu.arange(5.0), "mean", lengths=lengths, unsafe=True)
    assert found[::2].tolist() == [0, 1.5]
    assert found[1].isnan()
    found = mlgpu.segment_reduce(mlgpu.arange(5.0), "min", offsets=mlgpu.tensor([1, 3, 3, 4]))
    assert found.tolist() == [1, float("inf"), 3]


def test_a_division_of_python_2():
    assert mlgpu.tensor([2.0, 4.0]).__rdiv__(8).tolist() == [4, 2]


def test_native_batch_norm_has_no_statistics_of_a_batch_in_evaluation():
    x, mean, var = mlgpu.ones(2, 3), mlgpu.zeros(3), mlgpu.ones(3)
    out, *statistics = mlgpu.native_batch_norm(x, None, None, mean, var, False, 0.1, 0.0)
    assert mlgpu.equal(out, x)
    assert [s.numel() for s in statistics] == [0, 0]


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.FractionalMaxPool2d(2, output_ratio=0.5, return_indices=True), (2, 3, 8, 9)),
    (nn.FractionalMaxPool3d((1, 2, 2), output_size=(2, 4, 4), return_indices=True), (3, 4, 8, 9))])
def test_fractional_pooling_is_random_and_names_where_maxima_are(layer, shape):
    mlgpu.manual_seed(1)
    x = mlgpu.randn(*shape)
    drawn = [layer(x) for _ in range(8)]
    assert len({tuple(indices.flatten().tolist()) for _, indices in drawn}) > 1
    dims = layer._spatial
    for values, indices in drawn:
        flat = x.flatten(-dims).gather(-1, indices.flatten(-dims))
        assert mlgpu.equal(flat.reshape(values.shape), values)
    named = (nn.functional.fractional_max_pool2d_with_indices if dims == 2
             else nn.functional.fractional_max_pool3d_with_indices)
    assert len(named(x, layer.kernel_size, layer.output_size, layer.output_ratio)) == 2


class Group:
    """What stands for processes: as many as are said."""

    def __init__(self, count):
        self.count = count

    def size(self):
        return self.count


def test_batch_norms_of_all_processes_are_those_of_the_one():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4)))
    mlgpu.manual_seed(0)
    x = mlgpu.randn(5, 3)
    model(x)
    model.eval()
    before, names = model(x), list(model.state_dict())
    weight = model[1].weight
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model, Group(1))
    assert converted is model
    assert all(isinstance(m, nn.SyncBatchNorm) for m in (model[1], model[2][0]))
    assert model[1].weight is weight
    assert list(model.state_dict()) == names
    assert mlgpu.equal(model(x), before)
    alone = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(2, affine=False))
    assert alone(mlgpu.ones(2, 2, 1, 1)).shape == (2, 2, 1, 1)
    with pytest.raises(DeviceError, match="one process"):
        nn.SyncBatchNorm(4, process_group=Group(2))
    with pytest.raises(ShapeError):
        nn.SyncBatchNorm(4)(mlgpu.ones(4))
