"""Datasets: indexed ones, ones that can only be iterated, and combinations of them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from mlgpu.data.sampler import permutation
from mlgpu.errors import ShapeError
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Samples by index.  Subclasses define `__getitem__`, and `__len__` where a sampler needs it.

    `__getitems__(indices) -> list of samples`, where defined, fetches a whole batch at once.
    """

    def __getitem__(self, index: int) -> T_co:
        """The sample at `index`."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """Samples in an order of their own: subclasses define `__iter__`.

    Every worker of a DataLoader iterates a copy of its own; use `get_worker_info()` to give each a
    part of the samples, or they come once per worker.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")

    def __add__(self, other: Dataset[T_co]) -> ChainDataset[T_co]:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tuples of the rows of tensors whose first dimensions agree.  Raises ShapeError otherwise."""

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors or any(t.ndim == 0 or t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise ShapeError("TensorDataset: the first dimensions must agree, got shapes "
                             f"{[tuple(t.shape) for t in tensors]}")
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class ConcatDataset(Dataset[T_co]):
    """The samples of several datasets, one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: at least one dataset is needed")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset: an IterableDataset has no index; use ChainDataset")
        self.cumulative_sizes = list(itertools.accumulate(map(_length, self.datasets)))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)} "
                             "samples")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset[T_co]):
    """The samples of several iterable datasets, one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[T_co]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError("ChainDataset: expected IterableDatasets, got "
                                f"{type(dataset).__name__}; use ConcatDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(map(_length, self.datasets))


class Subset(Dataset[T_co]):
    """The samples of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> T_co:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        return samples(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Dataset[T_co], lengths: Sequence[int | float],
                 generator: Generator | None = None) -> list[Subset[T_co]]:
    """Disjoint random Subsets of the given lengths, or fractions that sum to 1.

    With fractions, each part gets the floor of its share and what remains goes to the parts in
    turn.  Raises ValueError where the lengths do not sum to the dataset's.
    """
    size = _length(dataset)
    total = sum(lengths)
    if math.isclose(total, 1) and total <= 1:
        counts = _shares(lengths, size)
    elif total != size or any(int(n) != n for n in lengths):
        raise ValueError(f"random_split: lengths must sum to the {size} samples of the dataset, or "
                         f"be fractions that sum to 1, got {list(lengths)}")
    else:
        counts = [int(n) for n in lengths]
    order = permutation(size, generator)
    ends = itertools.accumulate(counts)
    return [Subset(dataset, order[end - n:end]) for n, end in zip(counts, ends, strict=True)]


def _shares(fractions: Sequence[float], size: int) -> list[int]:
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"random_split: fraction {i} must be between 0 and 1, got {fraction}")
    counts = [math.floor(size * fraction) for fraction in fractions]
    for i in range(size - sum(counts)):
        counts[i % len(counts)] += 1
    return counts


def samples(dataset: Dataset[T_co], indices: Sequence[int]) -> list[T_co]:
    """The samples at `indices`, all at once where the dataset can."""
    together = getattr(dataset, "__getitems__", None)
    return [dataset[i] for i in indices] if together is None else list(together(indices))


def _length(dataset: Dataset[T_co]) -> int:
    return len(dataset)  # type: ignore[arg-type]
