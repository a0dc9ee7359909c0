"""Folders that hold one folder for each class: which files there are, and their texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset
from mlgpu.errors import FormatError

__all__ = ["ClassFolders", "TextFolder"]


class ClassFolders(Dataset[tuple[Any, Any]]):
    """(what `loader` makes of a file, class) of the files in a folder with a folder for each class.

    Classes are numbered in the order of their names: `classes`, `class_to_idx`; `samples` lists
    (path, class), `targets` the classes.  Files are those with one of `suffixes`, at any depth.
    Raises FormatError where there is no class or a class has no such file.
    """

    def __init__(self, root: PathLike, loader: Callable[[Path], Any], suffixes: Sequence[str],
                 transform: Callable[[Any], Any] | None,
                 target_transform: Callable[[int], Any] | None) -> None:
        name = type(self).__name__
        self.root, self.loader = Path(root), loader
        self.transform, self.target_transform = transform, target_transform
        self.classes = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())
        if not self.classes:
            raise FormatError(f"{name}: {self.root} has no folders, which name the classes")
        self.class_to_idx = {kind: number for number, kind in enumerate(self.classes)}
        self.samples: list[tuple[Path, int]] = []
        for kind, number in self.class_to_idx.items():
            files = sorted(path for path in (self.root / kind).rglob("*")
                           if path.suffix.lower() in suffixes)
            if not files:
                raise FormatError(f"{name}: {self.root / kind} has no file that ends in "
                                  f"{', '.join(suffixes)}")
            self.samples += [(path, number) for path in files]
        self.targets = [number for _, number in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, number = self.samples[place(type(self).__name__, index, len(self))]
        sample = self.loader(path)
        return (sample if self.transform is None else self.transform(sample),
                number if self.target_transform is None else self.target_transform(number))


class TextFolder(ClassFolders):
    """(text, class) of the .txt files in a folder that has one folder for each class.

    Else as ImageFolder.  `encoding`: of the files; FormatError for one that is not in it.
    """

    def __init__(self, root: PathLike, transform: Callable[[str], Any] | None = None,
                 target_transform: Callable[[int], Any] | None = None, *,
                 encoding: str = "utf-8", suffixes: Sequence[str] = (".txt",)) -> None:
        self.encoding = encoding
        super().__init__(root, self._text, suffixes, transform, target_transform)

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding=self.encoding)
        except UnicodeDecodeError as error:
            raise FormatError(f"TextFolder: {path} is no text in {self.encoding}: {error}"
                              ) from None
