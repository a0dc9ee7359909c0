"""The structure that mlgpu adds to safetensors: damaged or malicious, it is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu.errors import FormatError
from mlgpu.io import safetensors
from mlgpu.nn.parameter import Parameter

ENTRIES = {"x": mlgpu.arange(4, dtype=mlgpu.float32), "b": mlgpu.tensor([True, False])}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "x.safetensors"


def load(path, structure):
    text = structure if isinstance(structure, str) else json.dumps(structure)
    safetensors.write(path, ENTRIES, {"mlgpu": text})
    return mlgpu.load(path)


def document(root, *records, **changes):
    used = [r.get("entry") for r in records if isinstance(r, dict)]
    rest = [{"entry": name} for name in ENTRIES if name not in used]
    return {"version": 1, "root": root, "tensors": [*records, *rest], **changes}


def view(dtype="float32", shape=(2,), strides=(4,), offset=0, entry="x"):
    return {"entry": entry, "view": {"dtype": dtype, "shape": list(shape), "strides": list(strides),
                                     "offset": offset}}


def test_the_documents_of_this_file_are_otherwise_good(path):
    assert load(path, document([1, {"tuple": [{"tensor": 1}]}]))[1][0].tolist() == [True, False]
    found = load(path, document({"tensor": 0}, view(shape=(2, 3), strides=(4, 0), offset=8)))
    assert found.tolist() == [[2, 2, 2], [3, 3, 3]]


BAD = {
    "no json": ("{", "JSON"), "nan": ('{"version": NaN}', "NaN"), "list": ([], "version"),
    "key twice": ('{"version": 1, "version": 1}', "twice"),
    "deep": ("[" * 10**5, "deep"),
    "newer": (document(1, version=2), "version is 2"),
    "more keys": (document(1, more=1), "keys"),
    "no root": ({"version": 1, "tensors": []}, "keys"),
    "tensors no list": (document(1, tensors={}), "list"),
    "record no object": (document(1, 3), "entry"),
    "record unknown key": (document(1, {"entry": "x", "code": "import os"}), "unknown keys"),
    "record without entry": (document(1, {"parameter": True}), "without entry"),
    "entry missing": (document(1, {"entry": "y"}), "'y'"),
    "entry no text": (document(1, {"entry": ["x"]}), "names"),
    "entry unused": (document(1, tensors=[{"entry": "x"}]), "no place"),
    "flag": (document(1, {"entry": "x", "parameter": 1}), "flag"),
    "grad of bool": (document({"tensor": 0}, {"entry": "b", "requires_grad": True}), "grad"),
    "tensor missing": (document({"tensor": 2}), "number 2"),
    "tensor negative": (document({"tensor": -1}), "number -1"),
    "tensor bool": (document({"tensor": True}), "integer"),
    "type unknown": (document({"eval": "1"}), "eval"),
    "object empty": (document({}), "0 keys"),
    "object of two": (document({"tuple": [], "dict": []}), "2 keys"),
    "tuple no list": (document({"tuple": 3}), "list"),
    "dict odd": (document({"dict": [1]}), "no value"),
    "dict twice": (document({"dict": [1, 2, 1, 3]}), "twice"),
    "dict unhashable": (document({"dict": [[], 2]}), "dict"),
    "dict tensor key": (document({"dict": [{"tensor": 0}, 2]}), "tensor as a key"),
    "set unhashable": (document({"set": [[]]}), "set"),
    "set of tensors": (document({"set": [{"tensor": 0}]}), "set"),
    "size of text": (document({"size": ["a"]}), "integer"),
    "int": (document({"int": "0xg"}), "int"), "int number": (document({"int": 3}), "text"),
    "float": (document({"float": "00"}), "float"),
    "float hex": (document({"float": "zz"}), "float"),
    "complex": (document({"complex": [1]}), "complex"),
    "complex text": (document({"complex": ["1j", 1]}), "complex"),
    "bytes": (document({"bytes": "a"}), "bytes"), "bytes é": (document({"bytes": "é==="}), "bytes"),
    "dtype": (document({"dtype": "float7"}), "dtype"),
    "device": (document({"device": "tpu"}), "device"),
    "numpy object": (document({"numpy": ["object", "00"]}), "numpy"),
    "numpy short": (document({"numpy": ["float32", "00"]}), "1 bytes"),
    "numpy shape": (document({"numpy": ["(999999999,)f8", "00"]}), "numpy"),
    "too deep": (document(json.loads("[" * 150 + "]" * 150)), "deep"),
    "view keys": (document({"tensor": 0}, {"entry": "x", "view": {}}), "view"),
    "view dtype": (document(1, view("f4")), "dtype"),
    "view dtype list": (document(1, view(["float32"])), "dtype"),
    "view past the end": (document(1, view(offset=12)), "reaches 20"),
    "view stride past the end": (document(1, view(strides=(16,))), "reaches 20"),
    "view huge stride": (document(1, view(strides=(2**62,))), "reaches"),
    "view overflow": (document(1, view(shape=(2**62,), strides=(0,))), "impossible"),
    "view wraps around": (document(1, view(shape=(2**32 + 1,), strides=(2**32,))), "reaches"),
    "view negative offset": (document(1, view(offset=-4)), "impossible"),
    "view negative stride": (document(1, view(strides=(-4,))), "impossible"),
    "view ranks": (document(1, view(strides=(4, 4))), "impossible"),
    "view unaligned": (document(1, view(offset=2)), "aligned"),
    "view float stride": (document(1, view(strides=(4.0,))), "impossible"),
    "view to bool": (document(1, view("bool", strides=(1,))), "bool"),
    "view from bool": (document(1, view("uint8", strides=(1,), entry="b")), "bool"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_structures_are_refused_by_name_and_reason(path, name):
    structure, reason = BAD[name]
    with pytest.raises(FormatError, match=reason) as caught:
        load(path, structure)
    assert str(path) in str(caught.value)


def test_a_huge_expanded_view_costs_nothing(path):
    found = load(path, document({"tensor": 0}, view(shape=(2**50,), strides=(0,), offset=4)))
    assert found.shape == (2**50,)
    assert found[-1].item() == 1


def loads_or_refuses(path, *arguments):
    message = str(path)
    try:
        load(path, *arguments)
    except FormatError as error:
        message = str(error)
    assert str(path) in message


tags = ("tuple", "size", "set", "frozenset", "dict", "ordered_dict", "tensor", "complex", "int",
        "float", "bytes", "dtype", "device", "numpy", "other")
leaves = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.integers(), st.text(max_size=4),
                   st.floats(allow_nan=False, allow_infinity=False),
                   st.sampled_from(["float32", "0x1", "00" * 8, "cpu", "auto", "int8"]))
nodes = st.recursive(
    leaves, lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(tags), inner, max_size=2),
        st.fixed_dictionaries({"tensor": st.integers(-1, 3)})), max_leaves=8)
sizes = st.one_of(st.integers(-1, 20), st.sampled_from([2**31, 2**62, 2**63]), leaves)
views = st.one_of(nodes, st.fixed_dictionaries({
    "dtype": st.one_of(st.sampled_from(["float32", "int8", "complex128", "bool"]), leaves),
    "shape": st.lists(sizes, max_size=3), "strides": st.lists(sizes, max_size=3),
    "offset": sizes}))
records = st.one_of(leaves, st.fixed_dictionaries(
    {"entry": st.sampled_from(["x", "b"])},
    optional={"parameter": st.booleans(), "requires_grad": st.booleans(), "view": views}))


@settings(max_examples=300, deadline=2000)
@given(nodes, st.lists(records, max_size=2))
def test_arbitrary_structures_load_or_raise_format_error(path, root, found):
    loads_or_refuses(path, document(root, *found))
    loads_or_refuses(path, document([{"tensor": i} for i in range(len(found))], *found))


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=5))
def test_mutated_checkpoints_load_or_raise_format_error(path, changes):
    if not path.with_suffix(".good").exists():
        weight = Parameter(mlgpu.ones(2, 3))
        mlgpu.save({"w": weight, "t": weight.detach().mT, "z": [mlgpu.tensor(1j).to(
            mlgpu.complex128), {1: (None, 2**70, b"xy", float("inf"))}]}, path)
        path.rename(path.with_suffix(".good"))
    content = bytearray(path.with_suffix(".good").read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for at, value in changes:
        content[at % header] = value
    path.write_bytes(content)
    message = str(path)
    try:
        mlgpu.load(path)
    except FormatError as error:
        message = str(error)
    assert str(path) in message
    truncated = content[:changes[0][0] % len(content)]
    path.write_bytes(truncated)
    with pytest.raises(FormatError):
        mlgpu.load(path)


def test_nothing_is_unpickled(path):
    import pickle

    path.write_bytes(pickle.dumps(np.ones(3)))
    with pytest.raises(FormatError):
        mlgpu.load(path)
