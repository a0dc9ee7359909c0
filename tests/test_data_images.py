"""Folders of texts and images, masks, and objects with boxes in COCO's format."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest

import mlgpu
from mlgpu import data
from mlgpu.errors import FormatError, PositionError, ShapeError


@pytest.fixture
def save():
    image = pytest.importorskip("PIL.Image", reason="needs mlgpu[data]")

    def save(path, pixels, mode=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = image.fromarray(np.asarray(pixels, np.uint8))
        if mode == "P":
            made = image.fromarray(np.asarray(pixels, np.uint8)).convert("P")
            made.putdata(np.asarray(pixels, np.uint8).ravel().tolist())
            made.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        made.save(path)

    return save


def colour(height, width, value=0):
    return np.full((height, width, 3), value)


def test_text_folders(tmp_path):
    for name, text in (("bad/b.txt", "no"), ("bad/deep/a.txt", "né"), ("good/a.TXT", "yes")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "good" / "readme.md").write_text("no sample")
    folder = data.TextFolder(tmp_path, str.upper, lambda y: -y)
    assert folder.classes == ["bad", "good"]
    assert list(folder) == [("NO", 0), ("NÉ", 0), ("YES", -1)]
    assert list(pickle.loads(pickle.dumps(data.TextFolder(tmp_path))))[2] == ("yes", 1)
    (tmp_path / "good" / "a.TXT").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"a\.TXT is no text in utf-8"):
        folder[2]
    assert data.TextFolder(tmp_path, encoding="latin1")[2] == ("ÿ", 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(FormatError, match=r"TextFolder: .*none has no file that ends in \.txt"):
        data.TextFolder(tmp_path)


def test_images_from_bytes(tmp_path, save):
    save(tmp_path / "x.png", colour(2, 3, 7))
    raw = (tmp_path / "x.png").read_bytes()
    for given in (raw, mlgpu.tensor(list(raw), dtype=mlgpu.uint8)):
        assert data.decode_image(given).tolist() == data.read_image(tmp_path / "x.png").tolist()
    assert data.decode_image(raw, "L").shape == (1, 2, 3)
    with pytest.raises(FormatError, match="'7 bytes' is no image"):
        data.decode_image(b"nothing")
    noise = io.BytesIO()
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(
        noise, "JPEG")
    with pytest.raises(FormatError, match="is damaged"):
        data.decode_image(noise.getvalue()[:-300])


def test_several_labels(tmp_path, save):
    save(tmp_path / "a.png", colour(2, 2, 1))
    save(tmp_path / "b.png", colour(2, 2, 2))
    items = [("a.png", ["sky", "sea"]), ("b.png", []), ("a.png", ("sea",))]
    images = data.MultiLabelImages(items, root=tmp_path)
    assert images.classes == ["sea", "sky"]
    assert [target.tolist() for _, target in images] == [[1, 1], [0, 0], [1, 0]]
    image, target = images[1]
    assert image.tolist() == np.full((3, 2, 2), 2).tolist()
    assert target.dtype is mlgpu.float32
    wider = data.MultiLabelImages(items, ["ice", "sky", "sea"], lambda x: x.shape, sum,
                                  root=tmp_path)
    assert wider[0] == ((3, 2, 2), 2.0)
    with pytest.raises(FormatError, match=r"\['sky'\] are not among the classes \['sea'\]"):
        data.MultiLabelImages(items, ["sea"])
    with pytest.raises(PositionError, match="index 3"):
        images[3]


def test_segmentation(tmp_path, save):
    mask = np.array([[0, 1, 2], [2, 1, 0]])
    save(tmp_path / "images" / "a.png", colour(2, 3, 5))
    save(tmp_path / "masks" / "a.png", mask)
    save(tmp_path / "images" / "in" / "b.bmp", colour(2, 3, 6))
    save(tmp_path / "masks" / "in" / "b.png", mask, "P")
    folder = data.SegmentationFolder(tmp_path / "images", tmp_path / "masks")
    assert len(folder) == 2
    for image, found in folder:
        assert image.shape == (3, 2, 3)
        assert found.tolist() == mask.tolist()
        assert found.dtype is mlgpu.int64
    both = data.SegmentationFolder(
        tmp_path / "images", tmp_path / "masks", lambda x: x[:1], lambda y: y * 10,
        lambda x, y: (x.flip(-1), y.flip(-1)))
    image, found = both[0]
    assert image.shape == (1, 2, 3)
    assert found.tolist() == (mask[:, ::-1] * 10).tolist()
    save(tmp_path / "masks" / "in" / "b.png", mask[:1])
    with pytest.raises(ShapeError, match=r"is \(2, 3\) pixels.*\(1, 3\)"):
        folder[1]
    save(tmp_path / "masks" / "in" / "b.png", colour(2, 3))
    with pytest.raises(FormatError, match="has 3 channels; a mask has one"):
        folder[1]
    save(tmp_path / "images" / "c.png", colour(2, 3))
    with pytest.raises(FormatError, match="alone is c"):
        data.SegmentationFolder(tmp_path / "images", tmp_path / "masks")
    save(tmp_path / "images" / "c.bmp", colour(2, 3))
    with pytest.raises(FormatError, match=r"c\.(png|bmp) and .*c\.(bmp|png) have one name"):
        data.SegmentationFolder(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="there are none"):
        data.SegmentationFolder(tmp_path / "empty", tmp_path / "empty")


# --- masks ----------------------------------------------------------------------------------------


def test_run_lengths():
    """The last two texts are what pycocotools writes of these masks."""
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (3, 5), (40, 30), (0, 4)):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = (generator.random(shape) < share).astype(np.uint8)
            code = data.encode_rle(mlgpu.from_numpy(mask))
            np.testing.assert_array_equal(data.decode_mask(code, *shape).numpy(), mask)
            ends = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0))
            counts = np.diff([0, *ends, mask.size]).tolist()
            np.testing.assert_array_equal(
                data.decode_mask({"counts": counts, "size": list(shape)}, *shape).numpy(), mask)
    square = np.zeros((9, 10), bool)
    square[2:6, 3:8] = True
    for mask, text in ((square, "m0450000000`0"), (np.ones((70, 60), bool), "0XS4")):
        assert data.encode_rle(mlgpu.from_numpy(mask))["counts"] == text
        size = {"size": list(mask.shape)}
        for counts in (text, text.encode()):
            assert (data.decode_mask({"counts": counts, **size}, *mask.shape).numpy() == mask).all()


def test_polygons():
    # Corners at whole pixels: the very square.  Shared edges: each pixel in one of them.
    square = data.decode_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 4, 6).numpy()
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 1:4] = 1
    np.testing.assert_array_equal(square, expected)
    left, right = ([-5, -5, 3.3, -5, 4.9, 99, -5, 99], [3.3, -5, 99, -5, 99, 99, 4.9, 99])
    halves = [data.decode_mask([part], 20, 9).numpy() for part in (left, right)]
    np.testing.assert_array_equal(sum(halves), np.ones((20, 9)))
    np.testing.assert_array_equal(data.decode_mask([left, right, left], 20, 9).numpy(),
                                  np.ones((20, 9)))
    # A star crosses itself: what it goes around twice is out.
    angles = np.arange(5) * 4 * np.pi / 5
    star = np.stack([50 + 40 * np.sin(angles), 50 - 40 * np.cos(angles)], 1)
    mask = data.decode_mask([star.ravel().tolist()], 100, 100).numpy()
    assert (mask[50, 50], mask[20, 50], mask[5, 5]) == (0, 1, 0)
    circle = np.linspace(0, 2 * np.pi, 500)
    disc = np.stack([30 + 20.0 * np.cos(circle), 30 + 20.0 * np.sin(circle)], 1)
    y, x = np.mgrid[:60, :60] + 0.5
    np.testing.assert_array_equal(data.decode_mask([disc.ravel().tolist()], 60, 60).numpy(),
                                  np.hypot(x - 30, y - 30) < 20)


@pytest.mark.parametrize("segmentation", [
    "text", 3, None, [[1, 1, 2, 2]], [[1, 1, 2, 2, 3]], [[1, 1, 2, 2, 3, float("nan")]],
    [["a"] * 6],
    {"counts": [1, 2], "size": [2, 2]}, {"counts": [5, -1], "size": [2, 2]},
    {"counts": [4], "size": [4, 1]}, {"counts": "4\x00", "size": [2, 2]}, {"size": [2, 2]},
    {"counts": "o" * 40, "size": [2, 2]}, {"counts": ["a"], "size": [2, 2]}])
def test_masks_that_are_none(segmentation):
    with pytest.raises(FormatError, match="decode_mask"):
        data.decode_mask(segmentation, 2, 2)


# --- COCO -----------------------------------------------------------------------------------------


def annotations():
    return {
        "images": [{"id": 9, "file_name": "b.png"}, {"id": 2, "file_name": "a.png"},
                   {"id": 5, "file_name": "a.png"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 0, 2, 3], "area": 5.5,
             "iscrowd": 0, "segmentation": [[1, 0, 3, 0, 3, 3, 1, 3]]},
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2], "iscrowd": 1,
             "segmentation": {"counts": [0, 2, 2, 2, 6], "size": [4, 3]}},
            {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0.5, 1, 1, 1],
             "segmentation": {"counts": "05", "size": [3, 5]}}]}


@pytest.fixture
def coco(tmp_path, save):
    save(tmp_path / "a.png", colour(4, 3, 1))
    save(tmp_path / "b.png", colour(3, 5, 2))
    (tmp_path / "x.json").write_text(json.dumps(annotations()))
    return tmp_path


def test_objects(coco):
    objects = data.CocoDetection(coco, coco / "x.json")
    assert objects.classes == ["person", "dog"]
    assert objects.category_ids == [1, 18]
    assert [target["image_id"] for _, target in objects] == [2, 5, 9]
    image, target = objects[2]
    assert image.shape == (3, 3, 5)
    assert target["boxes"].tolist() == [[1, 0, 3, 3], [0.5, 1, 1.5, 2]]
    assert target["labels"].tolist() == [1, 0]
    assert target["area"].tolist() == [5.5, 1.0]
    assert objects[0][1]["iscrowd"].tolist() == [1]
    _, nothing = objects[1]
    assert {name: tuple(nothing[name].shape) for name in ("boxes", "labels", "area")} == {
        "boxes": (0, 4), "labels": (0,), "area": (0,)}
    target["boxes"].zero_()
    assert objects.target(2)["boxes"].tolist()[0] == [1, 0, 3, 3]
    with pytest.raises(PositionError, match="CocoDetection: index 3"):
        objects.target(3)


def test_masks_of_objects(coco):
    text = annotations()
    text["annotations"][2]["segmentation"] = {"counts": [15], "size": [3, 5]}
    (coco / "x.json").write_text(json.dumps(text))
    objects = data.CocoDetection(coco, coco / "x.json", masks=True)
    masks = objects[2][1]["masks"]
    assert masks.dtype is mlgpu.uint8
    expected = np.zeros((2, 3, 5))
    expected[0, :, 1:3] = 1
    np.testing.assert_array_equal(masks.numpy(), expected)
    assert objects[0][1]["masks"].tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]]
    assert objects[1][1]["masks"].shape == (0, 4, 3)
    assert pickle.loads(pickle.dumps(objects))[2][1]["masks"].tolist() == masks.tolist()


def test_batches_of_objects(coco):
    objects = data.CocoDetection(coco, coco / "x.json", lambda x: x.float(),
                                 lambda t: {"boxes": t["boxes"]},
                                 lambda x, t: (x + 1, {**t, "seen": True}))
    loader = data.DataLoader(objects, batch_size=3, collate_fn=data.collate_detection)
    images, targets = next(iter(loader))
    assert images.shape == (3, 3, 4, 5)
    assert images[0, 0].tolist() == [[2, 2, 2, 0, 0]] * 4
    assert images[2, 1].tolist() == [[3] * 5] * 3 + [[0] * 5]
    assert [len(target["boxes"]) for target in targets] == [1, 0, 2]
    assert [target["size"] for target in targets] == [(4, 3), (4, 3), (3, 5)]
    assert all(target["seen"] for target in targets)
    with pytest.raises(ShapeError, match="the same channels"):
        data.collate_detection([(mlgpu.ones(3, 2, 2), {}), (mlgpu.ones(1, 2, 2), {})])


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("images"), "'images'"),
    (lambda t: t["annotations"][0].pop("bbox"), "'bbox'"),
    (lambda t: t["annotations"][0].update(bbox=[1, 2, 3]), "annotations as COCO has them"),
    (lambda t: t["annotations"][0].update(bbox=[1, 2, -3, 4]), "x, y, width and height"),
    (lambda t: t["annotations"][0].update(image_id=7), "annotation 1 is of the image 7"),
    (lambda t: t["annotations"][0].update(category_id=7), "category 7"),
    (lambda t: t.update(annotations=3), "annotations as COCO has them")])
def test_annotations_that_are_none(coco, change, message):
    text = annotations()
    change(text)
    (coco / "x.json").write_text(json.dumps(text))
    with pytest.raises(FormatError, match=rf"CocoDetection: .*x\.json.*{message}"):
        data.CocoDetection(coco, coco / "x.json")


def test_a_file_that_is_no_json(coco):
    (coco / "x.json").write_text("[1, 2")
    with pytest.raises(FormatError, match=r"CocoDetection: .*x\.json"):
        data.CocoDetection(coco, coco / "x.json")
