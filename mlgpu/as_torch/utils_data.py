"""torch.utils.data beside mlgpu.data: a part of the data for each process, pinning where it can be.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import mlgpu
from mlgpu import data
from mlgpu.as_torch import distributed
from mlgpu.errors import ShapeError


class DataLoader(data.DataLoader[Any]):
    """mlgpu's; `pin_memory` where there is no CUDA is a warning, as in PyTorch, no error."""

    def __init__(self, dataset: Any, *args: Any, pin_memory: bool = False, **options: Any) -> None:
        if pin_memory and not mlgpu.cuda.is_available():
            warnings.warn("DataLoader: pin_memory=True does nothing, as there is no CUDA device",
                          stacklevel=2)
            pin_memory = False
        super().__init__(dataset, *args, **{**options, "pin_memory": pin_memory})


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
