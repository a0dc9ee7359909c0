"""Datasets, samplers and the DataLoader, with PyTorch's names (torch.utils.data)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlgpu.data.arrays import (
    NumpyDataset,
    SafetensorsDataset,
    TokenDataset,
    index_tokens,
    write_tokens,
)
from mlgpu.data.audio import read_wav
from mlgpu.data.coco import CocoDetection, collate_detection
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
from mlgpu.data.folders import TextFolder
from mlgpu.data.frames import FrameDataset
from mlgpu.data.images import (
    ImageFolder,
    MultiLabelImages,
    SegmentationFolder,
    decode_image,
    read_image,
    read_mask,
)
from mlgpu.data.json_lines import JSONLinesDataset
from mlgpu.data.loader import DataLoader
from mlgpu.data.prefetch import Prefetcher
from mlgpu.data.run_lengths import decode_mask, encode_rle
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
    from mlgpu.data.sqlite import SQLiteDataset, SQLiteQuery, write_sqlite

__all__ = [
    "BatchSampler",
    "CSVDataset",
    "ChainDataset",
    "CocoDetection",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "FilteredDataset",
    "FrameDataset",
    "ImageFolder",
    "IterableDataset",
    "JSONLinesDataset",
    "MappedDataset",
    "MultiLabelImages",
    "NumpyDataset",
    "ParquetDataset",
    "Prefetcher",
    "RandomSampler",
    "SQLiteDataset",
    "SQLiteQuery",
    "SafetensorsDataset",
    "SampledDataset",
    "Sampler",
    "SegmentationFolder",
    "SequentialSampler",
    "ShuffledDataset",
    "StreamDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "TextFolder",
    "TokenDataset",
    "WeightedRandomSampler",
    "WindowDataset",
    "WorkerInfo",
    "collate_detection",
    "datasets",
    "decode_image",
    "decode_mask",
    "default_collate",
    "default_convert",
    "encode_rle",
    "get_worker_info",
    "index_tokens",
    "random_split",
    "read_image",
    "read_mask",
    "read_wav",
    "write_sqlite",
    "write_tokens",
]


if not TYPE_CHECKING:
    def __getattr__(name: str) -> Any:
        # Loaded as they are used: they bring the network's modules, and SQLite.
        if name == "datasets":
            return import_module("mlgpu.data.datasets")
        if name in ("SQLiteDataset", "SQLiteQuery", "write_sqlite"):
            return getattr(import_module("mlgpu.data.sqlite"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
