"""Objects in images, with boxes and masks, from annotations in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset
from mlgpu.data.images import read_image
from mlgpu.data.run_lengths import decode_mask
from mlgpu.errors import FormatError, ShapeError
from mlgpu.ops.creation import zeros
from mlgpu.ops.interop import from_numpy
from mlgpu.ops.join import stack
from mlgpu.tensor import Tensor

__all__ = ["CocoDetection", "collate_detection"]

Target = dict[str, Any]


class CocoDetection(Dataset[tuple[Any, Any]]):
    """(image (3, H, W) uint8, objects) of a folder of images and COCO's file of annotations.

    The objects of an image, n of them, are a dict as torchvision's detection models take it:
    "boxes" (n, 4) float32, x0 y0 x1 y1 in pixels; "labels" (n,) int64, numbers into `classes`, the
    names of the categories in the order of their ids, `category_ids`; "area" (n,) float32;
    "iscrowd" (n,) int64; "image_id", an int; and with `masks` "masks" (n, H, W) uint8.  Images come
    in the order of their ids, those without objects too.  `transform` is given the image,
    `target_transform` the dict, `transforms` both, after those.  Batches: `collate_detection`.
    Raises FormatError for a file that is not of this kind.
    """

    def __init__(self, root: PathLike, annFile: PathLike,
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Target], Any] | None = None,
                 transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None, *,
                 masks: bool = False, loader: Callable[[Path], Any] = read_image) -> None:
        self.root, self.masks, self.loader = Path(root), masks, loader
        self.transform, self.target_transform = transform, target_transform
        self.transforms = transforms
        try:
            with open(annFile, encoding="utf-8") as file:
                found = json.load(file)
            self._take(found["images"], found["annotations"], found["categories"])
        except FormatError as error:
            raise FormatError(f"CocoDetection: {os.fspath(annFile)!r}: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"CocoDetection: {os.fspath(annFile)!r} has no annotations as COCO "
                              f"has them: {error!r}") from None

    def _take(self, images: list[Any], objects: list[Any], categories: list[Any]) -> None:
        """Keep as arrays, object by object in the order of the images, what is needed."""
        categories = sorted(categories, key=lambda category: int(category["id"]))
        self.category_ids = [int(category["id"]) for category in categories]
        self.classes = [str(category["name"]) for category in categories]
        images = sorted(images, key=lambda image: int(image["id"]))
        self.ids = [int(image["id"]) for image in images]
        self.files = [str(image["file_name"]) for image in images]
        label = {number: at for at, number in enumerate(self.category_ids)}
        of_image = {number: at for at, number in enumerate(self.ids)}
        for one in objects:
            if one["image_id"] not in of_image or one["category_id"] not in label:
                raise FormatError(f"the annotation {one.get('id')} is of the image "
                                  f"{one['image_id']} and category {one['category_id']}, and one "
                                  "of them is not there")
        objects = sorted(objects, key=lambda one: of_image[one["image_id"]])
        boxes = np.array([one["bbox"] for one in objects], np.float32).reshape(-1, 4)
        if len(boxes) != len(objects) or not np.isfinite(boxes).all() or (boxes[:, 2:] < 0).any():
            raise FormatError("each annotation must have a bbox of x, y, width and height")
        self._boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        self._labels = np.array([label[one["category_id"]] for one in objects], np.int64)
        self._crowds = np.array([one.get("iscrowd", 0) for one in objects], np.int64)
        self._areas = np.array([one.get("area", w * h) for one, (_, _, w, h)
                                in zip(objects, boxes, strict=True)], np.float32)
        self._outlines = [one["segmentation"] for one in objects] if self.masks else []
        counts = np.bincount([of_image[one["image_id"]] for one in objects] or np.empty(0, int),
                             minlength=len(images))
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.ids)

    def target(self, index: int) -> Target:
        """The objects of an image but for their masks, without reading the image."""
        at = place("CocoDetection", index, len(self))
        rows = self._rows(at)
        return {"image_id": self.ids[at], **{
            name: from_numpy(values[rows].copy()) for name, values in (
                ("boxes", self._boxes), ("labels", self._labels), ("area", self._areas),
                ("iscrowd", self._crowds))}}

    def _rows(self, at: int) -> slice:
        return slice(int(self._ends[at - 1]) if at else 0, int(self._ends[at]))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        at = place("CocoDetection", index, len(self))
        image, target = self.loader(self.root / self.files[at]), self.target(at)
        if self.masks:
            height, width = image.shape[-2:]
            shapes = [decode_mask(outline, height, width)
                      for outline in self._outlines[self._rows(at)]]
            target["masks"] = stack(shapes) if shapes else zeros(
                0, height, width, dtype=dtypes.uint8, device="cpu")
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return (image, target) if self.transforms is None else self.transforms(image, target)


def collate_detection(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """A batch of images with different numbers of objects: images (B, C, H, W), a list of dicts.

    Smaller images are filled up with zeros to the right and below, so that boxes stay where they
    are; "size" in each dict is the image's own (height, width).  ShapeError for what is no image,
    or images with different channels.
    """
    images = [image for image, _ in batch]
    if any(image.ndim != 3 or image.shape[0] != images[0].shape[0] for image in images):
        raise ShapeError("collate_detection: images must be (C, H, W) with the same channels, got "
                         f"{[tuple(image.shape) for image in images]}")
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    height, width = map(max, zip(*sizes, strict=True))
    out = zeros(len(images), images[0].shape[0], height, width, dtype=images[0].dtype,
                device=images[0].device)
    for room, image, (h, w) in zip(out, images, sizes, strict=True):
        room[:, :h, :w] = image
    return out, [{**target, "size": size} for (_, target), size in zip(batch, sizes, strict=True)]
