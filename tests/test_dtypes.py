"""Dtypes: promotion, casts, limits, and arithmetic that a dtype does not have."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu import dtypes
from mlgpu.errors import DTypeError

NAMES = [d.name for d in dtypes.ALL]
PAIRS = list(itertools.product(dtypes.ALL, repeat=2))
INTEGERS = [d for d in dtypes.ALL if d.kind == "int"]
FLOATS = [d for d in dtypes.ALL if d.kind == "float"]

# torch.promote_types, row by row: b bool, u uint8, 1 2 4 8 signed ints by bytes, h float16,
# t bfloat16, f float32, d float64, c complex64, z complex128.
LETTERS = "bu1248htfdcz"
PROMOTION = """
bu1248htfdcz
uu2248htfdcz
121248htfdcz
222248htfdcz
444448htfdcz
888888htfdcz
hhhhhhhffdcz
ttttttftfdcz
fffffffffdcz
ddddddddddzz
ccccccccczcz
zzzzzzzzzzzz
""".split()


def by_letter(letter):
    return dtypes.ALL[LETTERS.index(letter)]


# --- promotion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_promotion_is_pytorchs(a, b):
    expected = by_letter(PROMOTION[dtypes.ALL.index(a)][dtypes.ALL.index(b)])
    assert mlgpu.promote_types(a, b) is expected
    x, y = mlgpu.ones(2, dtype=a), mlgpu.ones(2, dtype=b)
    assert mlgpu.result_type(x, y) is expected
    assert (x * y).dtype is expected
    assert mlgpu.cat([x, y]).dtype is expected
    assert mlgpu.where(mlgpu.tensor([True, False]), x, y).dtype is expected


def test_the_table_is_that_of_the_installed_pytorch():
    torch = pytest.importorskip("torch")
    for a, b in PAIRS:
        theirs = torch.promote_types(getattr(torch, a.name), getattr(torch, b.name))
        assert str(theirs) == f"torch.{mlgpu.promote_types(a, b).name}"


def weak(strong, other):
    """A 0-dim tensor or number only raises the kind; of complex numbers only that they are."""
    if other.category <= strong.category:
        return strong
    if other.is_complex and strong.is_floating_point:
        return {"float64": mlgpu.complex128}.get(strong.name, mlgpu.complex64)
    return other


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_zero_dim_tensors_weigh_less(a, b):
    x, zero = mlgpu.ones(2, dtype=a), mlgpu.ones((), dtype=b)
    assert mlgpu.result_type(x, zero) is weak(a, b)
    assert (x * zero).dtype is (zero * x).dtype is weak(a, b)
    assert (mlgpu.ones((), dtype=a) * zero).dtype is mlgpu.promote_types(a, b)


@pytest.mark.parametrize("number", [True, 2, 2.5, 2j])
@pytest.mark.parametrize("shape", [(2,), ()], ids=str)
@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
def test_numbers_weigh_least(kind, shape, number):
    x = mlgpu.ones(shape, dtype=kind)
    expected = weak(kind, dtypes.scalar_dtype(number))
    assert mlgpu.result_type(x, number) is mlgpu.result_type(number, x) is expected
    assert (x * number).dtype is (number * x).dtype is expected
    assert (x + number).dtype is expected
    wide = weak(mlgpu.float32 if kind.kind in ("bool", "int") else kind,
                dtypes.scalar_dtype(number))
    assert (x / number).dtype is wide


def test_weights_as_pytorch_gives_them():
    torch = pytest.importorskip("torch")
    operands = [("tensor", d, s) for d in NAMES for s in ((2,), ())] + [
        ("number", n, None) for n in (True, 2, 2.5, 2j)]

    def made(library, kind, what, shape):
        if kind == "number":
            return what
        return library.ones(shape, dtype=getattr(library, what))

    for a, b in itertools.product(operands, repeat=2):
        if a[0] == b[0] == "number":
            continue
        mine, theirs = ((made(m, *a), made(m, *b)) for m in (mlgpu, torch))
        expected = str(torch.result_type(*theirs)).split(".")[1]
        if expected == "complex32":  # which mlgpu has not
            continue
        assert mlgpu.result_type(*mine).name == expected, (a, b)
        for name in ("add", "mul", "true_divide", "eq", "maximum"):
            if name == "maximum" and "number" in (a[0], b[0]):
                continue
            try:
                other = getattr(torch, name)(*theirs)
            except (RuntimeError, TypeError):
                continue  # a number first, or no order
            found = getattr(mlgpu, name)(*mine)
            assert found.dtype.name == str(other.dtype).split(".")[1], (name, a, b)


def test_three_weights_at_once():
    x, zero = mlgpu.ones(2, dtype=mlgpu.int16), mlgpu.ones((), dtype=mlgpu.float64)
    assert (x * zero * 2).dtype is mlgpu.float64
    assert mlgpu.result_type(x, 2.0) is mlgpu.float32
    assert mlgpu.addcmul(x.float(), zero, x.float()).dtype is mlgpu.float32
    assert mlgpu.result_type(mlgpu.ones(2, dtype=mlgpu.float16), 2j) is mlgpu.complex64


def test_what_has_no_common_dtype():
    with pytest.raises(DTypeError, match="expected a Tensor or a number, got str"):
        mlgpu.result_type(mlgpu.ones(2), "a")
    with pytest.raises(DTypeError, match="at least one"):
        mlgpu.result_type()
    with pytest.raises(DTypeError, match=r"promote_types: expected dtypes .* 'int8'"):
        mlgpu.promote_types(mlgpu.int8, "int8")


def test_can_cast():
    torch = pytest.importorskip("torch")
    for a, b in PAIRS:
        expected = torch.can_cast(getattr(torch, a.name), getattr(torch, b.name))
        assert mlgpu.can_cast(a, b) == expected, (a, b)


def test_in_place_results_must_fit():
    for a, b in PAIRS:
        target, other = mlgpu.ones(2, dtype=a), mlgpu.ones(2, dtype=b)
        if mlgpu.can_cast(mlgpu.promote_types(a, b), a):
            assert target.mul_(other).dtype is a
        else:
            with pytest.raises(DTypeError, match=r"mul_: the result is mlgpu\.\w+, which cannot be "
                                                 r"written into mlgpu\.\w+"):
                target.mul_(other)
            assert target.tolist() == [1, 1]


# --- what a dtype is ------------------------------------------------------------------------------


@pytest.mark.parametrize("d", dtypes.ALL, ids=str)
def test_attributes(d):
    assert repr(d) == f"mlgpu.{d.name}"
    assert d.itemsize == np.dtype(d.numpy).itemsize
    assert d.is_floating_point == (d.name.startswith(("float", "bfloat")))
    assert d.is_complex == d.name.startswith("complex")
    assert d.is_signed == (d.name not in ("bool", "uint8"))
    assert pickle.loads(pickle.dumps(d)) is copy.deepcopy(d) is d
    assert dtypes.by_name(d.name) is dtypes.from_numpy(d.numpy) is dtypes.as_dtype(d.numpy) is d
    assert getattr(mlgpu, d.name) is d
    assert mlgpu.zeros(1, dtype=d).dtype is d
    assert mlgpu.zeros(1, dtype=d).numpy().dtype == d.numpy
    assert mlgpu.zeros(3, dtype=d).nbytes == 3 * d.itemsize


def test_aliases():
    for alias, name in {"half": "float16", "float": "float32", "double": "float64", "int": "int32",
                        "short": "int16", "long": "int64", "cfloat": "complex64",
                        "cdouble": "complex128"}.items():
        assert getattr(mlgpu, alias) is getattr(mlgpu, name)


def test_real_and_complex_counterparts():
    torch = pytest.importorskip("torch")
    for d in dtypes.ALL:
        theirs = getattr(torch, d.name)
        if d.is_floating_point or d.is_complex:
            assert str(theirs.to_real()).endswith("." + d.to_real().name)
        if d in (mlgpu.float32, mlgpu.float64):
            assert str(theirs.to_complex()).endswith("." + d.to_complex().name)


@pytest.mark.parametrize("wrong", ["float32", "x", 1.5, None, np.uint32, np.dtype("O"), object,
                                   str])
def test_what_is_no_dtype(wrong):
    with pytest.raises(DTypeError, match="dtype: "):
        dtypes.as_dtype(wrong)
    with pytest.raises(TypeError):
        mlgpu.zeros(2, dtype=wrong or "")


def test_python_and_numpy_types_stand_for_dtypes():
    assert mlgpu.zeros(1, dtype=float).dtype is mlgpu.float32
    assert mlgpu.zeros(1, dtype=int).dtype is mlgpu.int64
    assert mlgpu.zeros(1, dtype=bool).dtype is mlgpu.bool
    assert mlgpu.zeros(1, dtype=complex).dtype is mlgpu.complex64
    assert mlgpu.zeros(1, dtype=np.int16).dtype is mlgpu.int16
    assert dtypes.from_numpy(np.dtype(">f4")) is mlgpu.float32


@pytest.mark.parametrize("d", [*FLOATS, mlgpu.complex64, mlgpu.complex128], ids=str)
def test_finfo(d):
    mine = mlgpu.finfo(d)
    torch = pytest.importorskip("torch")
    theirs = torch.finfo(getattr(torch, d.name))
    for name in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert repr(mine) == repr(theirs)


@pytest.mark.parametrize("d", INTEGERS, ids=str)
def test_iinfo(d):
    bits = d.itemsize * 8
    info = mlgpu.iinfo(d)
    low = 0 if d is mlgpu.uint8 else -(2 ** (bits - 1))
    assert (info.bits, info.min, info.max) == (bits, low, low + 2**bits - 1)
    assert repr(info) == f"iinfo(min={info.min}, max={info.max}, dtype={d.name})"


def test_limits_of_the_other_kind_are_refused():
    with pytest.raises(TypeError, match=r"finfo: .*use iinfo"):
        mlgpu.finfo(mlgpu.int8)
    with pytest.raises(TypeError, match=r"iinfo: .*use finfo"):
        mlgpu.iinfo(mlgpu.float32)
    with pytest.raises(TypeError, match="iinfo"):
        mlgpu.iinfo(mlgpu.bool)
    assert mlgpu.finfo().dtype == "float32"


# --- the default dtype ----------------------------------------------------------------------------


@pytest.fixture
def restored():
    yield
    mlgpu.set_default_dtype(mlgpu.float32)


@pytest.mark.parametrize("d", FLOATS, ids=str)
def test_the_default_dtype(restored, d):
    mlgpu.set_default_dtype(d)
    assert mlgpu.get_default_dtype() is d
    ints = mlgpu.ones(2, dtype=mlgpu.int64)
    for made in (mlgpu.zeros(2), mlgpu.tensor([1.5]), mlgpu.arange(2.0), ints * 2.5, ints / 2,
                 ints.sqrt(), mlgpu.linspace(0, 1, 2), mlgpu.rand(2), mlgpu.full((2,), 1.5),
                 mlgpu.tensor([]), mlgpu.eye(2), mlgpu.Tensor([1]), mlgpu.nn.Linear(2, 2).weight):
        assert made.dtype is d
    assert mlgpu.ones(2, dtype=mlgpu.float32).mul(2.5).dtype is mlgpu.float32
    assert mlgpu.tensor([1j]).dtype is (
        mlgpu.complex128 if d is mlgpu.float64 else mlgpu.complex64)
    assert mlgpu.tensor(np.zeros(2)).dtype is mlgpu.float64


def test_only_floating_dtypes_are_defaults(restored):
    for wrong in (mlgpu.int32, mlgpu.complex64, "float32", None):
        with pytest.raises(TypeError, match="set_default_dtype: only floating"):
            mlgpu.set_default_dtype(wrong)
    assert mlgpu.get_default_dtype() is mlgpu.float32


def test_the_default_dtype_holds_in_all_threads(restored):
    mlgpu.set_default_dtype(mlgpu.float64)
    found = []
    thread = threading.Thread(target=lambda: found.append(mlgpu.zeros(1).dtype))
    thread.start()
    thread.join()
    assert found == [mlgpu.float64]


# --- casts ----------------------------------------------------------------------------------------

VALUES = {
    "bool": [True, False], "uint8": [0, 1, 127, 128, 255], "int8": [-128, -1, 0, 1, 127],
    "int16": [-32768, -129, -1, 0, 300, 32767], "int32": [-(2**31), -1, 0, 70_000, 2**31 - 1],
    "int64": [-(2**63), -1, 0, 2**40 + 5, 2**63 - 1],
    "float16": [-65504, -1.5, -0.0, 0.5, 2.999, 65504],
    "bfloat16": [-1.5, 0.5, 2.984375, 300.0], "float32": [-1e5, -1.5, -0.0, 0.5, 2.999, 16777217.0],
    "float64": [-1e9, -1.5, -0.0, 0.5, 2.999, 1e9 + 0.25, 255.5, 256.0, -129.7],
    "complex64": [1.5 - 2j, 0.5j, 0], "complex128": [1.5 - 2j, 0.5j, 300],
}


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_casts_are_pytorchs(a, b):
    torch = pytest.importorskip("torch")
    mine = mlgpu.tensor(VALUES[a.name], dtype=a).to(b)
    theirs = torch.tensor(VALUES[a.name], dtype=getattr(torch, a.name)).to(getattr(torch, b.name))
    assert mine.tolist() == theirs.tolist()


def test_casts_wrap_integers_and_truncate_floats():
    x = mlgpu.tensor([300, -1, 2**40 + 7])
    assert x.to(mlgpu.uint8).tolist() == [44, 255, 7]
    assert x.to(mlgpu.int8).tolist() == [44, -1, 7]
    y = mlgpu.tensor([2.9, -2.9, -0.5, 300.7, -1.0])
    assert y.int().tolist() == [2, -2, 0, 300, -1]
    assert y.to(mlgpu.uint8).tolist() == [2, 254, 0, 44, 255]
    assert mlgpu.tensor([0.0, -0.0, 0.1, math.nan]).bool().tolist() == [False, False, True, True]
    huge = mlgpu.tensor([1e39, -1e39], dtype=mlgpu.float64)
    assert huge.float().tolist() == [math.inf, -math.inf]
    assert mlgpu.tensor([65520.0, 65519.0]).half().tolist() == [math.inf, 65504]
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert mlgpu.tensor([1 + 2j, 2j]).to(mlgpu.float32).tolist() == [1, 0]
    assert mlgpu.tensor([1 + 2j, 2j, 0j]).bool().tolist() == [True, True, False]


def test_casts_pass_gradients_and_keep_what_fits():
    x = mlgpu.tensor([1.0, 2.0], requires_grad=True)
    assert x.float() is x
    assert x.to(mlgpu.float32) is x
    assert x.to(mlgpu.float32, copy=True) is not x
    x.double().half().to(mlgpu.complex64).real.sum().backward()
    assert x.grad.dtype is mlgpu.float32
    assert x.grad.tolist() == [1, 1]
    assert not x.int().requires_grad


@pytest.mark.parametrize(("value", "kind"), [
    (300, mlgpu.uint8), (-256, mlgpu.uint8), (-1.0, mlgpu.uint8), (128, mlgpu.int8),
    ([1, 2**31], mlgpu.int32),
    (math.nan, mlgpu.int64), ([1.0, math.inf], mlgpu.int32), (300.0, mlgpu.uint8),
    (1 + 1j, mlgpu.float32),
])
def test_numbers_that_do_not_fit_are_refused(value, kind):
    """As in PyTorch, where -1 is 255 in uint8 but 300 and -1.0 are nothing."""
    assert mlgpu.tensor([-1, -255], dtype=mlgpu.uint8).tolist() == [255, 1]
    assert mlgpu.full((1,), -1, dtype=mlgpu.uint8).tolist() == [255]
    with pytest.raises(DTypeError, match=r"tensor: .*not fit mlgpu\."):
        mlgpu.tensor(value, dtype=kind)
    torch = pytest.importorskip("torch")
    with pytest.raises((RuntimeError, TypeError)):
        torch.tensor(value, dtype=getattr(torch, kind.name))


# --- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", INTEGERS, ids=str)
def test_integer_arithmetic_wraps(d):
    top, low = mlgpu.iinfo(d).max, mlgpu.iinfo(d).min
    x = mlgpu.tensor([top, low], dtype=d)
    assert (x + 1).tolist() == [low, low + 1]
    assert (x - 1).tolist() == [top - 1, top]
    assert (x * 2).tolist() == [254 if d is mlgpu.uint8 else -2, 0]
    assert x.sum().dtype is mlgpu.int64
    assert x.prod().dtype is x.cumsum(0).dtype is mlgpu.int64


@pytest.mark.parametrize("d", [mlgpu.bool, *INTEGERS], ids=str)
def test_division_of_integers_is_true_division(d):
    x = mlgpu.ones(3, dtype=d)
    assert (x / 2).dtype is mlgpu.float32
    assert (x / 2).tolist() == [0.5] * 3
    assert (x / x).dtype is mlgpu.float32
    if d is not mlgpu.bool:
        assert (x // 2).dtype is (x % 2).dtype is d
        assert (x / mlgpu.ones(3, dtype=mlgpu.float16)).dtype is mlgpu.float16
    assert x.sqrt().dtype is x.exp().dtype is x.sigmoid().dtype is mlgpu.float32
    with pytest.raises(DTypeError):
        x.mean()


def test_arithmetic_of_bools():
    t, f = mlgpu.tensor([True, True]), mlgpu.tensor([True, False])
    assert (t + f).tolist() == [True, True]
    assert (t + f).dtype is (t * f).dtype is mlgpu.bool
    assert (t * f).tolist() == [True, False]
    assert (t + 1).dtype is mlgpu.int64
    assert (t * 2.5).dtype is mlgpu.float32
    assert t.sum().item() == 2
    assert (t & f).tolist() == (t * f).tolist()
    assert (t ^ f).tolist() == [False, True]
    assert (~f).tolist() == [False, True]
    assert (t > f).tolist() == [False, True]


@pytest.mark.parametrize("call", [
    lambda t: t - t, lambda t: -t, lambda t: 1 - t, lambda t: t - 1, lambda t: t.sub_(t),
    lambda t: t.abs(), lambda t: t.relu(), lambda t: t @ t, lambda t: +t,
])
def test_what_bools_do_not_do(call):
    t = mlgpu.tensor([True, False])
    with pytest.raises(DTypeError, match="not defined for bool"):
        call(t)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError):
        call(torch.tensor([True, False]))


@pytest.mark.parametrize("kind", [mlgpu.float16, mlgpu.bfloat16], ids=str)
def test_half_types_accumulate_in_float32(kind):
    x = mlgpu.ones(10_000, dtype=kind)
    assert x.sum().item() == 10_000 if kind is mlgpu.float16 else 9984
    assert x.sum().dtype is kind
    tenth = mlgpu.full((4096,), 0.1, dtype=kind)
    assert tenth.mean().item() == tenth[0].item()
    assert (tenth @ mlgpu.ones(4096, dtype=kind)).item() == mlgpu.tensor(
        4096 * tenth[0].item(), dtype=kind).item()
