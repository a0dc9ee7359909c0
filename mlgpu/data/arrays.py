"""Datasets on files that stay where they are: NumPy arrays, safetensors shards, tokens.

Samples are views of a map of the file: nothing is read before it is used, nothing is copied, and
processes that read the same file share its pages.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu import io
from mlgpu.data.dataset import Dataset
from mlgpu.errors import DTypeError, FormatError, PositionError, ShapeError
from mlgpu.io.atomic import replace_file
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["NumpyDataset", "SafetensorsDataset", "TokenDataset", "index_tokens", "write_tokens"]

PathLike = str | os.PathLike[str]


def place(name: str, index: int, length: int) -> int:
    """An index from either end.  PositionError (an IndexError) out of range."""
    if not -length <= index < length:
        raise PositionError(f"{name}: index {index} is out of range for {length} samples")
    return index + length if index < 0 else index


class NumpyDataset(Dataset[Any]):
    """The rows of arrays in .npy files, mapped: a tensor, or a tuple of them for several files.

    Writes to a sample never reach the file.  Raises FormatError for other files, ShapeError where
    the first dimensions differ.
    """

    def __init__(self, *paths: PathLike) -> None:
        if not paths:
            raise TypeError("NumpyDataset: expected at least one path")
        self.arrays = [self._mapped(path) for path in paths]
        lengths = {len(array) for array in self.arrays}
        if len(lengths) != 1:
            raise ShapeError("NumpyDataset: the first dimensions must agree, got shapes "
                             f"{[array.shape for array in self.arrays]}")

    @staticmethod
    def _mapped(path: PathLike) -> np.ndarray[Any, Any]:
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except ValueError as error:
            raise FormatError(f"NumpyDataset: {os.fspath(path)!r} is no .npy file that can be "
                              f"mapped: {error}") from None
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise FormatError(f"NumpyDataset: {os.fspath(path)!r} must hold one array of at least "
                              "1 dimension")
        return array

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> Any:
        at = place("NumpyDataset", index, len(self))
        found = tuple(from_numpy(np.asarray(array[at])) for array in self.arrays)
        return found[0] if len(found) == 1 else found


class SafetensorsDataset(Dataset[dict[str, Tensor]]):
    """Samples as dicts of tensors, from safetensors shards whose tensors have samples as rows.

    All shards have the same names, dtypes and shapes but for the first dimension, which is the
    number of samples of the shard.  Raises FormatError otherwise.
    """

    def __init__(self, paths: Sequence[PathLike]) -> None:
        if isinstance(paths, (str, os.PathLike)):
            paths = [paths]
        if not paths:
            raise FormatError("SafetensorsDataset: no shards given")
        self.paths = [os.fspath(path) for path in paths]
        self.shards = [io.safetensors.read(path).arrays for path in self.paths]
        kinds = [{name: (a.dtype, a.shape[1:]) for name, a in s.items()} for s in self.shards]
        counts = []
        for path, shard, kind in zip(self.paths, self.shards, kinds, strict=True):
            lengths = {len(a) if a.ndim else -1 for a in shard.values()}
            if len(lengths) != 1 or -1 in lengths or kind != kinds[0]:
                raise FormatError(f"SafetensorsDataset: {path!r} must hold tensors with one row "
                                  f"per sample, of the kinds of {self.paths[0]!r}, got "
                                  f"{ {n: (a.dtype.name, a.shape) for n, a in shard.items()} }")
            counts.append(lengths.pop())
        self.ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        at = place("SafetensorsDataset", index, len(self))
        number = bisect.bisect_right(self.ends, at)
        row = at - (self.ends[number - 1] if number else 0)
        return {name: from_numpy(np.asarray(array[row]))
                for name, array in self.shards[number].items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.paths,)  # a worker maps the files itself


class TokenDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pieces of a long text as (tokens, the same one later), each (length,) int64.

    `path`: a folder that `write_tokens` or `index_tokens` has made.  Pieces begin every `stride`
    tokens (default: `length`, so that they do not overlap), shards are read as one text.  Raises
    FormatError for other folders, ShapeError where the text is shorter than a piece.
    """

    def __init__(self, path: PathLike, length: int, stride: int | None = None) -> None:
        self.path, self.length = Path(path), length
        self.stride = length if stride is None else stride
        if length < 1 or self.stride < 1:
            raise ShapeError(f"TokenDataset: length and stride must be at least 1, got {length} "
                             f"and {self.stride}")
        index = _token_index(self.path)
        self.shards = [np.memmap(self.path / name, np.dtype(index["dtype"]), "r")
                       for name in index["shards"]]
        self.ends = list(itertools.accumulate(len(shard) for shard in self.shards))
        if not self.ends or self.ends[-1] <= length:
            raise ShapeError(f"TokenDataset: {self.path} has {self.ends[-1] if self.ends else 0} "
                             f"tokens, a piece with what follows takes {length + 1}")

    def __len__(self) -> int:
        return (self.ends[-1] - self.length - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first = place("TokenDataset", index, len(self)) * self.stride
        tokens = from_numpy(self._tokens(first, first + self.length + 1))
        return tokens[:-1], tokens[1:]

    def _tokens(self, first: int, end: int) -> np.ndarray[Any, Any]:
        out = np.empty(end - first, np.int64)  # tokens are stored in fewer bytes
        for number in range(bisect.bisect_right(self.ends, first), len(self.shards)):
            start = self.ends[number - 1] if number else 0
            low, high = max(first, start), min(end, self.ends[number])
            out[low - first:high - first] = self.shards[number][low - start:high - start]
            if high == end:
                break
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.length, self.stride)


_INDEX = "index.json"


def _token_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        fits = (np.dtype(index["dtype"]).kind in "iu"
                and all(Path(name).name == name for name in index["shards"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"TokenDataset: {path} is no folder of tokens ({error}); make one with "
                          "write_tokens") from None
    if not fits:
        raise FormatError(f"TokenDataset: {path / _INDEX} names other dtypes or other folders")
    return dict(index)


def write_tokens(path: PathLike, texts: Iterable[Sequence[int] | np.ndarray[Any, Any]], *,
                 dtype: str = "uint16", shard: int = 2**27) -> int:
    """Write tokens of texts, one after the other, to shards of at most `shard` tokens in a folder.

    `texts`: sequences of token numbers (what a tokenizer gives of each document), taken one at a
    time; how many tokens there are is returned.  dtype: uint16 for up to 65,536 tokens, else
    uint32.  Raises DTypeError for a token that does not fit.  The folder holds what it held before
    until all is written.
    """
    folder, kind = Path(path), np.dtype(dtype)
    if kind not in (np.uint16, np.uint32):
        raise DTypeError(f"write_tokens: dtype must be uint16 or uint32, got {dtype!r}")
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("tokens-[0-9]*-*.bin"))
    # Names that are not there: what was written before can be read until the index is replaced.
    number = 1 + max((int(path.stem.split("-")[1]) for path in before), default=0)
    names: list[str] = []
    total = 0
    held: list[np.ndarray[Any, Any]] = []
    waiting = 0

    def flush(final: bool) -> None:
        nonlocal held, waiting
        while waiting >= shard or (final and waiting):
            whole = np.concatenate(held)
            names.append(f"tokens-{number}-{len(names):05}.bin")
            with replace_file(folder / names[-1]) as file:
                file.write(np.ascontiguousarray(whole[:shard]).data)
            held = [whole[shard:]]
            waiting = len(held[0])

    for text in texts:
        tokens = np.asarray(text)
        if tokens.size and (tokens.dtype.kind not in "iu" or tokens.min() < 0
                            or tokens.max() > np.iinfo(kind).max):
            raise DTypeError(f"write_tokens: tokens must be whole numbers from 0 to "
                             f"{np.iinfo(kind).max} for {dtype}; use dtype='uint32' for more")
        held.append(tokens.astype(kind).reshape(-1))
        waiting += tokens.size
        total += tokens.size
        flush(False)
    flush(True)
    _write_index(folder, kind, names)
    for old in before:
        old.unlink()
    return total


def index_tokens(path: PathLike, files: Sequence[str] | None = None, *,
                 dtype: str = "uint16") -> int:
    """Let TokenDataset read a folder of token files that others wrote; how many there are.

    `files`: names of files in the folder that hold nothing but tokens, one after the other, as
    the tools of llama2.c write TinyStories (default: all *.bin by name).  dtype: of
    the files, uint16 or uint32.  Raises FormatError where there are none, or one ends within a
    token.
    """
    folder, kind = Path(path), np.dtype(dtype)
    if kind not in (np.uint16, np.uint32):
        raise DTypeError(f"index_tokens: dtype must be uint16 or uint32, got {dtype!r}")
    names = sorted(file.name for file in folder.glob("*.bin")) if files is None else list(files)
    sizes = [os.path.getsize(folder / name) for name in names]
    if not names or any(not size or size % kind.itemsize or Path(name).name != name
                        for name, size in zip(names, sizes, strict=True)):
        raise FormatError(f"index_tokens: {folder} must hold files of {kind.name} tokens, got "
                          f"{dict(zip(names, sizes, strict=True))} bytes")
    _write_index(folder, kind, names)
    return sum(sizes) // kind.itemsize


def _write_index(folder: Path, kind: np.dtype[Any], names: Sequence[str]) -> None:
    with replace_file(folder / _INDEX) as file:
        file.write(json.dumps({"dtype": kind.name, "shards": names}).encode())
