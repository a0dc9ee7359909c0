"""torchvision.datasets: those of `mlgpu.data.datasets`, with Pillow's images; folders of images."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.data import Dataset, datasets
from mlgpu.extras import require

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


def _image(pixels: Any) -> Any:
    return require("PIL.Image", "examples", "torchvision.datasets").fromarray(pixels)


class MNIST(datasets.MNIST):
    """Handwritten digits of 28 x 28 (LeCun et al.), from `<root>/MNIST/raw`."""

    def _sample(self, at: int) -> Any:
        return _image(self.data[at].numpy())


class FashionMNIST(MNIST, datasets.FashionMNIST):
    """Articles of clothing of 28 x 28 (Xiao et al., 2017)."""


class KMNIST(MNIST, datasets.KMNIST):
    """Cursive Japanese characters of 28 x 28 (Clanuwat et al., 2018)."""


class CIFAR10(datasets.CIFAR10):
    """Images of 32 x 32 in ten classes (Krizhevsky, 2009): `data` (N, 32, 32, 3), an ndarray."""

    def __init__(self, root: str, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, train, transform, target_transform, download)
        self.data = self.data.numpy().transpose(0, 2, 3, 1)
        self.targets = self.targets.tolist()

    def _sample(self, at: int) -> Any:
        return _image(np.ascontiguousarray(self.data[at]))


class CIFAR100(CIFAR10, datasets.CIFAR100):
    """Images of 32 x 32 in a hundred classes (Krizhevsky, 2009)."""


class FakeData(datasets.FakeData):
    """Random images and classes, the same each time."""

    def _drawn(self, seed: int) -> tuple[Any, Any]:
        pixels, target = super()._drawn(seed)
        return _image(pixels.permute(1, 2, 0).contiguous().numpy()), target


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
