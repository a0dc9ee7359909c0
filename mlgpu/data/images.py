"""Images: files of them to tensors (C, H, W); folders by class, lists with several classes each,
and images with a class for each pixel."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset
from mlgpu.data.folders import ClassFolders
from mlgpu.errors import FormatError, ShapeError
from mlgpu.extras import require
from mlgpu.ops.creation import zeros
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["ImageFolder", "MultiLabelImages", "SegmentationFolder", "decode_image", "read_image",
           "read_mask"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

Transform = Callable[[Any], Any]


def read_image(path: PathLike, mode: str = "RGB") -> Tensor:
    """The pixels of a file as (channels, height, width) uint8; needs `mlgpu[data]` (Pillow).

    mode: Pillow's, such as "RGB", "RGBA" or "L" (grey).  FormatError for what is no image.
    """
    return _channels(_opened("read_image", path, os.fspath(path), mode))


def decode_image(input: bytes | Tensor, mode: str = "RGB") -> Tensor:
    """As `read_image`, of the bytes of a file: bytes, or a tensor of them (N,) uint8."""
    raw = input.numpy().tobytes() if isinstance(input, Tensor) else bytes(input)
    return _channels(_opened("decode_image", io.BytesIO(raw), f"{len(raw)} bytes", mode))


def read_mask(path: PathLike) -> Tensor:
    """The numbers in an image of one channel, as (height, width) int64: the class of each pixel.

    Grey levels as they are, and of an image with a palette the numbers of its colours.
    FormatError for images of several channels.
    """
    values = _opened("read_mask", path, os.fspath(path), None)
    if values.ndim != 2:
        raise FormatError(f"read_mask: {os.fspath(path)!r} has {values.shape[2]} channels; a mask "
                          "has one, which holds numbers of classes")
    return from_numpy(values.astype(np.int64))


def _opened(name: str, source: Any, words: str, mode: str | None) -> np.ndarray[Any, Any]:
    image = require("PIL.Image", "data", name)
    try:
        with image.open(source) as opened:
            return np.array(opened if mode is None else opened.convert(mode))  # a copy: writable
    except (image.UnidentifiedImageError, SyntaxError) as error:
        raise FormatError(f"{name}: {words!r} is no image that Pillow reads: {error}") from None
    except OSError as error:
        if error.errno is not None:  # the system's: no such file, no right to read it
            raise
        raise FormatError(f"{name}: {words!r} is damaged: {error}") from None


def _channels(pixels: np.ndarray[Any, Any]) -> Tensor:
    pixels = pixels.astype(np.uint8, copy=False)
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return from_numpy(np.ascontiguousarray(channels))


class ImageFolder(ClassFolders):
    """(image, class) of the files in a folder that has one folder for each class.

    Classes are numbered in the order of their names: `classes`, `class_to_idx`; `samples` lists
    (path, class).  An image is (3, H, W) uint8, as `read_image` gives it, or what `loader` makes of
    the path, then `transform`.  Names are torchvision's.  Raises FormatError where there is no
    class or a class has no image.
    """

    def __init__(self, root: PathLike, transform: Transform | None = None,
                 target_transform: Callable[[int], Any] | None = None,
                 loader: Callable[[Path], Any] = read_image) -> None:
        super().__init__(root, loader, SUFFIXES, transform, target_transform)


class MultiLabelImages(Dataset[tuple[Any, Any]]):
    """(image (3, H, W) uint8, (classes,) float32 of 0 and 1) of images with any number of labels.

    `items`: (path, names of its classes), paths from `root`.  `classes`: all names, in the order
    of the targets (default: those that occur, by name).  The targets are what BCEWithLogitsLoss
    takes.  Raises FormatError for a name that is not among the classes.
    """

    def __init__(self, items: Iterable[tuple[PathLike, Iterable[str]]],
                 classes: Sequence[str] | None = None, transform: Transform | None = None,
                 target_transform: Callable[[Tensor], Any] | None = None, *, root: PathLike = "",
                 loader: Callable[[Path], Any] = read_image) -> None:
        self.loader, self.transform, self.target_transform = loader, transform, target_transform
        self.samples = [(Path(root) / path, list(labels)) for path, labels in items]
        named = sorted({label for _, labels in self.samples for label in labels})
        self.classes = named if classes is None else list(classes)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        unknown = [label for label in named if label not in self.class_to_idx]
        if unknown:
            raise FormatError(f"MultiLabelImages: {unknown} are not among the classes "
                              f"{self.classes}")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, labels = self.samples[place("MultiLabelImages", index, len(self))]
        image = self.loader(path)
        target = zeros(len(self.classes), dtype=dtypes.float32, device="cpu")
        for label in labels:
            target[self.class_to_idx[label]] = 1.0
        return (image if self.transform is None else self.transform(image),
                target if self.target_transform is None else self.target_transform(target))


class SegmentationFolder(Dataset[tuple[Any, Any]]):
    """(image (3, H, W) uint8, class of each pixel (H, W) int64) of two folders of files.

    An image and its mask have the same name up to the suffix, at the same place in `images` and
    `masks`.  `transform` is given the image, `target_transform` the mask, `transforms` both, after
    those.  Raises FormatError where one has no partner, ShapeError where their sizes differ.
    """

    def __init__(self, images: PathLike, masks: PathLike, transform: Transform | None = None,
                 target_transform: Transform | None = None,
                 transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None) -> None:
        self.transform, self.target_transform = transform, target_transform
        self.transforms = transforms
        found, wanted = self._files(Path(images)), self._files(Path(masks))
        alone = sorted(found.keys() ^ wanted.keys())
        if alone or not found:
            raise FormatError(f"SegmentationFolder: each image of {images} needs a mask of its name"
                              f" in {masks}, and each mask an image; alone is "
                              f"{alone[0] if alone else 'nothing, for there are none'}")
        self.samples = [(found[name], wanted[name]) for name in sorted(found)]

    @staticmethod
    def _files(folder: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES:
                other = found.setdefault(str(path.relative_to(folder).with_suffix("")), path)
                if other is not path:
                    raise FormatError(f"SegmentationFolder: {other} and {path} have one name")
        return found

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, mask_path = self.samples[place("SegmentationFolder", index, len(self))]
        image: Any = read_image(path)
        mask: Any = read_mask(mask_path)
        if image.shape[1:] != mask.shape:
            raise ShapeError(f"SegmentationFolder: {path} is {tuple(image.shape[1:])} pixels, and "
                             f"{mask_path} {tuple(mask.shape)}")
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            mask = self.target_transform(mask)
        return (image, mask) if self.transforms is None else self.transforms(image, mask)
