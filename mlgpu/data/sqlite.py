"""SQLite: tables as datasets by row, queries as streams, and writing rows of samples."""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.data.arrays import PathLike, place
from mlgpu.data.dataset import Dataset, IterableDataset
from mlgpu.data.worker import get_worker_info
from mlgpu.errors import DTypeError, FormatError
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["SQLiteDataset", "SQLiteQuery", "write_sqlite"]

_ARRAY = "NPY"  # the declared type of columns of arrays, which are stored as .npy files
_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
_MANY = 500  # rows that one statement asks for; SQLite allows 999 parameters at least

Cells = dict[str, Any]


class _Connection:
    """A connection for reading, of one thread of one process."""

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self.sqlite, self.process = sqlite, os.getpid()

    def __del__(self) -> None:
        if os.getpid() == self.process:
            self.sqlite.close()
        else:  # the parent's still: SQLite forbids a forked child to touch it, closing included
            _INHERITED.append(self.sqlite)


_INHERITED: list[sqlite3.Connection] = []


class _Reader:
    """A database file, read through a connection for each thread and process."""

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"SQLite: there is no file {self.path!r}")
        self._local = threading.local()

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
             ) -> sqlite3.Cursor:
        """A cursor of a statement's rows.  FormatError with what SQLite says of a wrong one."""
        held: _Connection | None = getattr(self._local, "held", None)
        try:
            if held is None or held.process != os.getpid():
                address = f"{Path(self.path).absolute().as_uri()}?mode=ro"
                held = self._local.held = _Connection(
                    sqlite3.connect(address, uri=True, check_same_thread=False))
            return held.sqlite.execute(sql, parameters)
        except sqlite3.Error as error:
            raise FormatError(f"SQLite: {self.path!r}: {error}; asked was {sql!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


class SQLiteDataset(Dataset[Cells]):
    """The rows of a table in an SQLite file as dicts by column, found by their rowid.

    `columns`: which to take, and functions that convert what is stored, where some should (arrays
    that `write_sqlite` wrote come as tensors by themselves).  `where`: only the rows for which this
    SQL is true, with `parameters` for its question marks.  The order is that of the rowids, which
    are read once; rows are read as they are asked for, those of a batch together, by each thread
    and worker through a connection of its own.  Raises FormatError for a table or column that is
    not there, and for tables and views without rowids (use SQLiteQuery).
    """

    def __init__(self, path: PathLike, table: str,
                 columns: Mapping[str, Callable[[Any], Any]] | Sequence[str] | None = None, *,
                 where: str = "", parameters: Sequence[Any] = ()) -> None:
        self._reader, self.table = _Reader(path), table
        declared = {name: kind.upper() for _, name, kind, *_ in
                    self._reader.rows(f"PRAGMA table_info({_quoted(table)})")}
        if not declared:
            raise FormatError(f"SQLiteDataset: {self._reader.path!r} has no table {table!r}, but "
                              f"{self.tables(path)}")
        self.columns = list(declared if columns is None else columns)
        unknown = [name for name in self.columns if name not in declared]
        if unknown or not self.columns:
            raise FormatError(f"SQLiteDataset: the table {table!r} has no column {unknown}, but "
                              f"{list(declared)}")
        self.convert: dict[str, Callable[[Any], Any]] = {
            name: _array for name in self.columns if declared[name] == _ARRAY}
        if isinstance(columns, Mapping):
            self.convert.update(columns)
        # SQLite knows the number of a row by three names, which columns may take for themselves.
        taken = {name.lower() for name in declared}
        self._row = next((n for n in ("rowid", "_rowid_", "oid") if n not in taken), "rowid")
        self.rowids = self._find(where, parameters)
        self._select = (f"SELECT {self._row}, {', '.join(map(_quoted, self.columns))} FROM "
                        f"{_quoted(table)} WHERE {self._row}")

    @staticmethod
    def tables(path: PathLike) -> list[str]:
        """The names of the tables in a file."""
        reader = _Reader(path)  # held until its rows have come
        return [name for name, in reader.rows(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]

    def _find(self, where: str, parameters: Sequence[Any]) -> Sequence[int]:
        """The rowids, as a range where there are no gaps."""
        table, row = _quoted(self.table), self._row
        kept = f" WHERE {where}" if where else ""
        try:
            (kind,), = self._reader.rows("SELECT type FROM sqlite_master WHERE name = ? COLLATE "
                                         "NOCASE", [self.table])
            self._reader.rows(f"SELECT {row} FROM {table} LIMIT 0")
        except FormatError:
            kind = "table WITHOUT ROWID"
        if kind != "table":
            raise FormatError(f"SQLiteDataset: {self.table!r} is a {kind}, whose rows have no "
                              "rowid; read it with SQLiteQuery")
        (count, first, last), = self._reader.rows(
            f"SELECT COUNT(*), MIN({row}), MAX({row}) FROM {table}{kept}", parameters)
        if count and last - first + 1 == count:
            return range(first, last + 1)
        found = self._reader.rows(f"SELECT {row} FROM {table}{kept} ORDER BY {row}", parameters)
        return np.fromiter((rowid for rowid, in found), np.int64, count)  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self.rowids)

    def __getitem__(self, index: int) -> Cells:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Cells]:
        wanted = [int(self.rowids[place("SQLiteDataset", i, len(self))]) for i in indices]
        found: dict[int, tuple[Any, ...]] = {}
        for start in range(0, len(wanted), _MANY):
            part = wanted[start:start + _MANY]
            marks = ", ".join("?" * len(part))
            for rowid, *cells in self._reader.rows(f"{self._select} IN ({marks})", part):
                found[rowid] = tuple(cells)
        gone = next((rowid for rowid in wanted if rowid not in found), None)
        if gone is not None:
            raise FormatError(f"SQLiteDataset: the row {gone} of {self.table!r} is gone since the "
                              "dataset was made")
        return [_converted(dict(zip(self.columns, found[rowid], strict=True)), self.convert)
                for rowid in wanted]


class SQLiteQuery(IterableDataset[Cells]):
    """The rows that a query gives, as dicts by column, one after the other.

    `convert`: functions of what is stored, by column.  Of several workers each takes the rows whose
    number it has, so the query should have an ORDER BY.
    """

    def __init__(self, path: PathLike, query: str,
                 parameters: Sequence[Any] | Mapping[str, Any] = (), *,
                 convert: Mapping[str, Callable[[Any], Any]] | None = None) -> None:
        self._reader, self.query, self.parameters = _Reader(path), query, parameters
        self.convert = dict(convert or {})

    def __iter__(self) -> Iterator[Cells]:
        worker = get_worker_info()
        part, parts = (0, 1) if worker is None else (worker.id, worker.num_workers)
        cursor = self._reader.rows(self.query, self.parameters)
        names = [column[0] for column in cursor.description or ()]
        if len(set(names)) < max(1, len(names)) or not set(self.convert) <= set(names):
            raise FormatError(f"SQLiteQuery: the query gives the columns {names}; each needs a "
                              f"name of its own, and those to convert ({list(self.convert)}) must "
                              "be among them")
        for number, cells in enumerate(cursor):
            if number % parts == part:
                yield _converted(dict(zip(names, cells, strict=True)), self.convert)


def write_sqlite(path: PathLike, table: str, rows: Iterable[Mapping[str, Any]], *,
                 append: bool = False) -> int:
    """Write rows to a table of an SQLite file, all or none; how many is returned.

    Cells are numbers, text, bytes, None, and tensors or NumPy arrays, which SQLiteDataset gives
    back as tensors.  The first row tells the columns and their types; a column that is None there
    may hold anything but arrays.  append: to a table that is there, with the same columns.  Raises
    FormatError for a table that is there otherwise, or rows with other columns, DTypeError for
    cells of other types.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        count = _insert(connection, table, iter(rows), append)
        connection.execute("COMMIT")
        return count
    except OverflowError as error:
        raise DTypeError(f"write_sqlite: {table!r} holds whole numbers of 64 bits: {error}"
                         ) from None
    except sqlite3.Error as error:
        raise FormatError(f"write_sqlite: {os.fspath(path)!r}: {error}") from None
    finally:
        connection.close()  # takes back what was not committed


def _insert(connection: sqlite3.Connection, table: str, rows: Iterator[Mapping[str, Any]],
            append: bool) -> int:
    there = [name for _, name, *_ in
             connection.execute(f"PRAGMA table_info({_quoted(table)})")]
    if there and not append:
        raise FormatError(f"write_sqlite: there is a table {table!r}; pass append=True to add rows")
    first = next(rows, None)
    if first is None:
        return 0
    columns = there or list(first)
    if not there:
        kinds = [f"{_quoted(name)} {_declared(first[name])}" for name in columns]
        connection.execute(f"CREATE TABLE {_quoted(table)} ({', '.join(kinds)})")

    def cells() -> Iterator[list[Any]]:
        for row in [first], rows:
            for cells in row:
                if set(cells) != set(columns):
                    raise FormatError(f"write_sqlite: {table!r} has the columns {columns}, a row "
                                      f"has {list(cells)}")
                yield [_stored(table, name, cells[name]) for name in columns]

    marks = ", ".join("?" * len(columns))
    names = ", ".join(map(_quoted, columns))
    return connection.executemany(
        f"INSERT INTO {_quoted(table)} ({names}) VALUES ({marks})", cells()).rowcount


def _declared(value: Any) -> str:
    """A column's type from its first cell.  None: no type, so that anything stays what it is."""
    if isinstance(value, (Tensor, np.ndarray)):
        return _ARRAY
    plain = value.item() if isinstance(value, np.generic) else value
    return next((kind for base, kind in _TYPES.items() if isinstance(plain, base)), "")


def _stored(table: str, column: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return out.getvalue()
    if value is not None and not isinstance(value, (*_TYPES,)):
        raise DTypeError(f"write_sqlite: the column {column!r} of {table!r} cannot hold a "
                         f"{type(value).__name__}; numbers, text, bytes, None, tensors and arrays "
                         "are stored")
    return value


def _array(raw: Any) -> Any:
    if raw is None:
        return None
    try:
        return from_numpy(np.load(io.BytesIO(raw), allow_pickle=False))
    except (ValueError, TypeError, EOFError) as error:
        raise FormatError(f"SQLiteDataset: a cell is no .npy file: {error}") from None


def _converted(row: Cells, convert: Mapping[str, Callable[[Any], Any]]) -> Cells:
    for name, function in convert.items():
        row[name] = function(row[name])
    return row


def _quoted(name: str) -> str:
    """An identifier in SQL, whatever is in it."""
    if "\0" in name:
        raise FormatError(f"SQLite: {name!r} is no name")
    return '"' + name.replace('"', '""') + '"'
