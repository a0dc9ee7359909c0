"""MNIST and the sets of its format: small grey images in IDX files, mapped where they lie."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlgpu.data.arrays import PathLike
from mlgpu.data.datasets.archive import gunzip
from mlgpu.data.datasets.download import obtain
from mlgpu.data.datasets.labelled import LabelledDataset, Transform
from mlgpu.errors import FormatError, ShapeError
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["KMNIST", "MNIST", "FashionMNIST", "read_idx"]

# The third byte of a file: what its numbers are, the first byte of a number first.
_KINDS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: PathLike) -> Tensor:
    """The array of an IDX file (LeCun's format of MNIST), in its own shape and dtype.

    A file of bytes is mapped: nothing is read before it is used, writes do not reach the file.
    Numbers of several bytes, and a .gz file, are read.  FormatError for anything else.
    """
    name = os.fspath(path)
    if name.endswith(".gz"):
        with gzip.open(path, "rb") as file:
            try:
                raw = np.frombuffer(bytearray(file.read()), np.uint8)
            except (EOFError, OSError) as error:
                raise FormatError(f"read_idx: {name!r} is damaged: {error}") from None
    elif os.path.getsize(path):
        raw = np.memmap(path, np.uint8, "c")
    else:
        raw = np.empty(0, np.uint8)
    head = raw[:4].tobytes()
    kind = _KINDS.get(head[2]) if len(head) == 4 and head[:2] == b"\0\0" else None
    start = 4 + 4 * head[3] if kind else 0
    if kind is None or len(raw) < start:
        raise FormatError(f"read_idx: {name!r} is no IDX file")
    shape = tuple(raw[4:start].view(">u4").tolist())
    dtype = np.dtype(kind)
    if len(raw) != start + dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise FormatError(f"read_idx: {name!r} says that it holds {shape} numbers of "
                          f"{dtype.itemsize} bytes, and has {len(raw)} bytes in all")
    values = np.asarray(raw[start:])
    if dtype.itemsize > 1:
        values = np.frombuffer(values.tobytes(), dtype).astype(dtype.newbyteorder("="))
    return from_numpy(values.view(dtype.newbyteorder("=")).reshape(shape))


class MNIST(LabelledDataset):
    """Handwritten digits: (image (1, 28, 28) uint8, 0 to 9), 60,000 and 10,000 of them.

    As torchvision's, but images are tensors: `data` (N, 28, 28) uint8, mapped from
    `<root>/MNIST/raw`, and `targets` (N,) int64.  download: fetch what is not there; without it
    MissingDataError says what is missing.  (LeCun, Cortes, Burges, "The MNIST database".)
    """

    mirrors: Sequence[str] = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
                              "http://yann.lecun.com/exdb/mnist/")
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c"}
    classes = ("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six",
               "7 - seven", "8 - eight", "9 - nine")

    def __init__(self, root: PathLike, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, train, transform, target_transform)
        part = "train" if train else "t10k"
        self.data = read_idx(self._file(f"{part}-images-idx3-ubyte", download))
        self.targets = read_idx(self._file(f"{part}-labels-idx1-ubyte", download)).long()
        if self.data.ndim != 3 or self.targets.shape != self.data.shape[:1]:
            raise ShapeError(f"{type(self).__name__}: images (N, H, W) and their N classes were "
                             f"expected in {self.raw_folder}, got {tuple(self.data.shape)} and "
                             f"{tuple(self.targets.shape)}")

    @property
    def raw_folder(self) -> Path:
        """Where the files lie."""
        return self.root / type(self).__name__ / "raw"

    def _file(self, name: str, download: bool) -> Path:
        return obtain(type(self).__name__, self.raw_folder / name,
                      [f"{mirror}{name}.gz" for mirror in self.mirrors], download=download,
                      checksum=f"md5:{self.md5[name]}", unpack=gunzip)

    def _sample(self, at: int) -> Any:
        return self.data[at:at + 1]


class FashionMNIST(MNIST):
    """Articles of clothing in the format of MNIST (Xiao, Rasul, Vollgraf, 2017)."""

    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310"}
    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
               "Bag", "Ankle boot")


class KMNIST(MNIST):
    """Cursive Japanese characters in the format of MNIST (Clanuwat et al., 2018)."""

    mirrors = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134"}
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
