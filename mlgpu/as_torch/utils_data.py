"""torch.utils.data beside mlgpu.data: a part of the data for each process, pinning where it can be.
"""

from __future__ import annotations

import math
import multiprocessing
import warnings
from collections.abc import Iterator
from typing import Any

import mlgpu
from mlgpu import data
from mlgpu.as_torch import distributed
from mlgpu.errors import ShapeError


class DataLoader(data.DataLoader[Any]):
    """mlgpu's, with what PyTorch's does of itself: workers are started as Python starts processes.

    That is "fork" on Linux (before Python 3.14), where programs need no `if __name__ ==
    "__main__":` and data sets no name.  `pin_memory` without CUDA is a warning, no error.
    """

    def __init__(self, dataset: Any, *args: Any, pin_memory: bool = False,
                 multiprocessing_context: Any = None, pin_memory_device: str = "",
                 in_order: bool = True, **options: Any) -> None:
        # Batches come in order whatever `in_order`.
        if multiprocessing_context is None and _workers(args, options):
            multiprocessing_context = multiprocessing.get_start_method()
        if pin_memory and not mlgpu.cuda.is_available():
            warnings.warn("DataLoader: pin_memory=True does nothing, as there is no CUDA device",
                          stacklevel=2)
            pin_memory = False
        super().__init__(dataset, *args, **{**options, "pin_memory": pin_memory,
                                            "multiprocessing_context": multiprocessing_context})


def _workers(args: tuple[Any, ...], options: dict[str, Any]) -> int:
    """How many are asked for: after the data set, the sixth argument."""
    place = 4  # batch_size, shuffle, sampler, batch_sampler come before it
    return int(args[place]) if len(args) > place else int(options.get("num_workers", 0))


class _BaseDataLoaderIter(Iterator[Any]):
    """What going over a DataLoader makes; programs name it in annotations."""


class _SingleProcessDataLoaderIter(_BaseDataLoaderIter):
    """The same, without workers."""


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """The same, with workers."""


class StackDataset(data.Dataset[Any]):
    """Data sets side by side: an item is a tuple of theirs, or a dict where they are named.

    Raises ShapeError where their lengths differ.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.datasets: Any = args or kwargs
        parts = list(kwargs.values() if kwargs else args)
        self._length = len(parts[0])
        if any(len(part) != self._length for part in parts):
            raise ShapeError(f"StackDataset: lengths differ: {[len(part) for part in parts]}")

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: part[index] for name, part in self.datasets.items()}
        return tuple(part[index] for part in self.datasets)

    def __len__(self) -> int:
        return self._length


class DistributedSampler(data.Sampler[int]):
    """Every `num_replicas`-th index from `rank` on, shuffled by `seed` and `set_epoch`.

    The indices are filled up from the first, or (`drop_last`) cut, so that all parts are as long.
    Without a group the two numbers are 1 and 0.  Raises ShapeError for a rank that is none of them.
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None,
                 shuffle: bool = True, seed: int = 0, drop_last: bool = False) -> None:
        alone = not distributed.is_initialized()
        self.num_replicas = num_replicas or (1 if alone else distributed.get_world_size())
        self.rank = rank if rank is not None else 0 if alone else distributed.get_rank()
        if not 0 <= self.rank < self.num_replicas:
            raise ShapeError(f"DistributedSampler: rank {self.rank} is none of {self.num_replicas}")
        self.dataset, self.shuffle, self.seed, self.drop_last = dataset, shuffle, seed, drop_last
        self.epoch = 0
        parts = len(dataset) / self.num_replicas
        self.num_samples = math.floor(parts) if drop_last else math.ceil(parts)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        indices = list(range(len(self.dataset)))
        if self.shuffle:
            generator = mlgpu.Generator()
            generator.manual_seed(self.seed + self.epoch)
            indices = mlgpu.randperm(len(indices), generator=generator).tolist()
        while len(indices) < self.total_size:
            indices += indices[:self.total_size - len(indices)]
        return iter(indices[self.rank:self.total_size:self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise from now on."""
        self.epoch = epoch
