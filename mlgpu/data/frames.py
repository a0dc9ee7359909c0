"""Data frames and tables in memory: Polars, pandas, pyarrow, DuckDB and others, by their protocols.

Which library it is does not matter: what speaks Arrow's C stream is taken without a copy, and what
speaks only the older DataFrame interchange protocol through that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.data.arrays import place
from mlgpu.data.dataset import Dataset
from mlgpu.data.tables import as_row
from mlgpu.errors import FormatError
from mlgpu.extras import require

__all__ = ["FrameDataset"]


class FrameDataset(Dataset[dict[str, Any]]):
    """The rows of a data frame or Arrow table as dicts by column.

    frame: anything with `__arrow_c_stream__` (Polars, pandas from 2.2, pyarrow, DuckDB, Ibis) or
    `__dataframe__`.  `columns`: which to take (default: all).  Values are Python's, lists of
    numbers NumPy arrays; pandas' index is a column.  Workers share the memory.  Needs `mlgpu[data]`
    (pyarrow).  Raises FormatError for a column that is not there.
    """

    def __init__(self, frame: Any, columns: Sequence[str] | None = None) -> None:
        pa = require("pyarrow", "data", "FrameDataset")
        if hasattr(frame, "__arrow_c_stream__"):
            table = pa.table(frame)
        elif hasattr(frame, "__dataframe__"):
            table = require("pyarrow.interchange", "data", "FrameDataset").from_dataframe(frame)
        else:
            way = "; collect() it first" if hasattr(frame, "collect") else ""
            raise TypeError("FrameDataset: expected a frame with __arrow_c_stream__ or "
                            f"__dataframe__, got {type(frame).__name__}{way}")
        if columns is not None:
            unknown = [name for name in columns if name not in table.column_names]
            if unknown:
                raise FormatError(f"FrameDataset: the frame has no column {unknown}, but "
                                  f"{table.column_names}")
            table = table.select(list(columns))
        self.table = table
        try:
            table.take(pa.array([], pa.int64()))
            self._together = True
        except NotImplementedError:  # of views of text, which Polars has, up to pyarrow 26 at least
            self._together = False

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        at = place("FrameDataset", index, len(self))
        return as_row(self.table.slice(at, 1).to_pylist()[0])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        if not self._together:
            return [self[index] for index in indices]
        places = [place("FrameDataset", index, len(self)) for index in indices]
        return list(map(as_row, self.table.take(np.array(places, np.int64)).to_pylist()))
