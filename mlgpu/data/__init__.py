"""Datasets, samplers and the DataLoader, with PyTorch's names (torch.utils.data)."""

from mlgpu.data.arrays import NumpyDataset, SafetensorsDataset, TokenDataset, write_tokens
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
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
    "read_image",
    "write_tokens",
]
