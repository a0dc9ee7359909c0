"""Getting batches out of a dataset, the same way in the main process and in workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


class Exhausted:
    """Says that an iterable dataset has no more batches."""


@dataclass(frozen=True)
class Fetch:
    """How batches are made: from indices or, for an iterable dataset, from a count of samples."""

    dataset: Any
    collate_fn: Callable[[Any], Any]
    iterable: bool
    batched: bool  # False: single samples, as with batch_size=None
    drop_last: bool

    def open(self) -> Callable[[Any], Any]:
        """A function from indices (or a count) to the batch, for one epoch."""
        if not self.iterable:
            return self._from_indices if self.batched else self._from_index
        iterator = iter(self.dataset)
        if self.batched:
            return lambda count: self._take(iterator, count)
        return lambda _: self._next(iterator)

    def _from_index(self, index: Any) -> Any:
        return self.collate_fn(self.dataset[index])

    def _from_indices(self, indices: list[Any]) -> Any:
        together = getattr(self.dataset, "__getitems__", None)
        if together is not None:
            return self.collate_fn(together(indices))
        return self.collate_fn([self.dataset[index] for index in indices])

    def _next(self, iterator: Iterator[Any]) -> Any:
        for sample in iterator:
            return self.collate_fn(sample)
        return Exhausted()

    def _take(self, iterator: Iterator[Any], count: int) -> Any:
        samples = list(itertools.islice(iterator, count))
        if not samples or (self.drop_last and len(samples) < count):
            return Exhausted()
        return self.collate_fn(samples)
