"""AG News: short texts in four classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mlgpu.data.arrays import PathLike
from mlgpu.data.datasets.download import obtain
from mlgpu.data.datasets.labelled import LabelledDataset, Transform
from mlgpu.errors import FormatError
from mlgpu.ops.interop import from_numpy

__all__ = ["AG_NEWS"]


class AG_NEWS(LabelledDataset):
    """News: (title and description, 0 to 3), 120,000 and 7,600 of them.

    `data` is the list of texts, `targets` (N,) int64, from `<root>/AG_NEWS/train.csv`.  Classes are
    numbered from 0 (torchtext: from 1).  download: fetch what is not there; without it
    MissingDataError says what is missing.  (Zhang, Zhao, LeCun, "Character-level convolutional
    networks for text classification", 2015.)
    """

    url = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
    md5: ClassVar[Mapping[str, str]] = {
        "train.csv": "b1a00f826fdfbd249f79597b59e1dc12",
        "test.csv": "d52ea96a97a2d943681189a97654912d"}
    classes = ("World", "Sports", "Business", "Sci/Tech")

    def __init__(self, root: PathLike, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, train, transform, target_transform)
        name = "train.csv" if train else "test.csv"
        path = obtain("AG_NEWS", self.root / "AG_NEWS" / name, self.url + name, download=download,
                      checksum=f"md5:{self.md5[name]}")
        texts: list[str] = []
        numbers: list[int] = []
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
                    raise FormatError(f"AG_NEWS: row {len(texts)} of {path} should have a class "
                                      f"from 1 to 4, a title and a description, got {row}")
                texts.append(f"{row[1]} {row[2]}")
                numbers.append(int(row[0]) - 1)
        self.data = texts
        self.targets = from_numpy(np.array(numbers, np.int64))
