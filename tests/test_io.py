"""save and load: everything comes back as it was, and other tools read the file."""

from __future__ import annotations

import gc
import math
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu import dtypes, memory
from mlgpu.errors import DeviceError, FormatError, ReleasedError
from mlgpu.nn.parameter import Parameter
from mlgpu.tensor import Size, Tensor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def round_trip(path, value):
    mlgpu.save(value, path)
    return mlgpu.load(path)


def same(a, b):
    """Equal in value and type, at every level; floats bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return (a.dtype is b.dtype and a.shape == b.shape and a.requires_grad == b.requires_grad
                and a._array.tobytes() == b._array.tobytes())
    if isinstance(a, dict):
        return (len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
                and all(same(x, y) for x, y in zip(a.values(), b.values(), strict=True)))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    return a == b


# --- values ---------------------------------------------------------------------------------------

PLAIN = [
    None, True, False, 0, -1, 2**53, 2**53 + 1, -(2**64), 10**5000, 0.1, -0.0, 5e-324, 1e308,
    math.inf, -math.inf, math.nan, struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0],
    1 + 2j, complex(math.nan, -math.inf), "", "é\0\n\"\\", "\ud800", "😀", b"", b"\0\xff", [], (),
    {}, set(), frozenset(), {1, "a", (2, 3)}, frozenset([None]), OrderedDict([(1, 2)]),
    Size((2, 3)),
    mlgpu.float32, mlgpu.bool, mlgpu.device("cpu"), mlgpu.device("cuda:3"), np.float32(0.1),
    np.float64("nan"), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.complex64(1j),
    {1: "int", "1": "str", (1, 2): [3], None: 4, 1.5: 5, b"k": 6}, [[[[]]]], (1, (2, [3, {4: ()}])),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: type(v).__name__)
def test_plain_values_come_back_exactly(path, value):
    if isinstance(value, np.generic):
        loaded = round_trip(path, value)
        assert type(loaded) is type(value)
        assert loaded.tobytes() == value.tobytes()
    else:
        assert same(round_trip(path, value), value)
        assert same(round_trip(path, {"deep": [value, {"x": (value,)}]})["deep"][1]["x"][0], value)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(),
              st.text(st.characters(), max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=4)),
    max_leaves=12)


@settings(max_examples=150, deadline=2000)
@given(values)
def test_any_nesting_of_plain_values_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "plain.safetensors"
    assert same(round_trip(path, value), value)


@pytest.mark.parametrize("kind", dtypes.ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (5, 7)], ids=str)
def test_every_dtype_and_shape_comes_back(path, kind, shape):
    rng = np.random.default_rng(0)
    tensor = mlgpu.tensor(rng.integers(0, 2, shape).astype(kind.numpy))
    assert same(round_trip(path, tensor), tensor)
    assert same(round_trip(path, [tensor, {"x": tensor}])[1]["x"], tensor)


def test_float_bits_survive(path):
    for kind, bits in (("float32", "uint32"), ("float16", "uint16"), ("bfloat16", "uint16")):
        raw = np.arange(2**16, dtype=bits) * (65537 if bits == "uint32" else 1)
        array = raw.view(dtypes.by_name(kind).numpy)
        assert round_trip(path, mlgpu.tensor(array))._array.tobytes() == raw.tobytes()


def test_parameters_and_requires_grad_come_back(path):
    value = {"p": Parameter(mlgpu.ones(2)), "frozen": Parameter(mlgpu.ones(2), False),
             "t": mlgpu.ones(2).requires_grad_(), "result": Parameter(mlgpu.ones(2)).view(1, 2)}
    loaded = round_trip(path, value)
    assert [type(t) for t in loaded.values()] == [Parameter, Parameter, Tensor, Tensor]
    assert [t.requires_grad for t in loaded.values()] == [True, False, True, True]
    assert all(t.is_leaf for t in loaded.values())


def test_states_of_training_come_back(path):
    moments = {"step": mlgpu.tensor(3.0), "exp_avg": mlgpu.ones(2, 2)}
    value = {
        "optimizer": {"state": {0: moments, 1: dict(moments)},
                      "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1],
                                        "foreach": None}]},
        "scheduler": {"last_epoch": 5, "base_lrs": [0.1], "_get_lr_called": False},
        "random": {"state": mlgpu.tensor([1, 2, 255], dtype=mlgpu.uint8), "words": (2**64 - 1, 7)},
        "step": 1234, "best": math.inf}
    assert same(round_trip(path, value), value)


# --- what cannot be saved -------------------------------------------------------------------------


class Tagged(Tensor):
    pass


@pytest.mark.parametrize(("value", "where"), [
    (object(), "the value is a builtins.object"),
    ({"model": [1, {"x": print}]}, r"model\.1\.x is a builtins\.builtin"),
    (np.zeros(3), r"numpy\.ndarray"), (range(3), "range"), ({1: slice(3)}, "1 is a builtins.slice"),
    (type("D", (dict,), {})(), "D"), (True + np.longdouble(1), "longdouble"),
    (mlgpu.ones(1)._make.__func__(Tagged, np.ones(1), mlgpu.ones(1)._storage), "Tagged"),
    ({"a": {mlgpu.ones(1): 1}}, "tensor as a key"),
], ids=lambda v: type(v).__name__)
def test_what_cannot_come_back_is_refused_and_nothing_written(path, value, where):
    mlgpu.save("old", path)
    with pytest.raises(TypeError, match=where):
        mlgpu.save(value, path)
    assert mlgpu.load(path) == "old"
    assert len(list(path.parent.iterdir())) == 1


def test_a_value_that_contains_itself_is_refused(path):
    loop = {}
    loop["again"] = [loop]
    with pytest.raises(ValueError, match="contains itself"):
        mlgpu.save(loop, path)
    deep = []
    for _ in range(95):
        deep = [deep]
    assert round_trip(path, deep) == deep


def test_released_tensors_are_refused(path):
    tensor = mlgpu.ones(3)
    tensor.release()
    with pytest.raises(ReleasedError):
        mlgpu.save([tensor], path)


# --- shared memory --------------------------------------------------------------------------------


def test_the_same_object_comes_back_as_one(path):
    weight = Parameter(mlgpu.ones(3))
    loaded = round_trip(path, {"a": weight, "b": [weight]})
    assert loaded["a"] is loaded["b"][0]


def test_tied_tensors_stay_tied(path):
    weight = mlgpu.tensor(np.arange(12.0).reshape(3, 4))
    loaded = round_trip(path, {"head": weight.detach(), "embed": weight, "t": weight.mT,
                               "row": weight[1], "flat": weight.view(12)[2:9:3],
                               "wide": weight[:, :1].expand(3, 5)})
    assert loaded["head"] is not loaded["embed"]
    loaded["head"][1, 0] = -1
    assert loaded["embed"][1, 0].item() == -1
    assert loaded["t"][0, 1].item() == -1
    assert loaded["row"][0].item() == -1
    assert loaded["wide"].tolist() == [[0.0] * 5, [-1.0] * 5, [8.0] * 5]
    assert loaded["flat"].tolist() == [2, 5, 8]
    loaded["embed"].release()
    with pytest.raises(ReleasedError):
        loaded["row"].tolist()
    reference = pytest.importorskip("safetensors.numpy").load_file(path)
    assert list(reference) == ["head"]


def test_overlapping_tensors_that_none_covers_stay_tied(path):
    base = mlgpu.arange(10)
    loaded = round_trip(path, [base[:6], base[4:], base[1::3]])
    loaded[0][4] = -1
    assert loaded[1].tolist() == [-1, 5, 6, 7, 8, 9]
    assert loaded[2].tolist() == [1, -1, 7]


def test_neighbours_that_share_nothing_are_stored_by_value(path):
    base = mlgpu.tensor(np.arange(12.0).reshape(3, 4))
    left, right = base[:, :2], base[:, 2:]
    loaded = round_trip(path, {"left": left, "right": right, "top": base[:1], "end": base[1:]})
    assert loaded["left"].tolist() == left.tolist()
    found = round_trip(path, {"left": left, "right": right})
    assert found["left"].is_contiguous()
    reference = pytest.importorskip("safetensors.numpy").load_file(path)
    assert reference["right"].tolist() == right.tolist()


def test_ties_across_dtypes(path):
    z = mlgpu.tensor([1 + 2j, 3j], dtype=mlgpu.complex128)
    parts = Tensor._make(z._array.view(np.float64), z._storage)
    loaded = round_trip(path, {"z": z, "again": z.detach(), "parts": parts})
    loaded["parts"][0] = 9
    assert loaded["z"].tolist() == loaded["again"].tolist() == [9 + 2j, 3j]
    raw = mlgpu.zeros(9, dtype=mlgpu.uint8)
    word = Tensor._make(raw._array[:8].view(np.float64), raw._storage)
    loaded = round_trip(path, [mlgpu.ones(1, dtype=mlgpu.int8), raw, word])
    loaded[2][0] = -2.0
    assert loaded[1].tolist()[:8] == list(struct.pack("<d", -2.0))


def test_complex128_is_real_and_imaginary_parts_elsewhere(path):
    reference = pytest.importorskip("safetensors.numpy")
    mlgpu.save({"z": mlgpu.tensor([[1 + 2j], [3j]], dtype=mlgpu.complex128).mT}, path)
    assert reference.load_file(path)["z"].tolist() == [[[1, 2], [0, 3]]]


# --- names ----------------------------------------------------------------------------------------


def test_entries_are_named_by_where_they_stand(path):
    reference = pytest.importorskip("safetensors.numpy")
    one = lambda: mlgpu.ones(1)  # noqa: E731
    value = {"a.b": one(), "a": {"b": one(), "é": one()}, "__metadata__": one(), "\ud800": one(),
             1: [one()], "1": {"0": one()}}
    assert same(round_trip(path, value), value)
    assert set(reference.load_file(path)) == {"a.b", "a.b#2", "a.é", "__metadata__#2", "\\ud800",
                                              "1.0", "1.0#2"}


def test_a_state_dict_reads_as_one_in_pytorch(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    state = OrderedDict({"layers.0.weight": mlgpu.ones(2, 3).bfloat16(), "bias": mlgpu.zeros(3)})
    mlgpu.save(state, path)
    found = load_file(path)
    assert set(found) == set(state)
    assert found["layers.0.weight"].dtype == torch.bfloat16


# --- loading --------------------------------------------------------------------------------------


def test_loaded_tensors_are_a_private_map_on_the_books_apart(path, request):
    mlgpu.save([mlgpu.zeros(1000), mlgpu.ones(3)], path)
    content = path.read_bytes()
    gc.collect()
    gc.disable()  # nothing in loading may need the collector
    request.addfinalizer(gc.enable)
    before = memory.stats("cpu")
    loaded = mlgpu.load(path)
    after = memory.stats("cpu")
    assert (after.allocated, after.mapped) == (before.allocated, before.mapped + 4012)
    loaded[0].fill_(5)
    assert path.read_bytes() == content
    view = loaded[0][3:]
    del loaded
    assert view.tolist() == [5] * 997
    del view
    assert memory.stats("cpu").mapped == before.mapped


def test_the_file_may_be_replaced_while_it_is_mapped(path):
    loaded = round_trip(path, mlgpu.arange(100_000))
    mlgpu.save(mlgpu.zeros(3), path)
    assert loaded.tolist() == list(range(100_000))


def test_loading_to_a_device_that_is_not_there(path, no_cuda):
    mlgpu.save(mlgpu.ones(1), path)
    assert mlgpu.load(path, "cpu").item() == 1
    with pytest.raises(DeviceError):
        mlgpu.load(path, "cuda")


def test_loaded_tensors_train(path):
    mlgpu.save({"w": Parameter(mlgpu.ones(3))}, path)
    weight = mlgpu.load(path)["w"]
    weight.view(3, 1).backward(mlgpu.full((3, 1), 2.0))
    assert weight.grad.tolist() == [2, 2, 2]


def test_plain_files_of_others_are_dicts(path):
    reference = pytest.importorskip("safetensors.numpy")
    reference.save_file({"b": np.arange(3), "a": np.ones((2, 2), np.float16)}, path, {"x": "y"})
    loaded = mlgpu.load(path)
    assert type(loaded) is dict
    assert same(loaded["a"], mlgpu.ones(2, 2, dtype=mlgpu.float16))
    with pytest.raises(FormatError, match="safetensors"):
        mlgpu.load(__file__)
