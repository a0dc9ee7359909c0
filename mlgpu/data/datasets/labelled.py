"""What the labelled sets have in common: rows and their classes, and transforms of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset

Transform = Callable[[Any], Any]


class LabelledDataset(Dataset[tuple[Any, Any]]):
    """Pairs of a sample and the number of its class, each through its transform.

    `classes` are the names of the classes, `class_to_idx` their numbers, `root` the folder of the
    files, `train` which part this is.  Subclasses fill `data` and `targets` (N,) int64.
    """

    classes: Sequence[str] = ()
    data: Any
    targets: Any

    def __init__(self, root: PathLike, train: bool, transform: Transform | None,
                 target_transform: Transform | None) -> None:
        self.root, self.train = Path(root).expanduser(), train
        self.transform, self.target_transform = transform, target_transform

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class by its name."""
        return {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        at = place(type(self).__name__, index, len(self))
        sample, target = self._sample(at), int(self.targets[at])
        return (sample if self.transform is None else self.transform(sample),
                target if self.target_transform is None else self.target_transform(target))

    def _sample(self, at: int) -> Any:
        return self.data[at]
