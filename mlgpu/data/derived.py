"""Datasets made of other datasets: mapped, filtered, shuffled, cut into windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlgpu.data.arrays import place
from mlgpu.data.dataset import Dataset, IterableDataset, Subset, samples
from mlgpu.data.sampler import permutation
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import as_tensor
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

__all__ = ["FilteredDataset", "MappedDataset", "SampledDataset", "ShuffledDataset",
           "StreamDataset", "WindowDataset"]


class MappedDataset(Dataset[Any]):
    """`function` of each sample, computed when the sample is asked for."""

    def __init__(self, dataset: Dataset[Any], function: Callable[[Any], Any]) -> None:
        self.dataset, self.function = dataset, function

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.function(self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self.function(sample) for sample in samples(self.dataset, indices)]


class FilteredDataset(Subset[Any]):
    """The samples for which `keep` is true: all are looked at once, when it is made."""

    def __init__(self, dataset: Dataset[Any], keep: Callable[[Any], bool]) -> None:
        count = len(dataset)  # type: ignore[arg-type]
        super().__init__(dataset, [i for i in range(count) if keep(dataset[i])])


class ShuffledDataset(Subset[Any]):
    """The samples in a random order, the same each time: drawn when it is made."""

    def __init__(self, dataset: Dataset[Any], generator: Generator | None = None) -> None:
        count = len(dataset)  # type: ignore[arg-type]
        super().__init__(dataset, permutation(count, generator))


class SampledDataset(Subset[Any]):
    """`size` samples drawn at random when it is made, with replacement or without.

    `weights`: how often each is drawn, in proportion (default: all the same).  Raises ShapeError
    where more are asked for, without replacement, than there are (with a weight above 0), or
    weights and samples differ in number.
    """

    def __init__(self, dataset: Dataset[Any], size: int, replacement: bool = False,
                 generator: Generator | None = None, *,
                 weights: Sequence[float] | Tensor | None = None) -> None:
        from mlgpu.ops.random import randint

        count = len(dataset)  # type: ignore[arg-type]
        if weights is not None:
            super().__init__(dataset, _weighted(weights, count, size, replacement, generator))
            return
        if size < 0 or (size > count and not replacement) or (size and not count):
            raise ShapeError(f"SampledDataset: cannot draw {size} of {count} samples"
                             f"{'' if replacement else ' without replacement'}")
        chosen: Sequence[int] = (randint(count, (size,), generator=generator).tolist()
                                 if replacement and size else permutation(count, generator)[:size])
        super().__init__(dataset, chosen)


def _weighted(weights: Sequence[float] | Tensor, count: int, size: int, replacement: bool,
              generator: Generator | None) -> Sequence[int]:
    from mlgpu.ops.random import multinomial

    shares = as_tensor(weights).double()
    if tuple(shares.shape) != (count,):
        raise ShapeError(f"SampledDataset: {count} samples need as many weights, got the shape "
                         f"{tuple(shares.shape)}")
    possible = int((shares > 0).sum().item())
    if size < 0 or (size > possible and not replacement) or (size and not possible):
        raise ShapeError(f"SampledDataset: cannot draw {size} of {possible} samples with a weight "
                         f"above 0{'' if replacement else ' without replacement'}")
    drawn: list[int] = (multinomial(shares, size, replacement, generator=generator).tolist()
                        if size else [])
    return drawn


class WindowDataset(Dataset[list[Any]]):
    """Lists of `size` samples in a row, beginning every `stride` samples; a rest is left out."""

    def __init__(self, dataset: Dataset[Any], size: int, stride: int = 1) -> None:
        if size < 1 or stride < 1:
            raise ShapeError(f"WindowDataset: size and stride must be at least 1, got {size} and "
                             f"{stride}")
        self.dataset, self.size, self.stride = dataset, size, stride

    def __len__(self) -> int:
        count = len(self.dataset)  # type: ignore[arg-type]
        return max(0, (count - self.size) // self.stride + 1)

    def __getitem__(self, index: int) -> list[Any]:
        first = place("WindowDataset", index, len(self)) * self.stride
        return [self.dataset[i] for i in range(first, first + self.size)]


class StreamDataset(IterableDataset[Any]):
    """Samples that come one after the other, with operations on them that chain.

    `source`: an iterable, or a function that makes one (for streams that can be read once).
    """

    def __init__(self, source: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        yield from self.source() if callable(self.source) else self.source

    def map(self, function: Callable[[Any], Any]) -> StreamDataset:
        """`function` of each sample."""
        return StreamDataset(lambda: map(function, iter(self)))

    def filter(self, keep: Callable[[Any], bool]) -> StreamDataset:
        """The samples for which `keep` is true."""
        return StreamDataset(lambda: filter(keep, iter(self)))

    def take(self, count: int) -> StreamDataset:
        """The first `count` samples."""

        def first() -> Iterator[Any]:
            for _, sample in zip(range(count), self, strict=False):
                yield sample

        return StreamDataset(first)

    def window(self, size: int, stride: int = 1) -> StreamDataset:
        """Lists of `size` samples in a row, beginning every `stride` samples."""
        if size < 1 or stride < 1:
            raise ShapeError(f"window: size and stride must be at least 1, got {size} and {stride}")

        def windows() -> Iterator[list[Any]]:
            held: deque[Any] = deque(maxlen=size)
            for number, sample in enumerate(self):
                held.append(sample)
                first = number + 1 - size
                if first >= 0 and first % stride == 0:
                    yield list(held)

        return StreamDataset(windows)

    def shuffle(self, buffer: int, seed: int = 0) -> StreamDataset:
        """Samples in an order that is random within a buffer of so many, the same each time."""
        if buffer < 1:
            raise ShapeError(f"shuffle: buffer must be at least 1, got {buffer}")

        def shuffled() -> Iterator[Any]:
            draw = np.random.Generator(np.random.Philox(seed))
            held: list[Any] = []
            for sample in self:
                held.append(sample)
                if len(held) > buffer:
                    at = int(draw.integers(len(held)))
                    held[at], held[-1] = held[-1], held[at]
                    yield held.pop()
            for at in draw.permutation(len(held)):
                yield held[at]

        return StreamDataset(shuffled)
