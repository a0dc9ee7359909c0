"""The safetensors container: against the reference package, and against hostile bytes."""

from __future__ import annotations

import json
import resource
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu import dtypes
from mlgpu.errors import DTypeError, FormatError
from mlgpu.io import safetensors

reference = pytest.importorskip("safetensors.numpy")


def container(header, data=b""):
    """A file with this header (JSON value, text or bytes) and data."""
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        return path
    return write


# --- against the reference ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", safetensors.CODES, ids=str)
def test_the_reference_reads_what_we_write(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    path = tmp_path / "x.safetensors"
    values = {"a": np.arange(6).reshape(2, 3) % 3, "scalar": np.array(1), "none": np.zeros((0, 4))}
    tensors = {n: mlgpu.tensor(a.astype(kind.numpy)) for n, a in values.items()}
    safetensors.write(path, tensors, {"note": "é"})
    loaded = load_file(path)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == getattr(torch, kind.name)
        assert tuple(loaded[name].shape) == tuple(tensor.shape)
        assert loaded[name].tolist() == tensor.tolist()


@pytest.mark.parametrize("kind", safetensors.CODES, ids=str)
def test_we_read_what_the_reference_writes(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(6).reshape(2, 3).to(getattr(torch, kind.name)),
               "odd": torch.ones(3, dtype=torch.uint8), "none": torch.zeros(0, 2)}
    save_file(tensors, path, {"who": "reference"})
    found = safetensors.read(path)
    assert found.metadata == {"who": "reference"}
    assert found.arrays["a"].dtype == kind.numpy
    for name, tensor in tensors.items():
        assert found.arrays[name].tolist() == tensor.tolist()
    assert mlgpu.load(path)["a"].tolist() == tensors["a"].tolist()


def test_arrays_are_aligned_and_strided_ones_written_by_value(tmp_path):
    path = tmp_path / "x.safetensors"
    base = mlgpu.tensor(np.arange(24, dtype=np.float64).reshape(4, 6))
    tensors = {"byte": mlgpu.tensor(np.arange(3, dtype=np.int8)), "t": base.mT,
               "step": base[::2, 1::2], "wide": base[:1].expand(3, 6)}
    safetensors.write(path, tensors, {})
    found = reference.load_file(path)
    for name, array in safetensors.read(path).arrays.items():
        assert array.flags.aligned
        assert array.flags.c_contiguous
        assert array.tolist() == tensors[name].tolist() == found[name].tolist()


def test_unaligned_foreign_files_load(written):
    values = np.arange(5, dtype=np.float64)
    for pad in range(8):
        header = json.dumps({"x": entry("F64", (5,), (0, 40))}) + " " * pad
        loaded = mlgpu.load(written(container(header, values.tobytes())))
        assert loaded["x"].tolist() == values.tolist()
        assert loaded["x"].data_ptr() % 8 == 0


def test_complex128_has_no_code(tmp_path):
    with pytest.raises(DTypeError, match="complex128"):
        safetensors.write(tmp_path / "x", {"z": mlgpu.tensor(1j, dtype=mlgpu.complex128)}, {})
    assert not list(tmp_path.iterdir())


def test_writes_to_a_map_stay_private(written):
    content = container({"x": entry()}, bytes(8))
    path = written(content)
    safetensors.read(path).arrays["x"][:] = 7
    assert path.read_bytes() == content
    assert mlgpu.load(path)["x"].tolist() == [0, 0]


# --- hostile files --------------------------------------------------------------------------------

EIGHT = bytes(8)
BAD = {
    "empty": (b"", "0 bytes"),
    "short": (b"\x01\0\0", "3 bytes"),
    "size beyond the file": (struct.pack("<Q", 50) + b"{}", "50 bytes"),
    "size beyond reason": (struct.pack("<Q", 2**64 - 1) + b"{}", "at most"),
    "no json": (container("{"), "JSON"),
    "two values": (container("{}{}"), "JSON"),
    "no object": (container("[]"), "object"),
    "no utf-8": (container(b'{"\xff": 1}'), "JSON"),
    "surrogate": (container('{"\\ud800": 1}'), "Unicode"),
    "nan": (container('{"x": NaN}'), "NaN"),
    "deep": (container("[" * 10**5), "deep"),
    "deep objects": (container('{"a":' * 10**5), "deep"),
    "endless number": (container('{"x": ' + "9" * 10**5 + "}"), "JSON"),
    "duplicate": (container('{"x": %s, "x": %s}' % ((json.dumps(entry()),) * 2), EIGHT), "twice"),
    "duplicate in entry": (container('{"x": {"dtype": "F32", "dtype": "F32"}}'), "twice"),
    "entry no object": (container({"x": 3}), "must have"),
    "entry key missing": (container({"x": {"dtype": "F32", "shape": []}}), "must have"),
    "entry key unknown": (container({"x": {**entry(), "more": 1}}, EIGHT), "must have"),
    "dtype unknown": (container({"x": entry("F33")}, EIGHT), "unknown dtype"),
    "dtype no text": (container({"x": {**entry(), "dtype": ["F32"]}}, EIGHT), "unknown dtype"),
    "dtype foreign": (container({"x": entry("U32")}, EIGHT), "U32"),
    "shape negative": (container({"x": entry(shape=(-2,))}, EIGHT), "shape"),
    "shape float": (container({"x": entry(shape=(2.0,))}, EIGHT), "shape"),
    "shape bool": (container({"x": entry(shape=(True, 2))}, EIGHT), "shape"),
    "shape no list": (container({"x": {**entry(), "shape": 2}}, EIGHT), "shape"),
    "shape overflow": (container({"x": entry(shape=(2**32, 2**32))}, EIGHT), "shape"),
    "shape overflow to 8": (container({"x": entry(shape=(2**62 + 1, 2, 2**31))}, EIGHT), "shape"),
    "shape zero and huge": (container({"x": entry(shape=(2**62, 0, 2**62), offsets=(0, 0))}),
                            "shape"),
    "too many dims": (container({"x": entry(shape=(1,) * 65, offsets=(0, 4))}, bytes(4)), "shape"),
    "offsets one": (container({"x": entry(offsets=(0,))}, EIGHT), "data_offsets"),
    "offsets swapped": (container({"x": entry(offsets=(8, 0))}, EIGHT), "takes 8 bytes"),
    "offsets negative": (container({"x": entry(offsets=(-8, 0))}, EIGHT), "data_offsets"),
    "offsets huge": (container({"x": entry(offsets=(2**64, 2**64 + 8))}, EIGHT), "data_offsets"),
    "offsets float": (container({"x": entry(offsets=(0, 8.0))}, EIGHT), "data_offsets"),
    "size wrong": (container({"x": entry(shape=(3,))}, EIGHT), "takes 12 bytes"),
    "out of bounds": (container({"x": entry(offsets=(8, 16))}, EIGHT), "gap"),
    "overlap": (container({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "overlaps"),
    "twice the same": (container({"x": entry(), "y": entry()}, EIGHT), "overlaps"),
    "gap": (container({"x": entry(), "y": entry(offsets=(12, 20))}, bytes(20)), "gap"),
    "data missing": (container({"x": entry()}, bytes(7)), "7 follow"),
    "data left over": (container({"x": entry()}, bytes(9)), "9 follow"),
    "metadata no object": (container({"__metadata__": []}), "__metadata__"),
    "metadata no text": (container({"__metadata__": {"a": 1}}), "__metadata__"),
    "bool of 2": (container({"x": entry("BOOL", (2,), (0, 2))}, b"\1\2"), "BOOL"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_reason(written, name):
    content, reason = BAD[name]
    path = written(content)
    with pytest.raises(FormatError, match=reason) as caught:
        mlgpu.load(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_raises_what_open_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        mlgpu.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        mlgpu.load(tmp_path)


GOOD = container(
    {"__metadata__": {"a": "b"}, "x": entry(), "y": entry("BOOL", (3, 1), (8, 11)),
     "z": entry("I64", (), (11, 19))}, bytes(19))


@settings(max_examples=400, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6),
       st.integers(0, len(GOOD)))
def test_mutated_bytes_load_or_raise_format_error(tmp_path_factory, changes, length):
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    loads_or_refuses(tmp_path_factory, bytes(content[:length]))
    loads_or_refuses(tmp_path_factory, bytes(content))


def loads_or_refuses(factory, content):
    path = factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message, loaded = str(path), {}
    try:
        loaded = mlgpu.load(path)
    except FormatError as error:
        message = str(error)
    assert str(path) in message
    assert all(t.nbytes <= len(content) for t in loaded.values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


numbers = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64]),
                    st.floats(), st.booleans(), st.none(), st.text(max_size=2))
entries = st.one_of(numbers, st.fixed_dictionaries(
    {"dtype": st.one_of(st.sampled_from([*safetensors.CODES.values(), "U16", "f32"]), numbers),
     "shape": st.one_of(st.lists(numbers, max_size=4), numbers),
     "data_offsets": st.one_of(st.lists(numbers, max_size=3), numbers)}))


@settings(max_examples=300, deadline=2000)
@given(st.dictionaries(st.one_of(st.text(max_size=3), st.just("__metadata__")), entries,
                       max_size=3), st.integers(0, 40))
def test_arbitrary_headers_load_or_raise_format_error(tmp_path_factory, header, size):
    loads_or_refuses(tmp_path_factory, container(header, bytes(size)))


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
arrays = st.tuples(st.sampled_from(list(safetensors.CODES)), shapes)


@settings(max_examples=60, deadline=2000)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), arrays, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, specs):
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    specs.pop(safetensors.METADATA, None)
    rng = np.random.default_rng(len(specs))
    values = {name: rng.integers(0, 2, shape).astype(kind.numpy)
              for name, (kind, shape) in specs.items()}
    tensors = {name: mlgpu.tensor(value) for name, value in values.items()}
    safetensors.write(path, tensors, {})
    found = safetensors.read(path).arrays
    assert set(found) == set(values)
    for name, value in values.items():
        assert dtypes.from_numpy(found[name].dtype) is specs[name][0]
        np.testing.assert_array_equal(found[name], value)
