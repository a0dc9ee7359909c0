"""Storage and Tensor: attributes, views, Python's and NumPy's protocols."""

from __future__ import annotations

import copy
import gc
import math
import operator
import pickle
import weakref

import numpy as np
import pytest

import mlgpu
from mlgpu import dtypes
from mlgpu.errors import DTypeError, GraphError, ShapeError


def counting(*shape):
    return mlgpu.arange(math.prod(shape), dtype=mlgpu.float32).view(*shape)


# --- attributes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
def test_attributes(shape, kind):
    x = mlgpu.zeros(shape, dtype=kind)
    assert tuple(x.shape) == tuple(x.size()) == shape
    assert x.ndim == x.dim() == len(shape)
    assert x.numel() == x.nelement() == x.shape.numel() == math.prod(shape)
    assert x.itemsize == x.element_size() == kind.itemsize
    assert x.nbytes == math.prod(shape) * kind.itemsize
    assert (x.is_floating_point(), x.is_complex(), x.is_signed()) == (
        kind.is_floating_point, kind.is_complex, kind.is_signed)
    assert x.is_contiguous()
    assert (x.requires_grad, x.grad, x.grad_fn, x.is_leaf) == (False, None, None, True)
    assert [x.size(d) for d in range(-len(shape), len(shape))] == list(shape) * 2
    for d in (len(shape) or 1, -(len(shape) or 1) - 1):
        for ask in (x.size, x.stride):
            with pytest.raises(IndexError, match=f"out of range: {d}"):
                ask(d)


def test_size():
    size = mlgpu.ones(2, 3).shape
    assert isinstance(size, mlgpu.Size)
    assert isinstance(size, tuple)
    assert repr(size) == "mlgpu.Size([2, 3])"
    assert size == (2, 3)
    assert size.numel() == 6
    assert mlgpu.zeros(size).shape == size
    assert size[0] == 2
    assert hash(size) == hash((2, 3))
    assert pickle.loads(pickle.dumps(size)) == size


VIEWS = {
    "all": lambda t: t, "row": lambda t: t[1], "column": lambda t: t[:, 1],
    "step": lambda t: t[:, ::2],
    "transpose": lambda t: t.transpose(0, 2), "permute": lambda t: t.permute(2, 0, 1),
    "expand": lambda t: t[1:2].expand(5, -1, -1), "expand more": lambda t: t[1].expand(2, 3, 4),
    "unfold": lambda t: t[1].unfold(1, 2, 1), "diagonal": lambda t: t[0].diagonal(1),
    "narrow": lambda t: t.narrow(2, 1, 2), "unsqueeze": lambda t: t[1].unsqueeze(1),
    "squeeze": lambda t: t[:, :1].squeeze(1), "view": lambda t: t.view(6, 4)[2:],
    "flat": lambda t: t.reshape(-1)[5:], "chain": lambda t: t[1:].transpose(1, 2)[0, 1:, ::2],
    "movedim": lambda t: t.movedim(0, 2), "select": lambda t: t.select(2, 3),
    "unbind": lambda t: t.unbind(1)[2], "split": lambda t: t.split(2, 1)[1],
    "detach": lambda t: t[1].detach(), "unflatten": lambda t: t[1].unflatten(1, (2, 2)),
    "empty": lambda t: t[2:], "mT": lambda t: t.mT[1],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_storage(name):
    x = counting(2, 3, 4)
    view = VIEWS[name](x)
    values = np.asarray(view)
    assert values.base is not None
    if view.numel():
        assert view.data_ptr() == x.data_ptr() + 4 * view.storage_offset()
    for n, stride, step in zip(view.shape, view.stride(), values.strides, strict=True):
        assert n <= 1 or stride == step // 4
    if view.numel() and 0 not in view.stride() and name != "unfold":
        view.fill_(-1)
        assert (x == -1).sum().item() == view.numel()
        x.fill_(7)
        assert (view == 7).all()
        assert view._version == x._version == 2


@pytest.mark.parametrize("name", VIEWS)
def test_strides_and_offsets_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    mine = VIEWS[name](counting(2, 3, 4))
    theirs = VIEWS[name](torch.arange(24.0).view(2, 3, 4))
    assert mine.tolist() == theirs.tolist()
    if mine.numel():
        assert mine.storage_offset() == theirs.storage_offset()
    assert mine.is_contiguous() == theirs.is_contiguous()
    # Where a length is 1 or nothing, a stride is never used and may differ.
    for n, a, b in zip(mine.shape, mine.stride(), theirs.stride(), strict=True):
        assert n <= 1 or 0 in mine.shape or a == b


def test_contiguous_and_clone():
    x = counting(3, 4)
    assert x.contiguous() is x
    y = x.T.contiguous()
    assert y.data_ptr() != x.data_ptr()
    assert y.stride() == (3, 1)
    assert y.tolist() == x.T.tolist()
    assert x.T.clone().stride() == (1, 4)
    assert x.clone().data_ptr() != x.data_ptr()


# --- to Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
def test_numbers(kind):
    x = mlgpu.tensor([[1]], dtype=kind)
    number = x.item()
    assert number == 1
    assert type(number) is {"bool": bool, "int": int, "float": float, "complex": complex}[kind.kind]
    assert x.tolist() == [[1]]
    assert type(x.tolist()[0][0]) is type(number)
    assert mlgpu.tensor(1, dtype=kind).tolist() == 1
    assert bool(x) is True
    assert not mlgpu.zeros(1, dtype=kind)
    assert (int(x), float(x), complex(x)) == (1, 1.0, 1 + 0j)
    if kind.kind in ("bool", "int"):
        assert [10, 20][x] == 20
        assert operator.index(x) == 1
        assert list(range(x)) == [0]
    else:
        with pytest.raises(TypeError):
            operator.index(x)


def test_numbers_out_of_larger_tensors():
    for x in (mlgpu.ones(2), mlgpu.zeros(0)):
        for convert in (bool, int, float, complex, lambda t: t.item()):
            with pytest.raises(ShapeError, match="one element"):
                convert(x)
    with pytest.raises(RuntimeError, match="imaginary"):
        float(mlgpu.tensor(1 + 2j))


def test_len_and_iteration():
    x = counting(3, 2)
    assert len(x) == 3
    assert [row.tolist() for row in x] == x.tolist()
    for row in x:
        row.add_(1)  # rows are views
    assert x.tolist() == [[1, 2], [3, 4], [5, 6]]
    a, b = mlgpu.ones(2)
    assert (a.item(), b.item()) == (1, 1)
    assert list(mlgpu.zeros(0)) == []
    assert [r.tolist() for r in reversed(x)] == x.tolist()[::-1]
    assert 3 in x
    assert 9 not in x
    assert mlgpu.tensor(4.0) in x
    with pytest.raises(TypeError, match="in: expected a Tensor or a number, got str"):
        "a" in x  # noqa: B015
    for broken in (len, iter, list):
        with pytest.raises(TypeError, match="0-d"):
            broken(mlgpu.tensor(1.0))


def test_format():
    assert f"{mlgpu.tensor(3.14159):.2f}" == "3.14"
    assert f"{mlgpu.tensor(7):>4}" == "   7"
    assert f"{mlgpu.tensor(7)}" == "7"
    assert f"{mlgpu.ones(2)}" == repr(mlgpu.ones(2))
    with pytest.raises(TypeError):
        f"{mlgpu.ones(2):.2f}"


def test_hashing_is_by_identity():
    x, y = mlgpu.ones(2), mlgpu.ones(2)
    assert len({x, y, x}) == 2
    assert {x: 1}[x] == 1


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_deepcopy_and_pickle(kind, shape, way):
    x = mlgpu.ones(shape, dtype=kind)
    y = way(x)
    assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
    assert y.data_ptr() != x.data_ptr() or not x.numel()
    y.zero_()
    assert x.tolist() == mlgpu.ones(shape, dtype=kind).tolist()


def test_copies_keep_what_belongs_to_a_leaf():
    x = mlgpu.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    x.note = ["kept"]
    y = copy.deepcopy(x)
    assert (y.requires_grad, y.is_leaf, y.grad.tolist()) == (True, True, [3, 3])
    assert y.grad.data_ptr() != x.grad.data_ptr()
    assert (y.note, y.note is x.note) == (["kept"], False)
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]
    assert pickle.loads(pickle.dumps(x)).requires_grad
    with pytest.raises(GraphError, match="deepcopy: only leaves"):
        copy.deepcopy(x * 2)
    with pytest.raises(GraphError, match="pickle: only leaves"):
        pickle.dumps(x * 2)
    assert copy.copy(x).data_ptr() == x.data_ptr()


def test_subclasses_survive_copies():
    w = mlgpu.nn.Parameter(mlgpu.ones(2))
    for twin in (copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
        assert type(twin) is mlgpu.nn.Parameter
        assert twin.requires_grad


# --- data, requires_grad, construction ------------------------------------------------------------


def test_data_is_the_same_memory_outside_the_graph():
    x = mlgpu.ones(3, requires_grad=True)
    x.data.mul_(5)
    assert x.tolist() == [5, 5, 5]
    assert not x.data.requires_grad
    y = x.detach()
    y[0] = 1
    assert x[0].item() == 1
    assert (y.requires_grad, y.is_leaf) == (False, True)


def test_data_can_be_replaced():
    x = mlgpu.ones(3, requires_grad=True)
    other = mlgpu.zeros(2, 2, dtype=mlgpu.float64)
    x.data = other
    assert (tuple(x.shape), x.dtype, x.requires_grad) == ((2, 2), mlgpu.float64, True)
    other.fill_(4)
    assert x.tolist() == [[4, 4], [4, 4]]
    (x * 2).sum().backward()
    assert x.grad.dtype is mlgpu.float64


def test_requires_grad():
    x = mlgpu.ones(2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    x.requires_grad = False
    assert not (x * 2).requires_grad
    for kind in (mlgpu.int64, mlgpu.bool):
        with pytest.raises(DTypeError, match="only floating and complex"):
            mlgpu.ones(2, dtype=kind).requires_grad_()
    assert mlgpu.ones(2, dtype=mlgpu.complex64).requires_grad_().requires_grad
    y = x.requires_grad_() * 2
    assert y.requires_grad_() is y
    with pytest.raises(GraphError, match="only leaves"):
        y.requires_grad = False
    assert (y.is_leaf, y.grad_fn is None) == (False, False)


def test_the_class_makes_float_tensors():
    assert mlgpu.Tensor([1, 2]).dtype is mlgpu.float32
    assert mlgpu.Tensor([[1.5]]).tolist() == [[1.5]]
    assert mlgpu.Tensor().shape == (0,)
    assert mlgpu.Tensor(2, 3).shape == (2, 3)
    assert mlgpu.Tensor(4).shape == (4,)
    assert isinstance(mlgpu.ones(1), mlgpu.Tensor)


def test_tensors_are_freed_without_a_collector():
    gc.disable()
    try:
        x = mlgpu.ones(10, requires_grad=True)
        y = (x * 2).view(2, 5)[0]
        y.register_hook(lambda g: g)
        y.sum().backward()
        gone = [weakref.ref(t) for t in (x, y, x.grad)]
        del x, y
        assert [ref() for ref in gone] == [None] * 3
    finally:
        gc.enable()


# --- NumPy ----------------------------------------------------------------------------------------


def test_asarray_copies_nothing():
    x = counting(2, 3)
    for view in (x, x.T, x[:, 1], x[1:].expand(4, 3)):
        array = np.asarray(view)
        assert array.ctypes.data == view.data_ptr()
        assert array.tolist() == view.tolist()
    np.asarray(x)[0, 0] = 9
    assert x[0, 0].item() == 9
    assert np.array(x).ctypes.data != x.data_ptr()
    assert np.asarray(x, np.float64).dtype == np.float64


BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv,
          operator.mod, operator.pow, operator.eq, operator.ne, operator.lt, operator.le,
          operator.gt, operator.ge]
INTEGER = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.float64(2.5), np.int64(2),
                                    np.bool_(True)], ids=repr)
def test_operators_with_numbers_on_both_sides(op, number):
    if isinstance(number, np.bool_) and op is operator.sub:
        number = np.int64(1)
    x = mlgpu.tensor([1.0, 2.0, 3.0])
    values = x.numpy().copy()
    for found, expected in ((op(x, number), op(values, number)),
                            (op(number, x), op(number, values))):
        assert isinstance(found, mlgpu.Tensor)
        assert found.tolist() == pytest.approx(expected.astype(values.dtype).tolist() if
                                               expected.dtype != bool else expected.tolist())
    assert op(x, number).dtype is op(number, x).dtype
    assert op(x, number).dtype in (mlgpu.float32, mlgpu.bool)


@pytest.mark.parametrize("op", INTEGER, ids=lambda op: op.__name__)
@pytest.mark.parametrize("number", [2, np.int64(2), np.int8(2)], ids=repr)
def test_integer_operators_on_both_sides(op, number):
    x = mlgpu.tensor([1, 2, 3])
    assert op(x, number).tolist() == [op(v, 2) for v in (1, 2, 3)]
    assert op(number, x).tolist() == [op(2, v) for v in (1, 2, 3)]
    assert isinstance(op(number, x), mlgpu.Tensor)


def test_operators_with_numpy_arrays():
    x, array = mlgpu.ones(3), np.arange(3, dtype=np.float32)
    assert (x + mlgpu.from_numpy(array)).tolist() == [1, 2, 3]
    for op in (operator.add, operator.mul, operator.sub, operator.truediv, operator.lt,
               operator.eq, operator.matmul):
        for a, b in ((x, array + 1), (array + 1, x)):
            result = op(a, b)
            assert isinstance(result, mlgpu.Tensor)
            assert result.tolist() == op(np.asarray(a), np.asarray(b)).tolist()


def test_operators_that_foreign_types_may_answer():
    class Other:
        def __radd__(self, left):
            return "radd"

        def __eq__(self, other):
            return "eq"

        __hash__ = object.__hash__

    assert mlgpu.ones(2) + Other() == "radd"
    assert (mlgpu.ones(2) == Other()) == "eq"
    assert (mlgpu.ones(2) == None) is False  # noqa: E711
    assert (mlgpu.ones(2) != "a") is True
    for op in (operator.add, operator.lt, operator.matmul, operator.mod):
        with pytest.raises(TypeError):
            op(mlgpu.ones(2), "a")


def test_matmul_and_unary_operators():
    x = counting(2, 3)
    assert (x @ x.T).tolist() == [[5, 14], [14, 50]]
    assert (-x).tolist() == (x * -1).tolist()
    assert (+x).tolist() == x.tolist()
    assert abs(-x).tolist() == x.tolist()
    assert (~mlgpu.tensor([0, 1])).tolist() == [-1, -2]
    x @= mlgpu.eye(3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("op", [operator.iadd, operator.isub, operator.imul, operator.itruediv,
                                operator.ifloordiv, operator.imod, operator.ipow],
                         ids=lambda op: op.__name__)
def test_in_place_operators_write_into_the_same_memory(op):
    x = mlgpu.tensor([4.0, 5.0])
    view, before = x[:1], x.data_ptr()
    y = op(x, 2)
    assert y is x
    assert x.data_ptr() == before
    assert view[0].item() == x[0].item() == op(4.0, 2)
    assert x._version == view._version == 1


def test_numpy_functions_take_tensors():
    x = counting(2, 3)
    assert np.sum(x) == 15
    assert np.asarray(np.sqrt(x)).tolist() == np.sqrt(x.numpy()).tolist()
    assert np.stack([x, x]).shape == (2, 2, 3)
    np.testing.assert_array_equal(x, x.numpy())
    target = np.zeros((2, 3))
    target[...] = x
    assert target.tolist() == x.tolist()
    assert np.array([mlgpu.tensor(1.0), mlgpu.tensor(2.0)], dtype=float).tolist() == [1, 2]
