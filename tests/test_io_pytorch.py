"""PyTorch's files of weights: what goes in comes out, PyTorch reads and writes the same, and a file
that is damaged or names code to run is refused without running it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu import nn
from mlgpu.errors import DeviceError, FormatError
from mlgpu.io import load_pytorch, save_pytorch
from mlgpu.io.pickled import PLAIN, Reader, Writer


def value():
    big = mlgpu.arange(20.0).view(4, 5)
    return {"model": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict(),
            "part": big[1:, 2:], "whole": big, "turned": big.t(), "none": None, "on": True,
            "ints": [0, 255, -1, 2**40, -2**70], "float": 1.5, "nan": float("inf"), "name": "é\0",
            "tuple": (1, ("a", ()), {}), "set": {1, 2}, "bytes": b"\xff",
            "complex": 1 + 2j, "count": Counter({3: 1}), "ordered": OrderedDict(a=1),
            "size": big.shape, "dtype": mlgpu.bfloat16, "device": mlgpu.Device("cpu"),
            "numpy": (np.float64(0.25), np.int32(7), np.bool_(True)),
            "parameter": nn.Parameter(mlgpu.ones(2)), "fixed": nn.Parameter(mlgpu.ones(2), False),
            "leaf": mlgpu.ones(2, requires_grad=True), "empty": mlgpu.zeros(0, 3),
            "scalar": mlgpu.tensor(3), "flags": mlgpu.tensor([True, False]),
            "dtypes": [mlgpu.ones(3, dtype=d) for d in mlgpu.dtypes.ALL]}


def same(found, expected):
    if isinstance(expected, mlgpu.Tensor):
        assert type(found) is type(expected)
        assert found.requires_grad == expected.requires_grad
        assert found.dtype is expected.dtype
        assert mlgpu.equal(found, expected)
    elif isinstance(expected, np.generic):
        assert found == expected.item()
        assert type(found) is type(expected.item())
    elif isinstance(expected, (dict, list, tuple)):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            found, expected = list(found.values()), list(expected.values())
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_what_goes_in_comes_out(tmp_path):
    given = value()
    save_pytorch(given, tmp_path / "x.pt")
    found = load_pytorch(tmp_path / "x.pt")
    same(found, given)
    assert found["model"]._metadata == given["model"]._metadata
    found["whole"][0, 0] = 77
    assert found["turned"][0, 0] == 77
    with open(tmp_path / "x.pt", "rb") as file:
        first = file.read()
    save_pytorch(given, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == first  # no moment is in it


def test_on_a_device(device):
    file = io.BytesIO()
    x = mlgpu.arange(6.0, device=device).view(2, 3)
    save_pytorch([x, x.t(), x[1]], file)
    found = load_pytorch(file, device)
    assert {str(t.device) for t in found} == {str(x.device)}
    assert [t.tolist() for t in found] == [x.tolist(), x.t().tolist(), x[1].tolist()]
    assert load_pytorch(file, "cpu")[0].is_cpu


def test_a_device_that_is_not_there_has_a_way_out(no_cuda):
    file = io.BytesIO()
    archive(file, pickled(tensor(location="cuda:0")), {"0": bytes(16)})
    with pytest.raises(DeviceError, match="map_location"):
        load_pytorch(file)
    assert load_pytorch(file, "cpu").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [nn.Linear(1, 1), object(), [{"a": {1: np.ones(2)}}], frozenset()],
                         ids=["module", "object", "array", "frozenset"])
def test_what_is_no_plain_value_is_named_and_leaves_the_target(bad, tmp_path):
    target = tmp_path / "x.pt"
    target.write_bytes(b"before")
    with pytest.raises(TypeError, match=r"save: .* is a .*state_dict"):
        save_pytorch({"a": bad}, target)
    assert [target.read_bytes(), os.listdir(tmp_path)] == [b"before", ["x.pt"]]


def test_a_value_that_contains_itself_is_written_and_read():
    given = [1]
    given.append(given)
    file = io.BytesIO()
    save_pytorch(given, file)
    found = load_pytorch(file)
    assert found[1] is found
    for _ in range(300):
        given = [given]
    with pytest.raises(ValueError, match="deep"):
        save_pytorch(given, file)


# --- files made by hand ---------------------------------------------------------------------------


class Named:
    """Pickled as the name of something, called with arguments where they are given."""

    def __init__(self, module, name, *arguments):
        self.name, self.arguments = f"{module} {name}", arguments


class Key:
    def __init__(self, *content):
        self.content = content


def pickled(value):
    def form(v):
        if isinstance(v, Key):
            return "persistent", v.content
        if not isinstance(v, Named):
            return None
        return ("reduce", v.name, v.arguments) if v.arguments else ("global", v.name)

    return Writer(form).write(value)


def archive(file, data, storages=(), **options):
    file.seek(0)
    file.truncate()
    with zipfile.ZipFile(file, "w", **options) as made:
        for name, content in {"x/data.pkl": data, **{f"x/data/{k}": v for k, v in
                                                     dict(storages).items()}}.items():
            made.writestr(name, content)


def tensor(kind="FloatStorage", key="0", location="cpu", numel=4, offset=0, size=(4,), stride=(1,),
           **more):
    stored = Key("storage", Named("torch", kind), key, location, numel)
    return Named("torch._utils", "_rebuild_tensor_v2", stored, offset, size, stride, False,
                 OrderedDict(), *more.values())


def test_the_files_of_this_file_are_otherwise_good():
    file = io.BytesIO()
    archive(file, pickled([tensor(), tensor(size=(2, 2), stride=(0, 1), offset=2)]),
            {"0": np.arange(4, dtype=np.float32).tobytes()})
    found = load_pytorch(file)
    assert [t.tolist() for t in found] == [[0, 1, 2, 3], [[2, 3], [2, 3]]]


RAN = []


class Evil:
    def __reduce__(self):
        return RAN.append, ("it ran",)


PICKLES = {
    "system": (Named("os", "system", "true"), "os.system"),
    "posix": (Named("posix", "system", "true"), "posix.system"),
    "eval": (Named("builtins", "eval", "1"), "builtins.eval"),
    "getattr": (Named("builtins", "getattr", "a", "b"), "builtins.getattr"),
    "module": (Named("torch.nn", "Linear"), "torch.nn.Linear"),
    "deep import": (Named("torch._utils", "_rebuild_tensor_v3"), "_rebuild_tensor_v3"),
    "numpy": (Named("numpy", "load"), "numpy.load"),
    "dtype as code": (Named("torch", "float32", 1), "no constructor"),
    "constructor as value": ([Named("collections", "OrderedDict")], "constructor"),
    "storage as value": ([Named("builtins", "list")], "constructor"),
    "encoding": (Named("_codecs", "encode", "a", "rot13"), "rot13"),
    "default factory": (Named("collections", "defaultdict", Named("collections", "Counter")),
                        "defaultdict"),
    "no storage": (Key("module", 1, 2, 3, 4), "no storage"),
    "short id": (Key("storage"), "damaged"),
    "key": (tensor(key="../../etc/passwd"), "lacks"),
    "number as key": (tensor(key=0), "no storage"),
    "location": (tensor(location=5), "no device"),
    "too many elements": (tensor(numel=5), "16 bytes"),
    "past the end": (tensor(offset=1), "20 bytes"),
    "far past": (tensor(stride=(2**40,)), "bytes into"),
    "overflow": (tensor(size=(2**62, 4), stride=(0, 1)), "impossible"),
    "negative size": (tensor(size=(-1,)), "impossible"),
    "negative stride": (tensor(stride=(-1,)), "impossible"),
    "negative offset": (tensor(offset=-1), "impossible"),
    "ranks": (tensor(stride=(1, 1)), "impossible"),
    "many dimensions": (tensor(size=(1,) * 65, stride=(1,) * 65), "impossible"),
    "size no number": (tensor(size=("a",)), "damaged"),
    "wider dtype": (tensor(kind="DoubleStorage"), "16 bytes"),
    "quantised": (tensor(kind="QInt8Storage"), "QInt8Storage"),
    "metadata": (tensor(metadata={"conj": True}), "kind"),
    "parameter of nothing": (Named("torch._utils", "_rebuild_parameter", 3, True, {}), "Parameter"),
    "device": (Named("torch", "device", "gpu"), "gpu"),
    "nested key": ({((1,),): 1}, "key"),
    "nested set": (Named("builtins", "set", [((),)]), "key"),
}


@pytest.mark.parametrize("case", list(PICKLES))
def test_hostile_values_are_refused(case):
    content, said = PICKLES[case]
    file = io.BytesIO()
    archive(file, pickled(content), {"0": bytes(16)})
    with pytest.raises(FormatError, match=said):
        load_pytorch(file)


RAW = {
    "a real exploit": (pickle.dumps(Evil(), 2), "__builtin__.getattr"),
    "attributes": (b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
                   "attributes"),
    "attributes of a list": (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "attributes"),
    "instance": (b"(cos\nsystem\no.", "os.system|OBJ"), "inst": (b"(ios\nsystem\n.", "INST"),
    "new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "extension": (b"\x80\x02\x82\x01.", "EXT1"), "empty": (b"", "damaged"),
    "no end": (b"\x80\x02K\x01", "damaged"), "two values": (b"\x80\x02K\x01K\x02.", "one value"),
    "after the end": (b"\x80\x02K\x01.K", "after its end"), "no value": (b"\x80\x02.", "one value"),
    "no stack": (b"\x80\x02R.", "stack"), "only a mark": (b"\x80\x02(.", "one value"),
    "no mark": (b"\x80\x02K\x01t.", "mark|damaged"), "memo": (b"\x80\x02h\x05.", "damaged"),
    "append to a number": (b"\x80\x02K\x01K\x02a.", "appends"),
    "odd items": (b"\x80\x02}(K\x01u.", "sets items"),
    "list as key": (b"\x80\x02}]K\x01s.", "key"),
    "long of a gigabyte": (b"\x80\x02\x8b\xff\xff\xff\x3f.", "damaged"),
    "text of a gigabyte": (b"\x80\x02X\xff\xff\xff\x3fa.", "damaged"),
}


@pytest.mark.parametrize("case", list(RAW))
def test_damaged_pickles_are_refused(case):
    data, said = RAW[case]
    file = io.BytesIO()
    archive(file, data)
    with pytest.raises(FormatError, match=said):
        load_pytorch(file)
    assert RAN == []


def test_archives_are_checked(tmp_path):
    good = pickled(1)

    def refused(said, **entries):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as made:
            for name, (content, how) in entries.items():
                made.writestr(name.replace("_", "/", 1).replace("_", "."), content, how)
        with pytest.raises(FormatError, match=said):
            load_pytorch(file)

    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    refused("compressed", x_data_pkl=(good, stored), x_a=(bytes(10**6), deflated))
    refused("no data.pkl", x_data=(good, stored))
    refused("no data.pkl", x_data_pkl=(good, stored), y_data_pkl=(good, stored))
    refused("endian", x_data_pkl=(good, stored), x_byteorder=(b"middle", stored))
    for content, said in ((b"", "zip"), (b"\x80\x02}q\x00.", "zip"), (b"PK\x05\x06", "zip")):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(FormatError, match=said):
            load_pytorch(tmp_path / "x.pt")
    file = io.BytesIO()
    archive(file, good)
    raw = file.getvalue()
    at = raw.rindex(b"PK\x01\x02")
    claimed = raw[:at + 20] + struct.pack("<II", 2**30, 2**30) + raw[at + 28:]
    with pytest.raises(FormatError, match="more bytes"):
        load_pytorch(io.BytesIO(claimed))
    with pytest.raises(FileNotFoundError):
        load_pytorch(tmp_path / "no.pt")


@given(st.binary(max_size=60), st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_refused(tail, at, byte):
    whole = bytearray(pickled([tensor(), {"a": (1, 2.5, None), "b": [{"c": "d"}]}]))
    whole[at % len(whole)] = byte
    for data in (b"\x80\x02" + tail, bytes(whole)):
        with suppress(FormatError):
            Reader(PLAIN, lambda key: None).read(data)


# --- with PyTorch ---------------------------------------------------------------------------------


def test_pytorch_reads_what_is_written_and_writes_what_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    given = value()
    save_pytorch(given, tmp_path / "ours.pt")
    theirs = torch.load(tmp_path / "ours.pt", weights_only=True)
    theirs["whole"][0, 0] = 5
    assert theirs["turned"][0, 0] == 5
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    model.load_state_dict(theirs["model"])
    given["whole"][0, 0] = 5
    for protocol in (2, 4):
        torch.save(theirs, tmp_path / "theirs.pt", pickle_protocol=protocol)
        same(load_pytorch(tmp_path / "theirs.pt"), {
            **given, "numpy": tuple(v.item() for v in given["numpy"])})


def test_an_optimizer_goes_on_from_pytorchs_file(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(3, 2)
    start = {k: v.clone() for k, v in theirs.state_dict().items()}
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.1)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)

    def step(model, optimizer, lib):
        model(lib.from_numpy(x)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(theirs, optimizer, torch)
    torch.save({"model": theirs.state_dict(), "optimizer": optimizer.state_dict()},
               tmp_path / "x.pt")
    loaded = load_pytorch(tmp_path / "x.pt")
    ours = nn.Linear(3, 2)
    ours.load_state_dict(loaded["model"])
    adamw = mlgpu.optim.AdamW(ours.parameters(), lr=0.1)
    adamw.load_state_dict(loaded["optimizer"])
    step(ours, adamw, mlgpu)
    step(theirs, optimizer, torch)
    assert not torch.equal(theirs.weight, start["weight"])
    np.testing.assert_allclose(ours.weight.detach().numpy(), theirs.weight.detach().numpy(),
                               rtol=1e-6)
