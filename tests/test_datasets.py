"""Well-known data sets: fetching and unpacking them, and reading their formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import threading
import wave
import zipfile

import numpy as np
import pytest
from webserver import Site

import mlgpu
from mlgpu import data
from mlgpu.data import datasets
from mlgpu.data.datasets.archive import gunzip, unpack
from mlgpu.data.datasets.download import obtain
from mlgpu.errors import FormatError, MissingDataError, PositionError, ShapeError

BYTES = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    yield site
    site.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- transfers ------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(site, tmp_path):
    site.files["/a/x.bin"] = BYTES
    wanted = tmp_path / "deep" / "x.bin"
    for _ in range(2):
        found = obtain("Set", wanted, f"{site.url}/a/x.bin", download=True, size=len(BYTES),
                       checksum=f"sha256:{hashlib.sha256(BYTES).hexdigest()}")
        assert found.read_bytes() == BYTES
    assert len(site.asked) == 1
    assert names(wanted.parent) == [".lock", "x.bin"]


def test_a_broken_transfer_goes_on(site, tmp_path):
    site.files["/x.bin"] = BYTES
    site.cut = [100_000, 50_000]
    obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True, checksum=md5(BYTES))
    assert (tmp_path / "x.bin").read_bytes() == BYTES
    assert [headers.get("Range") for _, headers in site.asked] == [
        None, "bytes=100000-", "bytes=150000-"]
    assert names(tmp_path) == [".lock", "x.bin"]


def test_a_later_program_goes_on(site, tmp_path):
    site.files["/x.bin"] = BYTES
    site.cut = [1000, 1000, 1000]
    with pytest.raises(MissingDataError, match=r"x.bin could not be fetched.*it ended after 3000 of"
                                               r" 300000 bytes.*put it there as"):
        obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True)
    assert not (tmp_path / "x.bin").exists()
    obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True)
    assert (tmp_path / "x.bin").read_bytes() == BYTES
    assert site.asked[-1][1]["Range"] == "bytes=3000-"


@pytest.mark.parametrize("fault", ["another version", "no parts", "no versions"])
def test_it_begins_anew_where_it_must(site, tmp_path, fault):
    """Halves of different versions are never put together."""
    site.files["/x.bin"] = BYTES[::-1]
    site.cut = [1000] * 3
    site.tags = fault != "no versions"
    with pytest.raises(MissingDataError):
        obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True)
    site.ranges = fault != "no parts"
    site.files["/x.bin"] = BYTES
    obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True)
    assert (tmp_path / "x.bin").read_bytes() == BYTES


def test_all_had_come_before(site, tmp_path):
    site.files["/x.bin"] = BYTES
    (tmp_path / "x.bin.part").write_bytes(BYTES)
    (tmp_path / "x.bin.part.tag").write_text(f'"{hash(BYTES)}"')
    obtain("Set", tmp_path / "x.bin", f"{site.url}/x.bin", download=True, checksum=md5(BYTES))
    assert (tmp_path / "x.bin").read_bytes() == BYTES


def test_another_file_is_refused_and_mirrors_are_tried(site, tmp_path):
    site.files |= {"/bad/x.bin": b"something else", "/good/x.bin": BYTES}
    with pytest.raises(FormatError, match=r"Set: .*x.bin should have the md5 .* and has"):
        obtain("Set", tmp_path / "x.bin", f"{site.url}/bad/x.bin", download=True,
               checksum=md5(BYTES))
    with pytest.raises(FormatError, match="should have 300000 bytes, and has 14"):
        obtain("Set", tmp_path / "x.bin", f"{site.url}/bad/x.bin", download=True, size=len(BYTES))
    assert names(tmp_path) == [".lock"]
    obtain("Set", tmp_path / "x.bin", [f"{site.url}/{place}/x.bin" for place in
                                       ("none", "bad", "good")], download=True, checksum=md5(BYTES))
    assert (tmp_path / "x.bin").read_bytes() == BYTES
    assert [path for path, _ in site.asked[2:]] == ["/none/x.bin", "/bad/x.bin", "/good/x.bin"]


def test_without_a_connection_it_says_what_to_do(site, tmp_path):
    url = site.url
    with pytest.raises(MissingDataError, match=r"x.bin is not there; download=True") as caught:
        obtain("Set", tmp_path / "x.bin", f"{url}/x.bin", download=False)
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(MissingDataError, match="404") as caught:
        obtain("Set", tmp_path / "x.bin", f"{url}/x.bin", download=True)
    assert str(caught.value).count("404") == 1
    assert f"put it there as {tmp_path / 'x.bin'}" in str(caught.value)
    with pytest.raises(ValueError, match="https://"):
        obtain("Set", tmp_path / "x.bin", f"file://{tmp_path}/y", download=True)


def test_tokens_stay_with_their_server(site, tmp_path):
    elsewhere = site.url.replace("127.0.0.1", "localhost")
    site.files |= {"/x": (302, {"Location": f"{elsewhere}/y"}, b""), "/y": BYTES}
    obtain("Set", tmp_path / "x", f"{site.url}/x", download=True, token="secret")
    assert [headers.get("Authorization") for _, headers in site.asked] == ["Bearer secret", None]


def test_many_at_once_fetch_once(site, tmp_path):
    site.files["/x.gz"] = gzip.compress(BYTES)
    threads = [threading.Thread(target=obtain, args=("Set", tmp_path / "x", f"{site.url}/x.gz"),
                                kwargs={"download": True, "unpack": gunzip}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 1
    assert (tmp_path / "x").read_bytes() == BYTES
    assert names(tmp_path) == [".lock", "x"]


# --- archives -------------------------------------------------------------------------------------


def tarred(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("make", [tarred, zipped])
def test_archives(tmp_path, make):
    path = make(tmp_path / "a", {"top/x/1": b"one", "top/2": b"two", "other/3": b"three"})
    unpack(path, tmp_path / "all")
    assert (tmp_path / "all" / "top" / "x" / "1").read_bytes() == b"one"
    unpack(path, tmp_path / "top", inside="top")
    assert names(tmp_path / "top") == ["2", "x"]
    with pytest.raises(FormatError, match="holds nothing in none"):
        unpack(path, tmp_path / "none", inside="none")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError):
        unpack(path, tmp_path / "torn")
    assert names(tmp_path) == ["a", "all", "top"]


@pytest.mark.parametrize("members", [
    {"x": b"1", "../out": b"2"}, {"x": b"1", "/out": b"2"}, {"a/../../out": b"1"},
    {"C:\\out": b"1"}, {"x": (tarfile.SYMTYPE, "/etc/passwd")}, {"x": (tarfile.LNKTYPE, "y")},
    {"x": (tarfile.CHRTYPE, "")}, {"x": (tarfile.FIFOTYPE, "")}, {"x": b"1", "./x": b"2"}],
    ids=["up", "root", "up again", "drive", "link", "hard link", "device", "pipe", "twice"])
def test_archives_that_lead_out(tmp_path, members):
    (tmp_path / "in").mkdir()
    with pytest.raises(FormatError):
        unpack(tarred(tmp_path / "a.tar", members, "w"), tmp_path / "in" / "folder")
    assert names(tmp_path) == ["a.tar", "in"]
    assert names(tmp_path / "in") == []


# --- the sets -------------------------------------------------------------------------------------


def idx(array):
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    shape = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, code, array.ndim]) + shape + array.astype(
        array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx(tmp_path, dtype):
    values = np.arange(-6, 6).reshape(3, 2, 2).astype(dtype)
    (tmp_path / "x").write_bytes(idx(values))
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(values)))
    for name in ("x", "x.gz"):
        found = datasets.read_idx(tmp_path / name).numpy()
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    for wrong in (b"", b"\0\0\x08", b"\1\0\x08\1" + bytes(8), b"\0\0\x07\1\0\0\0\1\0",
                  idx(values)[:-1], idx(values) + b"\0"):
        (tmp_path / "x").write_bytes(wrong)
        with pytest.raises(FormatError, match="read_idx"):
            datasets.read_idx(tmp_path / "x")
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(values))[:-5])
    with pytest.raises(FormatError, match="damaged"):
        datasets.read_idx(tmp_path / "x.gz")


PIXELS = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
LABELS = np.array([7, 1, 0], np.uint8)


@pytest.mark.parametrize("kind", [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST])
def test_mnist(site, tmp_path, monkeypatch, kind):
    files = {"t10k-images-idx3-ubyte": gzip.compress(idx(PIXELS)),
             "t10k-labels-idx1-ubyte": gzip.compress(idx(LABELS))}
    site.files |= {f"/m/{name}.gz": content for name, content in files.items()}
    monkeypatch.setattr(kind, "mirrors", [f"{site.url}/gone/", f"{site.url}/m/"])
    assert set(kind.md5) > set(files)
    assert all(len(bytes.fromhex(digest)) == 16 for digest in kind.md5.values())
    with pytest.raises(FormatError, match="md5"):
        kind(tmp_path, train=False, download=True)
    monkeypatch.setattr(kind, "md5", {n: md5(c).partition(":")[2] for n, c in files.items()})
    with pytest.raises(MissingDataError, match=rf"{kind.__name__}: .*download=True"):
        kind(tmp_path, train=False)
    kind(tmp_path, train=False, download=True)
    digits = kind(tmp_path, False, lambda x: x.float() / 255, lambda y: -y)
    image, label = digits[-2]
    assert image.shape == (1, 28, 28)
    np.testing.assert_array_equal(image.numpy()[0], PIXELS[1] / np.float32(255))
    assert (label, len(digits), len(digits.classes)) == (-1, 3, 10)
    assert digits.targets.tolist() == [7, 1, 0]
    with pytest.raises(PositionError, match=f"{kind.__name__}: index 3"):
        digits[3]
    digits.data.fill_(0)  # a map of its own: the file is as it was
    assert kind(tmp_path, train=False)[0][0].sum().item() == PIXELS[0].sum()
    assert names(digits.raw_folder) == [".lock", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def test_mnist_is_mapped_and_may_be_put_there_by_hand(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    many = np.zeros((20_000, 28, 28), np.uint8)
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(many))
    labels = gzip.compress(idx(np.arange(20_000) .astype(np.uint8)))
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(FormatError, match="another file"):
        datasets.MNIST(tmp_path, train=False)
    monkeypatch.setattr(datasets.MNIST, "md5", {"t10k-labels-idx1-ubyte": md5(labels)[4:],
                                                "t10k-images-idx3-ubyte": ""})
    before = mlgpu.memory.stats("cpu").allocated
    digits = datasets.MNIST(tmp_path, train=False)
    assert mlgpu.memory.stats("cpu").allocated - before < 1_000_000  # of 15.7 million of pixels
    images, _ = next(iter(data.DataLoader(digits, batch_size=4)))
    assert images.shape == (4, 1, 28, 28)
    assert (raw / "t10k-labels-idx1-ubyte.gz").exists()  # what was put there stays
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(ShapeError, match="and their N classes"):
        datasets.MNIST(tmp_path, train=False)


COLOURS = np.random.default_rng(1).integers(0, 256, (6, 3072), np.uint8)


def cifar_archive(coarse):
    """The members of the archive, and what torchvision's folder has instead."""
    fine = np.arange(6, dtype=np.uint8)
    labels = np.stack([fine[::-1], fine], 1) if coarse else fine[:, None]
    records = [np.concatenate([labels[i:i + 1], COLOURS[i:i + 1]], 1).tobytes() for i in range(6)]
    if coarse:
        return {"cifar-100-binary/train.bin": b"".join(records[:5]),
                "cifar-100-binary/test.bin": records[5],
                "cifar-100-binary/fine_label_names.txt": b"\n".join(b"f%d" % i for i in range(6)),
                "cifar-100-binary/coarse_label_names.txt": b"\n".join(b"c%d" % i for i in range(6))}
    return {**{f"cifar-10-batches-bin/data_batch_{i + 1}.bin": records[i] for i in range(5)},
            "cifar-10-batches-bin/test_batch.bin": records[5],
            "cifar-10-batches-bin/batches.meta.txt": b"\n".join(b"f%d" % i for i in range(6))}


@pytest.mark.parametrize("kind", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar(site, tmp_path, monkeypatch, kind):
    coarse = kind is datasets.CIFAR100
    archive = tarred(tmp_path / "made", cifar_archive(coarse)).read_bytes()
    site.files["/c.tar.gz"] = archive
    monkeypatch.setattr(kind, "url", f"{site.url}/c.tar.gz")
    monkeypatch.setattr(kind, "md5", md5(archive)[4:])
    found = kind(tmp_path / "root", download=True)
    assert names(tmp_path / "root") == [".lock", kind.folder]
    np.testing.assert_array_equal(found.data.numpy().reshape(5, -1), COLOURS[:5])
    assert found.targets.tolist() == [0, 1, 2, 3, 4]
    assert found.classes == [f"f{i}" for i in range(6)]
    image, label = kind(tmp_path / "root", train=False, target_transform=str)[0]
    np.testing.assert_array_equal(image.numpy().ravel(), COLOURS[5])
    assert (image.shape, label) == ((3, 32, 32), "5")
    if coarse:
        assert found.coarse_targets.tolist() == [5, 4, 3, 2, 1]
        assert found.coarse_classes[0] == "c0"
    path = tmp_path / "root" / kind.folder / kind.files[False][0]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(FormatError, match="no number of records"):
        kind(tmp_path / "root", train=False)
    path.write_bytes(b"\x63" * (2 if coarse else 1) + content[2 if coarse else 1:])
    with pytest.raises(FormatError, match="the class 99 of 6"):
        kind(tmp_path / "root", train=False)


def python2_pickle(pixels, labels):
    """A batch as its authors' Python wrote it: strings of bytes, which Python 3 never writes."""
    def string(text):
        return b"U" + bytes([len(text)]) + text

    def number(value):
        return b"J" + int(value).to_bytes(4, "little")

    return b"".join([
        b"\x80\x02}(", string(b"data"), b"cnumpy.core.multiarray\n_reconstruct\n",
        b"(cnumpy\nndarray\n", number(0), b"\x85", string(b"b"), b"tR(", number(1),
        *map(number, pixels.shape), b"\x86", b"cnumpy\ndtype\n(", string(b"u1"), number(0),
        number(1), b"tR(", number(3), string(b"|"), b"NNN", b"J\xff\xff\xff\xff" * 2, number(0),
        b"tb\x89T", pixels.size.to_bytes(4, "little"), pixels.tobytes(), b"tb",
        string(b"labels"), b"](", *map(number, labels), b"eu."])


def test_cifar_as_torchvision_leaves_it(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(
        {"data": COLOURS, "labels": [0, 1, 2, 1, 0, 2]}, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c"]}, 2))
    found = datasets.CIFAR10(tmp_path, train=False)
    np.testing.assert_array_equal(found.data.numpy().reshape(6, -1), COLOURS)
    assert found.targets.tolist() == [0, 1, 2, 1, 0, 2]
    assert found.classes == ["a", "b", "c"]
    (folder / "test_batch").write_bytes(python2_pickle(COLOURS, [2, 1]))
    with pytest.raises(FormatError, match="6 images and 2 labels"):
        datasets.CIFAR10(tmp_path, train=False)
    (folder / "test_batch").write_bytes(python2_pickle(COLOURS[:2], [2, 1]))
    found = datasets.CIFAR10(tmp_path, train=False)
    np.testing.assert_array_equal(found.data.numpy().reshape(2, -1), COLOURS[:2])
    for wrong in ({"data": print}, {"data": COLOURS, "labels": [1]}, {"data": COLOURS}, [1],
                  {"data": COLOURS.astype(np.int32), "labels": [1] * 6}):
        (folder / "test_batch").write_bytes(pickle.dumps(wrong, 2))
        with pytest.raises(FormatError, match="test_batch"):
            datasets.CIFAR10(tmp_path, train=False)


def test_ag_news(site, tmp_path, monkeypatch):
    text = '"3","Oil, again","Prices ""rise"" \\ fall"\n"1","Née","x"\n'.encode()
    site.files["/test.csv"] = text
    monkeypatch.setattr(datasets.AG_NEWS, "url", f"{site.url}/")
    monkeypatch.setattr(datasets.AG_NEWS, "md5", {"test.csv": md5(text)[4:]})
    news = datasets.AG_NEWS(tmp_path, train=False, download=True)
    assert list(news) == [('Oil, again Prices "rise" \\ fall', 2), ("Née x", 0)]
    assert news.classes[2] == "Business"
    (tmp_path / "AG_NEWS" / "test.csv").write_text('"5","a","b"\n')
    with pytest.raises(FormatError, match=r"row 0 .* class from 1 to 4"):
        datasets.AG_NEWS(tmp_path, train=False)


def wav(values, width, rate=16000):
    """A file of numbers (frames, channels) of so many bytes."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        raw = (values + 128 * (width == 1)).astype("<i8").reshape(-1, 1).view(np.uint8)
        file.writeframes(np.ascontiguousarray(raw[:, :width]).tobytes())
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav(tmp_path, width):
    top = 2 ** (8 * width - 1)
    values = np.array([[0, -top], [top - 1, 1], [top // 2, -1]])
    (tmp_path / "x.wav").write_bytes(wav(values, width, 8000))
    sound, rate = data.read_wav(tmp_path / "x.wav")
    assert (rate, sound.dtype) == (8000, mlgpu.float32)
    np.testing.assert_array_equal(sound.numpy(), (values.T / top).astype(np.float32))
    for wrong in (b"", b"RIFF", wav(values, width)[:-1], wav(values, width)[:30]):
        (tmp_path / "x.wav").write_bytes(wrong)
        with pytest.raises(FormatError, match=r"read_wav: .*x\.wav"):
            data.read_wav(tmp_path / "x.wav")


def test_speech_commands(site, tmp_path, monkeypatch):
    sounds = {f"{word}/{who}_nohash_0.wav": wav(np.full((4 + n, 1), 1000 * n), 2)
              for n, (word, who) in enumerate([("yes", "a1"), ("no", "a1"), ("no", "b2"),
                                               ("yes", "c3")])}
    archive = tarred(tmp_path / "made", {
        **{f"./{name}": content for name, content in sounds.items()},
        "./_background_noise_/rain.wav": wav(np.ones((9, 1)), 2),
        "./validation_list.txt": b"no/b2_nohash_0.wav\n",
        "./testing_list.txt": b"yes/c3_nohash_0.wav\n"}).read_bytes()
    site.files["/s.tar.gz"] = archive
    monkeypatch.setattr(datasets.SpeechCommands, "url", f"{site.url}/s.tar.gz")
    monkeypatch.setattr(datasets.SpeechCommands, "sha256", hashlib.sha256(archive).hexdigest())
    words = datasets.SpeechCommands(tmp_path, download=True)
    assert words.classes == ["no", "yes"]
    assert [y for _, y in words] == [0, 1]
    sound, _ = words[0]
    np.testing.assert_array_equal(sound.numpy(), np.full((1, 5), 1000 / 32768, np.float32))
    assert words.speaker(0) == "a1"
    assert [path.name for path in words.noises] == ["rain.wav"]
    sizes = {s: len(datasets.SpeechCommands(tmp_path, s)) for s in ("validation", "testing", None)}
    assert sizes == {"validation": 1, "testing": 1, None: 4}
    with pytest.raises(ValueError, match="subset must be"):
        datasets.SpeechCommands(tmp_path, "train")
    words.folder.joinpath("testing_list.txt").write_text("yes/gone.wav")
    with pytest.raises(FormatError, match=r"lacks sounds .* yes/gone.wav"):
        datasets.SpeechCommands(tmp_path, "testing")


def test_tiny_stories(site, tmp_path, monkeypatch):
    text = "\nOne day.\n<|endoftext|>\nA cat — é.\n<|endoftext|>\nLast\n".encode()
    site.files["/TinyStoriesV2-GPT4-valid.txt"] = text
    monkeypatch.setattr(datasets.TinyStories, "url", f"{site.url}/")
    monkeypatch.setattr("mlgpu.data.datasets.stories._PIECE", 5)  # through signs and separators
    pieces = datasets.TinyStories(tmp_path, train=False, length=8, download=True)
    stories = ["One day.", "A cat — é.", "Last"]
    tokens = "\0".join([*stories, ""]).encode()
    assert pieces[0][0].tolist() == list(tokens[:8])
    assert pieces[0][1].tolist() == list(tokens[1:9])
    again = pickle.loads(pickle.dumps(pieces))
    assert again[1][0].tolist() == list(tokens[8:16])
    words = {}

    def tokenizer(story):
        return [words.setdefault(word, len(words)) for word in [*story.split(), "end"]]

    pieces = datasets.TinyStories(tmp_path, train=False, length=3, tokenizer=tokenizer,
                                  name="words")
    assert pieces[0][0].tolist() == [0, 1, 2]
    assert pieces[1][0].tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="needs a name"):
        datasets.TinyStories(tmp_path, train=False, length=3, tokenizer=tokenizer)
    for wrong in (b"no story", b"\xff\xff<|endoftext|>"):
        (tmp_path / "TinyStories" / "TinyStoriesV2-GPT4-train.txt").write_bytes(wrong)
        with pytest.raises(FormatError, match="TinyStories"):
            datasets.TinyStories(tmp_path, length=3)


def hub_pages(site, files):
    """What the hub says of files, a name -> bytes, each page of one entry."""
    folders = {}
    for path in files:
        parts = path.split("/")
        for depth in range(len(parts)):
            folders.setdefault("/".join(parts[:depth]), set()).add("/".join(parts[:depth + 1]))
    top = "/api/datasets/who/what/tree/refs%2Fconvert%2Fparquet"
    for folder, entries in folders.items():
        for number, path in enumerate(sorted(entries)):
            entry = {"type": "directory", "path": path} if path not in files else {
                "type": "file", "path": path, "size": 130,
                "lfs": {"oid": hashlib.sha256(files[path]).hexdigest(), "size": len(files[path])}}
            url = f"{top}{f'/{folder}' if folder else ''}"
            more = {"Link": f'<https://hub.example{url}?cursor={number + 1}>; rel="next"'}
            site.files[f"{url}?cursor={number}" if number else url] = (
                200, more if number + 1 < len(entries) else {}, json.dumps([entry]).encode())
    for path, content in files.items():
        site.files[f"/datasets/who/what/resolve/refs%2Fconvert%2Fparquet/{path}"] = content


def test_from_hub(site, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow", reason="needs mlgpu[data]")
    import pyarrow.parquet as pq

    def parquet(low, high):
        out = io.BytesIO()
        pq.write_table(pa.table({"x": list(range(low, high)), "y": ["s"] * (high - low)}), out)
        return out.getvalue()

    files = {"main/train/0000.parquet": parquet(0, 4), "main/train/0001.parquet": parquet(4, 6),
             "main/test/0000.parquet": parquet(6, 7)}
    hub_pages(site, files)
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    rows = datasets.from_hub("who/what", root=tmp_path, columns=["x"])
    assert [row["x"] for row in rows] == list(range(6))
    assert {headers["Authorization"] for _, headers in site.asked} == {"Bearer secret"}
    count = len(site.asked)
    again = datasets.from_hub("who/what", root=tmp_path, download=False)
    assert list(again)[5] == {"x": 5, "y": "s"}
    assert len(site.asked) == count  # nothing was asked again
    assert len(datasets.from_hub("who/what", "test", root=tmp_path)) == 1
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\], and no 'dev'"):
        datasets.from_hub("who/what", "dev", root=tmp_path)
    with pytest.raises(ValueError, match=r"configurations \['main'\], and no 'other'"):
        datasets.from_hub("who/what", root=tmp_path, config="other")
    with pytest.raises(ValueError, match="owner/name"):
        datasets.from_hub("../what", root=tmp_path)
    with pytest.raises(MissingDataError, match="404"):
        datasets.from_hub("who/else", root=tmp_path)
    with pytest.raises(MissingDataError, match="not there"):
        datasets.from_hub("who/else", root=tmp_path, download=False)
    hub_pages(site, {"main/odd/..\\x.parquet": b""})
    with pytest.raises(FormatError, match="no plain name"):
        datasets.from_hub("who/what", "odd", root=tmp_path)
    hub_pages(site, {"other/train/0000.parquet": b"", **files})
    with pytest.raises(ValueError, match=r"\['main', 'other'\]; choose one by config="):
        datasets.from_hub("who/what", root=tmp_path / "new")
    site.files["/datasets/who/what/resolve/refs%2Fconvert%2Fparquet/main/test/0000.parquet"] = b"?"
    with pytest.raises(FormatError, match=r"should have \d+ bytes, and has 1"):
        datasets.from_hub("who/what", "test", root=tmp_path / "new", config="main")


# --- made up --------------------------------------------------------------------------------------


def test_fake_data():
    fake = datasets.FakeData(5, (1, 4, 4), 3, random_offset=10)
    state = mlgpu.get_rng_state()
    image, label = fake[2]
    assert (mlgpu.get_rng_state() == state).all()  # nothing of the program's was drawn
    assert image.shape == (1, 4, 4)
    assert image.dtype is mlgpu.uint8
    assert 0 <= label < 3
    assert fake[-3][0].tolist() == image.tolist() == datasets.FakeData(
        99, (1, 4, 4), 3, random_offset=0)[12][0].tolist()
    assert fake[3][0].tolist() != image.tolist()
    assert len(list(fake)) == 5


@pytest.mark.parametrize("count", [100, 7, (3, 5)])
@pytest.mark.parametrize("make", [datasets.make_moons, datasets.make_circles])
def test_moons_and_circles(count, make):
    points, classes = make(count, shuffle=False)
    sizes = count if isinstance(count, tuple) else (count // 2, count - count // 2)
    assert classes.tolist() == [0] * sizes[0] + [1] * sizes[1]
    outer, inner = np.split(points.numpy().astype(np.float64), [sizes[0]])
    if make is datasets.make_moons:  # half of a circle each, from end to end
        assert outer[:, 1].min() > -1e-6
        assert inner[:, 1].max() < 0.5 + 1e-6
        np.testing.assert_allclose(inner[[0, -1]], [[0, 0.5], [2, 0.5]], atol=1e-6)
        inner = inner - [1, 0.5]
    radius = 1.0 if make is datasets.make_moons else 0.8
    np.testing.assert_allclose(np.hypot(*outer.T), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(*inner.T), radius, rtol=1e-6)
    seeded = [make(count, noise=0.1, generator=mlgpu.Generator().manual_seed(seed))
              for seed in (1, 1, 2)]
    assert seeded[0][0].tolist() == seeded[1][0].tolist() != seeded[2][0].tolist()
    assert sorted(seeded[0][1].tolist()) == classes.tolist()
    generator = mlgpu.Generator().manual_seed(1)
    moved = make(count, noise=0.1, shuffle=False, generator=generator)[0].numpy() - points.numpy()
    assert 0.02 < np.abs(moved).max() < 0.6


def test_blobs():
    generator = mlgpu.Generator().manual_seed(3)
    points, classes = datasets.make_blobs(3000, centers=[[0.0, 5.0], [9.0, 0.0]],
                                          cluster_std=[1.0, 0.1], generator=generator)
    assert classes.bincount().tolist() == [1500, 1500]
    for number, (center, spread) in enumerate([((0, 5), 1.0), ((9, 0), 0.1)]):
        cloud = points.numpy()[classes.numpy() == number]
        np.testing.assert_allclose(cloud.mean(0), center, atol=0.1)
        np.testing.assert_allclose(cloud.std(0), spread, rtol=0.1)
    points, classes = datasets.make_blobs([2, 5], 4, generator=generator, shuffle=False)
    assert points.shape == (7, 4)
    assert classes.tolist() == [0] * 2 + [1] * 5
    with pytest.raises(ShapeError, match="3 centres need"):
        datasets.make_blobs(5, cluster_std=[1.0])
