"""Images: folders of them as a dataset, to and from tensors (C, H, W)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset
from mlgpu.errors import FormatError
from mlgpu.extras import require
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["ImageFolder", "read_image"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(path: PathLike, mode: str = "RGB") -> Tensor:
    """The pixels of a file as (channels, height, width) uint8; needs `mlgpu[data]` (Pillow).

    mode: Pillow's, such as "RGB", "RGBA" or "L" (grey).  FormatError for what is no image.
    """
    image = require("PIL.Image", "data", "read_image")
    try:
        with image.open(path) as opened:
            pixels = np.array(opened.convert(mode), np.uint8)  # a copy: writable
    except (image.UnidentifiedImageError, SyntaxError) as error:
        raise FormatError(f"read_image: {os.fspath(path)!r} is no image that Pillow reads: "
                          f"{error}") from None
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return from_numpy(np.ascontiguousarray(channels))


class ImageFolder(Dataset[tuple[Any, int]]):
    """(image, class) of the files in a folder that has one folder for each class.

    Classes are numbered in the order of their names: `classes`, `class_to_idx`; `samples` lists
    (path, class).  An image is (3, H, W) uint8, as `read_image` gives it, or what `loader` makes of
    the path, then `transform`.  Names are torchvision's.  Raises FormatError where there is no
    class or a class has no image.
    """

    def __init__(self, root: PathLike, transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[int], Any] | None = None,
                 loader: Callable[[Path], Any] = read_image) -> None:
        self.root, self.loader = Path(root), loader
        self.transform, self.target_transform = transform, target_transform
        self.classes = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())
        if not self.classes:
            raise FormatError(f"ImageFolder: {self.root} has no folders, which name the classes")
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples: list[tuple[Path, int]] = []
        for name, number in self.class_to_idx.items():
            files = sorted(path for path in (self.root / name).rglob("*")
                           if path.suffix.lower() in SUFFIXES)
            if not files:
                raise FormatError(f"ImageFolder: {self.root / name} has no image "
                                  f"({', '.join(SUFFIXES)})")
            self.samples += [(path, number) for path in files]
        self.targets = [number for _, number in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, number = self.samples[place("ImageFolder", index, len(self))]
        image = self.loader(path)
        if self.transform is not None:
            image = self.transform(image)
        return image, number if self.target_transform is None else self.target_transform(number)
