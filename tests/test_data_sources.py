"""Where samples come from, what is made of them, and how they get to a device."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from guide import ROOT, Section, run, sections

import mlgpu
from mlgpu import data
from mlgpu.data import transforms as T
from mlgpu.errors import DTypeError, FormatError, MissingExtraError, PositionError, ShapeError


def test_numpy_arrays_are_mapped(tmp_path):
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    rows = data.NumpyDataset(tmp_path / "x.npy", tmp_path / "y.npy")
    assert len(rows) == 4
    assert rows[-1][0].tolist() == [9.0, 10.0, 11.0]
    before = mlgpu.memory.stats("cpu").allocated
    sample = rows[1]
    assert mlgpu.memory.stats("cpu").allocated - before <= 8  # a view: only the 0-d label is copied
    sample[0].fill_(7.0)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)
    batches = list(data.DataLoader(rows, batch_size=3))
    assert [tuple(b[0].shape) for b in batches] == [(3, 3), (1, 3)]
    with pytest.raises(PositionError, match="index 4 is out of range for 4"):
        rows[4]
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(FormatError, match=r"bad.npy"):
        data.NumpyDataset(tmp_path / "bad.npy")
    np.save(tmp_path / "z.npy", np.arange(3))
    with pytest.raises(ShapeError, match="first dimensions must agree"):
        data.NumpyDataset(tmp_path / "x.npy", tmp_path / "z.npy")


def test_safetensors_shards_are_one_dataset(tmp_path):
    paths = []
    for number, rows in enumerate((3, 2)):
        paths.append(tmp_path / f"{number}.safetensors")
        mlgpu.save({"x": mlgpu.arange(rows * 2.0).reshape(rows, 2) + 10 * number,
                    "y": mlgpu.arange(rows)}, paths[-1])
    shards = data.SafetensorsDataset(paths)
    assert len(shards) == 5
    assert shards[3]["x"].tolist() == [10.0, 11.0]
    assert shards[-1]["y"].item() == 1
    again = pickle.loads(pickle.dumps(shards))
    assert again[2]["x"].tolist() == [4.0, 5.0]
    mlgpu.save({"x": mlgpu.ones(2, 3), "y": mlgpu.arange(2)}, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match="of the kinds of"):
        data.SafetensorsDataset([paths[0], tmp_path / "other.safetensors"])


def test_tokens_cross_shards(tmp_path):
    texts = [range(7), np.arange(7, 8), range(8, 25)]
    assert data.write_tokens(tmp_path / "t", texts, shard=10) == 25
    assert len(list((tmp_path / "t").glob("tokens-*.bin"))) == 3
    pieces = data.TokenDataset(tmp_path / "t", length=6)
    assert len(pieces) == 4
    for number in range(4):
        x, y = pieces[number]
        assert x.tolist() == list(range(6 * number, 6 * number + 6))
        assert y.tolist() == list(range(6 * number + 1, 6 * number + 7))
    assert x.dtype is mlgpu.int64
    assert len(data.TokenDataset(tmp_path / "t", 6, stride=1)) == 19
    loader = data.DataLoader(pieces, batch_size=2, num_workers=1)
    assert [x[0, 0].item() for x, _ in loader] == [0, 12]
    data.write_tokens(tmp_path / "t", [[1, 2, 3]])  # replaces what was there
    assert len(list((tmp_path / "t").glob("tokens-*.bin"))) == 1
    with pytest.raises(DTypeError, match="from 0 to 65535"):
        data.write_tokens(tmp_path / "t", [[9] * 4, [70000]], shard=2)  # after two whole shards
    assert data.TokenDataset(tmp_path / "t", 2)[0][0].tolist() == [1, 2]
    with pytest.raises(ShapeError, match="has 3 tokens"):
        data.TokenDataset(tmp_path / "t", 3)
    with pytest.raises(FormatError, match="write_tokens"):
        data.TokenDataset(tmp_path, 3)


def test_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('name,age,"size, cm"\n"Ada ""A""",36,1.5\n"two\nlines",4,2\n\nBob,7,3\n')
    rows = data.CSVDataset(path)
    assert len(rows) == 3
    assert rows[0] == {"name": 'Ada "A"', "age": 36, "size, cm": 1.5}
    assert rows[1]["name"] == "two\nlines"
    assert rows[-1] == {"name": "Bob", "age": 7, "size, cm": 3.0}
    assert data.CSVDataset(path, ["age"])[0] == {"age": 36}
    assert data.CSVDataset(path, {"age": float})[1] == {"age": 4.0}
    batch = next(iter(data.DataLoader(data.CSVDataset(path, ["age"]), batch_size=3)))
    assert batch["age"].tolist() == [36, 4, 7]
    with pytest.raises(FormatError, match="no column"):
        data.CSVDataset(path, ["weight"])
    with pytest.raises(FormatError, match=r"row 0 of .* column 'name'"):
        data.CSVDataset(path, {"name": int})[0]
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(FormatError, match=r"row 1 .* has 1 cells"):
        data.CSVDataset(path)


def test_parquet(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet", reason="needs mlgpu[data]")
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": list(range(10)), "v": [[float(i), 1.0] for i in range(10)],
                      "s": [str(i) for i in range(10)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    rows = data.ParquetDataset(tmp_path / "t.parquet")
    assert len(rows) == 10
    found = list(rows)
    assert [row["x"] for row in found] == list(range(10))
    np.testing.assert_array_equal(found[4]["v"], [4.0, 1.0])
    assert list(data.ParquetDataset([tmp_path / "t.parquet"], ["s"]))[2] == {"s": "2"}
    loader = data.DataLoader(data.ParquetDataset(tmp_path / "t.parquet", ["x"]), batch_size=None,
                             num_workers=2)
    assert sorted(row["x"] for row in loader) == list(range(10))  # each row once


def test_the_extra_is_named(monkeypatch):
    import mlgpu.extras

    def missing(module):
        raise ModuleNotFoundError(name=module.partition(".")[0])

    monkeypatch.setattr(mlgpu.extras, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[data\]'"):
        data.ParquetDataset("t.parquet")
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[data\]'"):
        data.read_image("t.png")


def test_image_folders(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs mlgpu[data]")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for name in ("cat", "dog"):
        (tmp_path / name / "more").mkdir(parents=True)
        image.fromarray(pixels).save(tmp_path / name / "b.png")
        image.fromarray(pixels[::-1].copy()).save(tmp_path / name / "more" / "a.bmp")
    folder = data.ImageFolder(tmp_path, T.ToDtype(mlgpu.float32, scale=True))
    assert folder.classes == ["cat", "dog"]
    assert folder.targets == [0, 0, 1, 1]
    x, y = folder[2]
    assert y == 1
    np.testing.assert_allclose(x.numpy(), pixels.transpose(2, 0, 1) / np.float32(255))
    assert data.read_image(tmp_path / "cat" / "b.png", "L").shape == (1, 2, 4)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"bad.png"):
        data.read_image(tmp_path / "cat" / "bad.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"empty has no file that ends in \.bmp"):
        data.ImageFolder(tmp_path)


class Squares(data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        if not 0 <= index < 10:
            raise IndexError(index)
        return index * index


def test_derived_datasets():
    base = Squares()
    assert list(data.MappedDataset(base, lambda x: x + 1))[:3] == [1, 2, 5]
    assert list(data.FilteredDataset(base, lambda x: x % 2)) == [1, 9, 25, 49, 81]
    shuffled = data.ShuffledDataset(base, mlgpu.Generator().manual_seed(3))
    assert sorted(shuffled) == list(base)
    assert list(shuffled) == list(shuffled) != list(base)
    drawn = data.SampledDataset(base, 30, replacement=True)
    assert len(drawn) == 30
    assert set(drawn) <= set(base)
    windows = data.WindowDataset(base, 3, 2)
    assert len(windows) == 4
    assert windows[-1] == [36, 49, 64]
    assert len(data.WindowDataset(base, 11)) == 0
    with pytest.raises(ShapeError, match="cannot draw 11 of 10"):
        data.SampledDataset(base, 11)


def test_streams():
    stream = data.StreamDataset(lambda: iter(range(20)))
    assert list(stream.map(lambda x: x * 2).filter(lambda x: x % 3 == 0).take(3)) == [0, 6, 12]
    assert list(stream.window(4, 5)) == [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13],
                                         [15, 16, 17, 18]]
    order = list(stream.shuffle(5, seed=1))
    assert sorted(order) == list(range(20))
    assert order == list(stream.shuffle(5, seed=1)) != list(stream.shuffle(5, seed=2))
    assert all(sample <= place + 5 for place, sample in enumerate(order))  # none comes too early


# --- transforms ----------------------------------------------------------------------------------


IMAGE = mlgpu.arange(60, dtype=mlgpu.uint8).reshape(3, 4, 5)
FLOAT = IMAGE.float() / 60


def test_transforms_that_are_certain():
    assert T.ToDtype(mlgpu.float32, scale=True)(IMAGE).max().item() == pytest.approx(59 / 255)
    normal = T.Normalize([0.5, 0.5, 0.5], [2.0, 2.0, 2.0])(FLOAT)
    np.testing.assert_allclose(normal.numpy(), (FLOAT.numpy() - 0.5) / 2, rtol=1e-6)
    assert T.Resize((8, 10))(IMAGE).dtype is mlgpu.uint8
    assert T.Resize(2)(FLOAT).shape == (3, 2, 2)
    np.testing.assert_array_equal(T.CenterCrop(2)(IMAGE).numpy(), IMAGE.numpy()[:, 1:3, 1:3])
    gray = T.Grayscale()(FLOAT)
    np.testing.assert_allclose(gray.numpy()[0], np.tensordot([0.299, 0.587, 0.114], FLOAT.numpy(),
                                                             1), rtol=1e-5)
    assert T.Compose([T.RandomHorizontalFlip(1.0), T.RandomVerticalFlip(1.0)])(
        IMAGE).numpy().tolist() == IMAGE.numpy()[:, ::-1, ::-1].tolist()
    np.testing.assert_array_equal(T.RandomRotation(0.0)(FLOAT).numpy(), FLOAT.numpy())


@pytest.mark.parametrize("transform", [
    T.RandomCrop(3, padding=1), T.RandomResizedCrop((4, 4)), T.RandomHorizontalFlip(),
    T.RandomRotation(30.0), T.ColorJitter(0.5, 0.5, 0.5), T.RandomErasing(1.0, value=9.0),
    T.RandomApply([T.CenterCrop(2)])], ids=lambda t: type(t).__name__)
def test_transforms_that_draw(transform):
    """The same from the same seed, different from others; of batches as of images."""
    results = []
    for seed in (0, 0, *range(1, 9)):
        mlgpu.manual_seed(seed)
        results.append(transform(FLOAT).numpy().copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert any(r.shape != results[0].shape or (r != results[0]).any() for r in results[2:])
    mlgpu.manual_seed(0)
    batch = transform(mlgpu.stack([FLOAT, FLOAT]))
    np.testing.assert_allclose(batch[1].numpy(), results[0], atol=1e-6)


def test_a_quarter_turn():
    transform = T.RandomRotation(90.0, mode="nearest")
    square = mlgpu.arange(9.0).reshape(1, 3, 3)
    import mlgpu.data.transforms as module

    before, module._draw = module._draw, lambda low=0.0, high=1.0: high
    try:
        turned = transform(square)
    finally:
        module._draw = before
    assert turned.numpy()[0].tolist() in (np.rot90(square.numpy()[0]).tolist(),
                                          np.rot90(square.numpy()[0], -1).tolist())


def test_mixing():
    mlgpu.manual_seed(1)
    images, labels = mlgpu.rand(4, 3, 6, 6), mlgpu.tensor([0, 1, 2, 1])
    for mix in (T.MixUp(3, alpha=0.4), T.CutMix(3)):
        mixed, targets = mix(images, labels)
        np.testing.assert_allclose(targets.sum(1).numpy(), np.ones(4), rtol=1e-6)
        share = targets[0, 0].item()
        assert 0.0 <= share <= 1.0
        if isinstance(mix, T.MixUp):
            np.testing.assert_allclose(mixed[0].numpy(), share * images[0].numpy()
                                       + (1 - share) * images[3].numpy(), rtol=1e-5)
        else:
            same = (mixed[0] == images[0]).float().mean().item()
            assert same == pytest.approx(share, abs=1e-6)
    draws = [T._beta(0.3) for _ in range(2000)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.05)
    assert np.var(draws) == pytest.approx(0.25 / 1.6, rel=0.15)


@pytest.mark.parametrize(("transform", "image", "error", "message"), [
    (T.Normalize([0.5], [1.0]), IMAGE, DTypeError, "put ToDtype"),
    (T.Normalize([0.5, 0.5], [1.0, 1.0]), FLOAT, ShapeError, "2 channels expected"),
    (T.CenterCrop(9), IMAGE, ShapeError, "is smaller than"),
    (T.RandomCrop(9), IMAGE, ShapeError, "is smaller than"),
    (T.Grayscale(), IMAGE[:2], ShapeError, "1 or 3 channels"),
    (T.Resize(3), IMAGE[0], ShapeError, "expected an image"),
], ids=["bytes", "channels", "center", "crop", "gray", "plane"])
def test_what_transforms_refuse(transform, image, error, message):
    with pytest.raises(error, match=message):
        transform(image)


def test_prefetching(device):
    batches = [{"x": mlgpu.full((3,), float(i), device="cpu"), "y": (mlgpu.tensor(i, device="cpu"),
                                                                   "text")} for i in range(5)]
    found = list(data.Prefetcher(batches, device))
    assert len(data.Prefetcher(batches, device)) == 5
    assert [b["x"].device.type for b in found] == [device.partition(":")[0]] * 5
    assert [(b["x"] + 1).tolist() for b in found] == [[i + 1.0] * 3 for i in range(5)]
    assert found[2]["y"][1] == "text"
    with pytest.raises(ValueError, match="at least 1"):
        data.Prefetcher(batches, device, ahead=0)


def test_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = [block for section in sections(text) for block in section.blocks]
    run(Section("all of it", blocks), "data.md", "")
