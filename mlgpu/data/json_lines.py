"""Files of JSON, one value a line."""

from __future__ import annotations

import json
import os
from array import array
from typing import Any

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset
from mlgpu.errors import FormatError

__all__ = ["JSONLinesDataset"]


class JSONLinesDataset(Dataset[Any]):
    """The values of a file that has one a line, in UTF-8: JSON Lines, or NDJSON.

    The file is gone through once; a line is found by where it begins, so that memory holds one
    number a line.  Empty lines are left out.  Raises FormatError for a line that is no JSON, with
    its number, when it is asked for.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        self.starts, self.numbers = array("q"), array("q")
        start = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self.starts.append(start)
                    self.numbers.append(number)
                start += len(line)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        at = place("JSONLinesDataset", index, len(self))
        with open(self.path, "rb") as file:
            file.seek(self.starts[at])
            line = file.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise FormatError(f"JSONLinesDataset: line {self.numbers[at]} of {self.path!r} is no "
                              f"JSON: {error}") from None
