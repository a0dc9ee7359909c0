"""Images without files: random, but the same each time, to try a program without data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.data.arrays import place
from mlgpu.data.dataset import Dataset
from mlgpu.data.datasets.labelled import Transform
from mlgpu.ops.random import randint
from mlgpu.random import Generator

__all__ = ["FakeData"]


class FakeData(Dataset[tuple[Any, Any]]):
    """`size` random pairs (image uint8 of `image_size`, class): of an index always the same.

    torchvision's, but images are tensors.  Sample i follows from the seed i + `random_offset`, and
    no other random numbers are disturbed.
    """

    def __init__(self, size: int = 1000, image_size: Sequence[int] = (3, 224, 224),
                 num_classes: int = 10, transform: Transform | None = None,
                 target_transform: Transform | None = None, random_offset: int = 0) -> None:
        self.size, self.image_size, self.num_classes = size, tuple(image_size), num_classes
        self.transform, self.target_transform = transform, target_transform
        self.random_offset = random_offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self._drawn(place("FakeData", index, self.size) + self.random_offset)
        return (image if self.transform is None else self.transform(image),
                target if self.target_transform is None else self.target_transform(target))

    def _drawn(self, seed: int) -> tuple[Any, Any]:
        generator = Generator().manual_seed(seed)
        image = randint(0, 256, self.image_size, generator=generator, dtype=dtypes.uint8,
                        device="cpu")
        return image, int(randint(self.num_classes, (), generator=generator, device="cpu").item())
