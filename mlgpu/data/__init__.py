"""Datasets, samplers and the DataLoader, with PyTorch's names (torch.utils.data)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlgpu.data.arrays import NumpyDataset, SafetensorsDataset, TokenDataset, write_tokens
from mlgpu.data.audio import read_wav
from mlgpu.data.collate import default_collate, default_convert
from mlgpu.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from mlgpu.data.derived import (
    FilteredDataset,
    MappedDataset,
    SampledDataset,
    ShuffledDataset,
    StreamDataset,
    WindowDataset,
)
from mlgpu.data.images import ImageFolder, read_image
from mlgpu.data.loader import DataLoader
from mlgpu.data.prefetch import Prefetcher
from mlgpu.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from mlgpu.data.tables import CSVDataset, ParquetDataset
from mlgpu.data.worker import WorkerInfo, get_worker_info

if TYPE_CHECKING:
    from mlgpu.data import datasets as datasets

__all__ = [
    "BatchSampler",
    "CSVDataset",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "FilteredDataset",
    "ImageFolder",
    "IterableDataset",
    "MappedDataset",
    "NumpyDataset",
    "ParquetDataset",
    "Prefetcher",
    "RandomSampler",
    "SafetensorsDataset",
    "SampledDataset",
    "Sampler",
    "SequentialSampler",
    "ShuffledDataset",
    "StreamDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "TokenDataset",
    "WeightedRandomSampler",
    "WindowDataset",
    "WorkerInfo",
    "datasets",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
    "read_image",
    "read_wav",
    "write_tokens",
]


if not TYPE_CHECKING:
    def __getattr__(name: str) -> Any:
        if name == "datasets":  # loaded as it is used: it brings the network's modules
            return import_module("mlgpu.data.datasets")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
