"""CIFAR-10 and CIFAR-100, from their files of fixed records or, where those lie there, pickles.

The pickles are read without executing anything (`cifar_pickled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlgpu.data.arrays import PathLike
from mlgpu.data.datasets.archive import unpack
from mlgpu.data.datasets.cifar_pickled import read_batch
from mlgpu.data.datasets.download import obtain
from mlgpu.data.datasets.labelled import LabelledDataset, Transform
from mlgpu.errors import FormatError
from mlgpu.ops.interop import from_numpy

__all__ = ["CIFAR10", "CIFAR100"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class CIFAR10(LabelledDataset):
    """Colour images in ten classes: (image (3, 32, 32) uint8, 0 to 9), 50,000 and 10,000 of them.

    As torchvision's, but images are tensors: `data` (N, 3, 32, 32) uint8, `targets` (N,) int64.
    They are read from `<root>/cifar-10-batches-bin` or, where that is not there, from the
    `cifar-10-batches-py` that torchvision leaves.  download: fetch what is not there; without it
    MissingDataError says what is missing.  (Krizhevsky, "Learning multiple layers of features from
    tiny images", 2009.)
    """

    folder = "cifar-10-batches-bin"
    pickled_folder, pickled_meta = "cifar-10-batches-py", "batches.meta"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    md5 = "c32a1d4ab5d03f1284b67883e8d87530"
    files: ClassVar[Mapping[bool, list[str]]] = {True: [f"data_batch_{i}.bin" for i in range(1, 6)],
                                                False: ["test_batch.bin"]}
    # The bytes before the pixels of a record; the last of them is the class.
    labels: Sequence[str] = ("labels",)
    names: ClassVar[Mapping[str, str]] = {"labels": "batches.meta.txt"}

    def __init__(self, root: PathLike, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, train, transform, target_transform)
        if (pickles := self.root / self.pickled_folder).is_dir() \
                and not (self.root / self.folder).exists():
            parts = [self._pickled(pickles / name.removesuffix(".bin"))
                     for name in self.files[train]]
            names = partial(self._pickled_names, pickles)
        else:
            folder = obtain(type(self).__name__, self.root / self.folder, self.url,
                            download=download, checksum=f"md5:{self.md5}",
                            unpack=partial(unpack, inside=self.folder))
            parts = [self._records(folder / name) for name in self.files[train]]
            names = partial(self._listed_names, folder)
        pixels, labels = zip(*parts, strict=True)
        self.data = from_numpy(np.concatenate(pixels).reshape(-1, *_SHAPE))
        numbers = np.concatenate(labels).astype(np.int64)
        for label, column in zip(self.labels, numbers.T, strict=True):
            self._take(label, names(label), column)

    def _take(self, label: str, names: list[str], numbers: np.ndarray[Any, Any]) -> None:
        """Keep one kind of labels with the names of its classes."""
        if numbers.max() >= len(names):
            raise FormatError(f"{type(self).__name__}: a file in {self.root} has the class "
                              f"{numbers.max()} of {len(names)}")
        values = from_numpy(np.ascontiguousarray(numbers))
        if label == self.labels[-1]:
            self.classes, self.targets = names, values
        else:
            self.coarse_classes, self.coarse_targets = names, values

    def _records(self, path: Path) -> tuple[Any, Any]:
        """Pixels (N, 3072) and labels of a file of records: labels, then planes of pixels."""
        raw = np.fromfile(path, np.uint8)
        count = len(self.labels)
        if not raw.size or raw.size % (count + _PIXELS):
            raise FormatError(f"{type(self).__name__}: {path} has {raw.size} bytes, which is no "
                              f"number of records of {count + _PIXELS}")
        rows = raw.reshape(-1, count + _PIXELS)
        return rows[:, count:], rows[:, :count]

    def _listed_names(self, folder: Path, label: str) -> list[str]:
        return (folder / self.names[label]).read_text(encoding="utf-8").split()

    def _pickled(self, path: Path) -> tuple[Any, Any]:
        """Pixels (N, 3072) and labels of a pickled batch."""
        batch = read_batch(path)
        try:
            pixels = batch["data"].reshape(-1, _PIXELS)
            labels = np.array([batch[label] for label in self.labels], np.uint8).T
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{type(self).__name__}: {path} is no batch of it: "
                              f"{error!r}") from None
        if len(pixels) != len(labels):
            raise FormatError(f"{type(self).__name__}: {path} has {len(pixels)} images and "
                              f"{len(labels)} labels")
        return pixels, labels

    def _pickled_names(self, folder: Path, label: str) -> list[str]:
        kind = f"{label.removesuffix('s')}_names"
        found = read_batch(folder / self.pickled_meta).get(kind)
        if not isinstance(found, list):
            raise FormatError(f"{type(self).__name__}: {folder / self.pickled_meta} has no {kind}")
        return [str(name) for name in found]


class CIFAR100(CIFAR10):
    """Colour images in a hundred classes: as CIFAR10, and
    `coarse_targets`, 0 to 19 (`coarse_classes`)."""

    folder = "cifar-100-binary"
    pickled_folder, pickled_meta = "cifar-100-python", "meta"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    files: ClassVar[Mapping[bool, list[str]]] = {True: ["train.bin"], False: ["test.bin"]}
    labels = ("coarse_labels", "fine_labels")
    names: ClassVar[Mapping[str, str]] = {
        "coarse_labels": "coarse_label_names.txt", "fine_labels": "fine_label_names.txt"}
