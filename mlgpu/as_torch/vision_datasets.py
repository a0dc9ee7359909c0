"""torchvision.datasets: digits and small images in the files that their authors publish, folders.

Nothing in a file is executed: the batches of CIFAR, which are pickles, are read by the machine of
`mlgpu.io.pickled`.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np

import mlgpu
from mlgpu.as_torch.hub import download_url_to_file
from mlgpu.data import Dataset
from mlgpu.errors import FormatError
from mlgpu.extras import require
from mlgpu.io.pickled import PLAIN, Builder, Reader

Transform = Callable[[Any], Any]


class VisionDataset(Dataset[Any]):
    """A data set with a folder, and transforms of its images and targets."""

    def __init__(self, root: str, transforms: Any = None, transform: Transform | None = None,
                 target_transform: Transform | None = None) -> None:
        self.root = os.path.expanduser(os.fspath(root))
        self.transform, self.target_transform = transform, target_transform

    def _pair(self, image: Any, target: Any) -> tuple[Any, Any]:
        return (image if self.transform is None else self.transform(image),
                target if self.target_transform is None else self.target_transform(target))


def _image(pixels: Any, mode: str | None = None) -> Any:
    return require("PIL.Image", "examples", "torchvision.datasets").fromarray(pixels, mode)


def read_idx(path: str) -> np.ndarray[Any, Any]:
    """The bytes of an IDX file, plain or compressed.  FormatError for anything else."""
    opener: Any = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as file:
        raw = file.read()
    dims = raw[3] if len(raw) > 3 else 0
    shape = tuple(np.frombuffer(raw[4:4 + 4 * dims], ">i4").tolist())
    if raw[:3] != b"\0\0\x08" or len(raw) != 4 + 4 * dims + int(np.prod(shape)):
        raise FormatError(f"{path!r} is no IDX file of bytes")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape).copy()


class MNIST(VisionDataset):
    """Handwritten digits of 28 x 28 (LeCun et al.), from `<root>/MNIST/raw`.

    `download` fetches what is not there; else FileNotFoundError says what is missing.
    """

    mirror = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    classes = ("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six",
               "7 - seven", "8 - eight", "9 - nine")

    def __init__(self, root: str, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train = train
        part = "train" if train else "t10k"
        images, labels = (self._file(f"{part}-{kind}-ubyte", download)
                          for kind in ("images-idx3", "labels-idx1"))
        self.data = mlgpu.from_numpy(read_idx(images))
        self.targets = mlgpu.from_numpy(read_idx(labels)).long()

    @property
    def raw_folder(self) -> str:
        """Where the files lie."""
        return os.path.join(self.root, type(self).__name__, "raw")

    def _file(self, name: str, download: bool) -> str:
        for path in (os.path.join(self.raw_folder, name), os.path.join(self.raw_folder,
                                                                       f"{name}.gz")):
            if os.path.exists(path):
                return path
        if not download:
            raise FileNotFoundError(f"{type(self).__name__}: {path!r} is not there; "
                                    "download=True fetches it")
        os.makedirs(self.raw_folder, exist_ok=True)
        download_url_to_file(f"{self.mirror}{name}.gz", path)
        return path

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._pair(_image(self.data[index].numpy()), int(self.targets[index]))


class FashionMNIST(MNIST):
    """Articles of clothing of 28 x 28 (Xiao et al., 2017)."""

    mirror = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
               "Bag", "Ankle boot")


class KMNIST(MNIST):
    """Cursive Japanese characters of 28 x 28 (Clanuwat et al., 2018)."""

    mirror = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class _PickledArray:
    """What stands for NumPy's array in a batch of CIFAR, until its state is set."""

    values: np.ndarray[Any, Any]


class _BatchReader(Reader):
    """Reads arrays of bytes as well."""

    def _set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, _PickledArray):
            _, shape, _, _, raw = state
            raw = raw.encode("latin1") if isinstance(raw, str) else raw
            target.values = np.frombuffer(raw, np.uint8).reshape(shape)
        elif target != "u1":  # whose state says nothing that bytes have
            super()._set_state(target, state)


def _dtype(name: str, *rest: Any) -> str:
    if name != "u1":
        raise FormatError(f"it has an array of {name!r}, and bytes are expected")
    return name


class _Array:
    """NumPy's class, as a name."""


_BATCH = {**PLAIN, "numpy ndarray": _Array(), "numpy dtype": Builder(_dtype), **{
    f"{module} _reconstruct": Builder(lambda *arguments: _PickledArray())
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")}}


class CIFAR10(VisionDataset):
    """Images of 32 x 32 in ten classes (Krizhevsky, 2009), from `<root>/cifar-10-batches-py`.

    `download` fetches what is not there; else FileNotFoundError says what is missing.
    """

    base_folder, labels = "cifar-10-batches-py", "labels"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    files = (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",))

    def __init__(self, root: str, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, None, transform, target_transform)
        self.train = train
        folder = os.path.join(self.root, self.base_folder)
        if download and not os.path.isdir(folder):
            self._fetch()
        parts = []
        self.targets: list[int] = []
        for name in self.files[0 if train else 1]:
            with open(os.path.join(folder, name), "rb") as file:
                batch = _BatchReader(_BATCH, lambda key: None).read(file.read())
            parts.append(batch["data"].values.reshape(-1, 3, 32, 32))
            self.targets += batch[self.labels]
        self.data = np.concatenate(parts).transpose(0, 2, 3, 1)

    def _fetch(self) -> None:
        os.makedirs(self.root, exist_ok=True)
        path = os.path.join(self.root, os.path.basename(self.url))
        if not os.path.exists(path):
            download_url_to_file(self.url, path)
        with tarfile.open(path) as archive:
            archive.extractall(self.root, filter="data")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._pair(_image(np.ascontiguousarray(self.data[index])), self.targets[index])


class CIFAR100(CIFAR10):
    """Images of 32 x 32 in a hundred classes (Krizhevsky, 2009)."""

    base_folder, labels = "cifar-100-python", "fine_labels"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    files = (("train",), ("test",))


class ImageFolder(VisionDataset):
    """Images in folders, one folder for each class: `<root>/<class>/...`."""

    extensions = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

    def __init__(self, root: str, transform: Transform | None = None,
                 target_transform: Transform | None = None, loader: Any = None) -> None:
        super().__init__(root, None, transform, target_transform)
        self.loader = loader or _open_rgb
        self.classes = sorted(e.name for e in os.scandir(self.root) if e.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"ImageFolder: {self.root!r} has no folders of classes")
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.samples = [
            (os.path.join(folder, name), i) for i, kind in enumerate(self.classes)
            for folder, _, names in sorted(os.walk(os.path.join(self.root, kind)))
            for name in sorted(names) if name.lower().endswith(self.extensions)]
        self.imgs, self.targets = self.samples, [i for _, i in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._pair(self.loader(path), target)


def _open_rgb(path: str) -> Any:
    with require("PIL.Image", "examples", "ImageFolder").open(path) as image:
        return image.convert("RGB")
