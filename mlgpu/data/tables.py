"""Datasets of tables: CSV and Parquet, a row or a batch of rows at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset, IterableDataset
from mlgpu.data.worker import get_worker_info
from mlgpu.errors import FormatError
from mlgpu.extras import require

__all__ = ["CSVDataset", "ParquetDataset"]


class CSVDataset(Dataset[dict[str, Any]]):
    """The rows of a CSV file as dicts by column, each value converted: RFC 4180, with a header.

    `columns`: which to take, and the function that converts a cell's text (default: numbers where
    all cells of a column are numbers, else text).  The file is read once; a row is found by where
    it begins, so that memory holds one number per row.  Raises FormatError for a row with another
    number of cells, an unknown column, or a cell that cannot be converted, with its line.
    """

    def __init__(self, path: PathLike, columns: Mapping[str, Callable[[str], Any]]
                 | Sequence[str] | None = None, *, delimiter: str = ",",
                 encoding: str = "utf-8") -> None:
        self.path, self.delimiter, self.encoding = os.fspath(path), delimiter, encoding
        guess = not isinstance(columns, Mapping)
        with open(path, newline="", encoding=encoding) as file:
            self.header = next(csv.reader([self._record(file)], delimiter=delimiter), [])
            wanted = list(self.header if columns is None else columns)
            unknown = [name for name in wanted if name not in self.header]
            if unknown or not self.header:
                raise FormatError(f"CSVDataset: {self.path!r} has no column {unknown}, but "
                                  f"{self.header}")
            self.places = {name: self.header.index(name) for name in wanted}
            self.convert: dict[str, Callable[[str], Any]] = (
                dict.fromkeys(wanted, int) if not isinstance(columns, Mapping) else dict(columns))
            self.starts: list[int] = []
            while True:
                start = file.tell()
                record = self._record(file)
                if not record:
                    break
                if record.strip():
                    self.starts.append(start)
                    if guess:
                        self._learn(self._cells(record, len(self.starts) - 1))

    @staticmethod
    def _record(file: Any) -> str:
        """The text of the next row, which quoted line breaks may spread over several lines."""
        text = file.readline()
        while text.count('"') % 2:
            more = file.readline()
            if not more:
                break
            text += more
        return str(text)

    def _learn(self, cells: list[str]) -> None:
        """Take another function for the columns whose cells are none of what they were so far."""
        for name, position in self.places.items():
            while self.convert[name] is not str:
                try:
                    self.convert[name](cells[position])
                    break
                except ValueError:
                    self.convert[name] = float if self.convert[name] is int else str

    def _cells(self, record: str, row: int) -> list[str]:
        cells = next(csv.reader([record], delimiter=self.delimiter))
        if len(cells) != len(self.header):
            raise FormatError(f"CSVDataset: row {row} of {self.path!r} has {len(cells)} cells, the "
                              f"header {len(self.header)}")
        return cells

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = place("CSVDataset", index, len(self))
        with open(self.path, newline="", encoding=self.encoding) as file:
            file.seek(self.starts[row])
            cells = self._cells(self._record(file), row)
        found = {}
        for name, position in self.places.items():
            try:
                found[name] = self.convert[name](cells[position])
            except ValueError as error:
                raise FormatError(f"CSVDataset: row {row} of {self.path!r}, column {name!r}: "
                                  f"{error}") from None
        return found


class ParquetDataset(IterableDataset[dict[str, Any]]):
    """The rows of Parquet files as dicts by column, read a group of rows at a time.

    `columns`: which to read (default: all).  Numbers come as Python's, lists of numbers as NumPy
    arrays.  Workers of a DataLoader read different groups of rows.  Needs `mlgpu[data]` (pyarrow).
    """

    def __init__(self, paths: PathLike | Sequence[PathLike],
                 columns: Sequence[str] | None = None) -> None:
        self._parquet()
        self.paths = [os.fspath(paths)] if isinstance(paths, (str, os.PathLike)) else [
            os.fspath(path) for path in paths]
        self.columns = None if columns is None else list(columns)

    @staticmethod
    def _parquet() -> Any:
        return require("pyarrow.parquet", "data", "ParquetDataset")

    def __len__(self) -> int:
        return sum(self._parquet().ParquetFile(path).metadata.num_rows for path in self.paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        part, parts = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = 0
        for path in self.paths:
            file = self._parquet().ParquetFile(path)
            for group in range(file.num_row_groups):
                if number % parts == part:
                    yield from map(as_row, file.read_row_group(group, self.columns).to_pylist())
                number += 1


def as_row(cells: dict[str, Any]) -> dict[str, Any]:
    """A row as Parquet and frames give it: lists of numbers as NumPy arrays."""
    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return {name: np.array(value) if isinstance(value, list) and value and all(map(number, value))
            else value for name, value in cells.items()}
