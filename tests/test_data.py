"""Datasets, samplers, collation and the DataLoader without workers."""

from __future__ import annotations

import gc
import weakref
from collections import Counter, OrderedDict, UserDict
from typing import NamedTuple

import numpy as np
import pytest

import mlgpu
from mlgpu import data
from mlgpu.errors import DeviceError, FormatError, ShapeError
from mlgpu.random import Generator


class Point(NamedTuple):
    x: int
    y: float


def seeded(seed=0):
    return Generator().manual_seed(seed)


class Numbers(data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return index


class Count(data.IterableDataset):
    def __init__(self, n, length=None):
        self.n = n
        self.length = length

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        if self.length is None:
            raise TypeError("no length")
        return self.length


def batches(loader):
    return [batch.tolist() for batch in loader]


# --- datasets -------------------------------------------------------------------------------------


def test_tensor_dataset():
    dataset = data.TensorDataset(mlgpu.arange(6).view(3, 2), mlgpu.arange(3))
    assert len(dataset) == 3
    assert [t.tolist() for t in dataset[1]] == [[2, 3], 1]
    x, y = next(iter(data.DataLoader(dataset, batch_size=2)))
    assert (x.tolist(), y.tolist()) == ([[0, 1], [2, 3]], [0, 1])
    with pytest.raises(ShapeError, match="first dimensions"):
        data.TensorDataset(mlgpu.ones(2), mlgpu.ones(3))


def test_concat_and_chain():
    joined = Numbers(2) + Numbers(0) + Numbers(3)
    assert isinstance(joined, data.ConcatDataset)
    assert [joined[i] for i in range(5)] == [0, 1, 0, 1, 2]
    assert joined[-1] == 2
    for index in (5, -6):
        with pytest.raises(IndexError):
            joined[index]
    chained = Count(2, 2) + Count(1, 1)
    assert list(chained) == [0, 1, 0]
    assert len(chained) == 3
    with pytest.raises(TypeError):
        data.ConcatDataset([Count(2)])
    with pytest.raises(ValueError, match="at least one"):
        data.ConcatDataset([])
    with pytest.raises(TypeError):
        list(data.ChainDataset([Numbers(2)]))


def test_subset_fetches_a_batch_at_once_where_it_can():
    class Together(Numbers):
        def __getitems__(self, indices):
            return [-i for i in indices]

    subset = data.Subset(Together(9), [4, 2, 7])
    assert (len(subset), subset[1]) == (3, 2)
    assert batches(data.DataLoader(subset, batch_size=3)) == [[-4, -2, -7]]
    assert batches(data.DataLoader(data.Subset(Numbers(9), [4, 2]), batch_size=3)) == [[4, 2]]


def test_random_split():
    parts = data.random_split(Numbers(10), [3, 7], generator=seeded())
    assert [len(p) for p in parts] == [3, 7]
    assert sorted([*parts[0].indices, *parts[1].indices]) == list(range(10))
    again = data.random_split(Numbers(10), [3, 7], generator=seeded())
    assert [list(p) for p in parts] == [list(p) for p in again]
    assert [len(p) for p in data.random_split(Numbers(11), [0.5, 0.25, 0.25])] == [6, 3, 2]
    for lengths in ([3, 3], [0.3, 0.3], [1.5, 8.5], [-0.5, 1.5]):
        with pytest.raises(ValueError, match="random_split"):
            data.random_split(Numbers(10), lengths)


# --- samplers -------------------------------------------------------------------------------------


def test_sequential_and_batch_sampler():
    assert list(data.SequentialSampler(Numbers(3))) == [0, 1, 2]
    for drop_last, expected in ((False, [[0, 1], [2, 3], [4]]), (True, [[0, 1], [2, 3]])):
        sampler = data.BatchSampler(range(5), 2, drop_last)
        assert list(sampler) == expected
        assert len(sampler) == len(expected)
    for bad in ((0, False), (1.5, False), (True, False), (2, 1)):
        with pytest.raises(ValueError, match="should be"):
            data.BatchSampler(range(5), *bad)


def test_random_sampler():
    sampler = data.RandomSampler(Numbers(100), generator=seeded(1))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert list(data.RandomSampler(Numbers(100), generator=seeded(1))) == first
    more = list(data.RandomSampler(Numbers(3), num_samples=8, generator=seeded()))
    assert [sorted(more[:3]), sorted(more[3:6]), len(more)] == [[0, 1, 2], [0, 1, 2], 8]
    mlgpu.manual_seed(4)
    once = list(data.RandomSampler(Numbers(50)))
    mlgpu.manual_seed(4)
    assert list(data.RandomSampler(Numbers(50))) == once


def test_random_sampler_with_replacement():
    sampler = data.RandomSampler(Numbers(4), replacement=True, num_samples=9000,
                                 generator=seeded())
    counts = Counter(sampler)
    assert len(sampler) == sum(counts.values()) == 9000
    assert all(2000 < counts[i] < 2500 for i in range(4))
    for options, error in (({"num_samples": 0}, ValueError), ({"num_samples": 2.0}, ValueError),
                           ({"replacement": 1}, TypeError)):
        with pytest.raises(error):
            data.RandomSampler(Numbers(4), **options)
    with pytest.raises(ValueError, match="num_samples=0"):
        data.RandomSampler([])


def test_subset_random_sampler():
    sampler = data.SubsetRandomSampler([3, 5, 8], generator=seeded())
    assert sorted(sampler) == [3, 5, 8]
    assert len(sampler) == 3


def test_weighted_random_sampler():
    sampler = data.WeightedRandomSampler([1, 0, 3], 4000, generator=seeded())
    counts = Counter(sampler)
    assert counts[1] == 0
    assert 900 < counts[0] < 1100
    assert sorted(data.WeightedRandomSampler([1, 2, 3], 3, replacement=False)) == [0, 1, 2]
    for arguments, error in ((([1], 0), ValueError), (([[1, 2]], 1), ValueError),
                             (([1], 1, 2), TypeError)):
        with pytest.raises(error):
            data.WeightedRandomSampler(*arguments)
    with pytest.raises(RuntimeError):
        list(data.WeightedRandomSampler([1.0, 2.0], 3, replacement=False))
    with pytest.raises(RuntimeError):
        list(data.WeightedRandomSampler([1.0, -2.0], 3))


# --- collation ------------------------------------------------------------------------------------

SAMPLES = [
    [1, 2], [1.5, 2.5], [True, False], [1, 2.5], ["a", "b"], [b"a", b"b"],
    [np.float32(1), np.float32(2)], [np.int8(1), np.int8(2)], [np.array(1.0), np.array(2.0)],
    [np.ones((2, 3), np.int16), np.zeros((2, 3), np.int16)], [(1, "a"), (2, "b")],
    [[1, 2.0], [3, 4.0]], [{"a": 1, "b": [2]}, {"a": 3, "b": [4]}], [Point(1, 2.0), Point(3, 4.0)],
    [{"a": (np.ones(2), {"b": 1})}] * 2, [OrderedDict(a=1), OrderedDict(a=2)],
    [UserDict(a=1), UserDict(a=2)],
]


def plain(value):
    """A batch without tensors: (dtype, shape, values) in their place."""
    if hasattr(value, "numel"):
        return str(value.dtype).split(".")[1], tuple(value.shape), value.tolist()
    if isinstance(value, (dict, UserDict)):
        return type(value), {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [plain(v) for v in value]
    return value


@pytest.mark.parametrize("samples", SAMPLES, ids=lambda s: repr(s[0])[:30])
def test_collation_is_pytorchs(samples):
    torch = pytest.importorskip("torch")
    assert plain(data.default_collate(samples)) == plain(torch.utils.data.default_collate(samples))
    for sample in samples:
        converted = torch.utils.data.default_convert(sample)
        assert plain(data.default_convert(sample)) == plain(converted)


def test_collation_of_tensors():
    batch = data.default_collate([{"x": (mlgpu.ones(2), 1)}, {"x": (mlgpu.zeros(2), 2)}])
    assert batch["x"][0].tolist() == [[1, 1], [0, 0]]
    assert batch["x"][1].tolist() == [1, 2]
    assert batch["x"][1].dtype is mlgpu.int64


@pytest.mark.parametrize(("samples", "error"), [
    ([None, None], TypeError), ([object()], TypeError), ([np.array(["a"])], TypeError),
    ([[1, 2], [3]], RuntimeError), ([mlgpu.ones(2), mlgpu.ones(3)], RuntimeError),
    ([{"a": 1}, {"b": 1}], KeyError), ([], IndexError)])
def test_collation_refuses(samples, error):
    with pytest.raises(error):
        data.default_collate(samples)


# --- the loader -----------------------------------------------------------------------------------


def test_batches_in_order():
    loader = data.DataLoader(Numbers(5), batch_size=2)
    assert batches(loader) == batches(loader) == [[0, 1], [2, 3], [4]]
    assert len(loader) == 3
    assert len(data.DataLoader(Numbers(5), batch_size=2, drop_last=True)) == 2
    assert list(data.DataLoader(Numbers(3), batch_size=None)) == [0, 1, 2]
    assert batches(data.DataLoader([5, 6, 7])) == [[5], [6], [7]]
    assert batches(data.DataLoader(Numbers(9), sampler=[3, 1], batch_size=2)) == [[3, 1]]
    loader = data.DataLoader(Numbers(9), batch_sampler=[[1, 2], [8]])
    assert batches(loader) == [[1, 2], [8]]
    assert (loader.batch_size, loader.drop_last, len(loader)) == (None, False, 2)
    assert list(data.DataLoader(Numbers(4), batch_size=3, collate_fn=tuple)) == [(0, 1, 2), (3,)]


def test_shuffling_follows_from_the_generator():
    def epochs(generator):
        loader = data.DataLoader(Numbers(20), batch_size=3, shuffle=True, generator=generator)
        return [batches(loader), batches(loader)]

    first, second = epochs(seeded(5))
    assert first != second
    assert sorted(i for batch in first for i in batch) == list(range(20))
    assert epochs(seeded(5)) == [first, second]
    assert epochs(seeded(6)) != [first, second]
    mlgpu.manual_seed(5)
    unnamed = epochs(None)
    mlgpu.manual_seed(5)
    assert epochs(None) == unnamed


def test_iterable_datasets():
    assert batches(data.DataLoader(Count(5), batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert batches(data.DataLoader(Count(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert list(data.DataLoader(Count(3), batch_size=None)) == [0, 1, 2]
    assert len(data.DataLoader(Count(5, 5), batch_size=2)) == 3
    with pytest.raises(TypeError, match="length"):
        len(data.DataLoader(Count(5)))
    assert data.get_worker_info() is None


OPTIONS = [
    (Numbers(3), {"num_workers": -1}, "num_workers"),
    (Numbers(3), {"timeout": -1}, "timeout option should be non-negative"),
    (Numbers(3), {"timeout": 1}, "timeout"),
    (Numbers(3), {"prefetch_factor": 2}, "prefetch_factor"),
    (Numbers(3), {"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"),
    (Numbers(3), {"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
    (Numbers(3), {"multiprocessing_context": "spawn"}, "multiprocessing_context"),
    (Numbers(3), {"num_workers": 1, "multiprocessing_context": "x"}, "valid start method"),
    (Numbers(3), {"sampler": [1], "shuffle": True}, "mutually exclusive"),
    (Numbers(3), {"batch_sampler": [[1]], "batch_size": 2}, "mutually exclusive"),
    (Numbers(3), {"batch_sampler": [[1]], "drop_last": True}, "mutually exclusive"),
    (Numbers(3), {"batch_sampler": [[1]], "shuffle": True}, "mutually exclusive"),
    (Numbers(3), {"batch_size": None, "drop_last": True}, "mutually exclusive"),
    (Numbers(3), {"batch_size": 0}, "batch_size should be a positive integer"),
    (Numbers(3), {"batch_size": 2.5}, "batch_size should be a positive integer"),
    (Numbers(0), {"shuffle": True}, "num_samples"),
    (Count(3), {"shuffle": True}, "expected unspecified shuffle"),
    (Count(3), {"sampler": [1]}, "expected unspecified sampler"),
    (Count(3), {"batch_sampler": [[1]]}, "expected unspecified batch_sampler"),
    (Count(3), {"batch_size": 0}, "batch_size should be a positive integer"),
]


def name(value) -> str:
    """A test's name, the same in every process: no address in it."""
    return type(value).__name__ if isinstance(value, (Numbers, Count)) else str(value)[:40]


@pytest.mark.parametrize(("dataset", "options", "message"), OPTIONS, ids=name)
def test_wrong_options(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        data.DataLoader(dataset, **options)


@pytest.mark.parametrize(("dataset", "options", "message"), OPTIONS, ids=name)
def test_pytorch_refuses_the_same_options(dataset, options, message):
    torch = pytest.importorskip("torch")
    if isinstance(dataset, Count):
        torch_dataset = type("T", (torch.utils.data.IterableDataset,), {"__iter__": iter})()
    else:
        torch_dataset = list(range(len(dataset)))
    if options.get("prefetch_factor") == 0:
        return  # PyTorch takes it, and then gives no batches
    with pytest.raises((ValueError, AssertionError)):
        iter(torch.utils.data.DataLoader(torch_dataset, **options))


def test_settings_are_fixed_and_pinning_needs_cuda(no_cuda):
    loader = data.DataLoader(Numbers(3))
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset"):
        with pytest.raises(ValueError, match="should not be set"):
            setattr(loader, name, None)
    with pytest.raises(DeviceError, match="pin_memory"):
        data.DataLoader(Numbers(3), pin_memory=True)


def test_a_stop_iteration_in_the_dataset_does_not_end_the_epoch_silently():
    class Broken(Numbers):
        def __getitem__(self, index):
            return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(data.DataLoader(Broken(3)))


def test_a_dropped_batch_is_gone_before_the_next_is_fetched():
    seen = []

    class Rows(Numbers):
        def __getitem__(self, index):
            assert all(ref() is None for ref in seen)
            return np.full(3, index)

    gc.disable()
    try:
        iterator = iter(data.DataLoader(Rows(4)))
        while (batch := next(iterator, None)) is not None:
            seen.append(weakref.ref(batch))
            del batch
    finally:
        gc.enable()
    assert len(seen) == 4


# --- resuming -------------------------------------------------------------------------------------


def resumable(**options):
    return data.DataLoader(Numbers(23), batch_size=2, **options)


@pytest.mark.parametrize("options", [
    dict, lambda: {"shuffle": True, "generator": seeded(7)}, lambda: {"shuffle": True},
    lambda: {"sampler": data.RandomSampler(Numbers(23), replacement=True, generator=seeded(7))},
    lambda: {"sampler": data.WeightedRandomSampler(range(1, 24), 23, generator=seeded(7))},
], ids=["sequential", "generator", "process", "replacement", "weighted"])
@pytest.mark.parametrize("after", [0, 1, 5, 12])
def test_resuming_in_the_middle_gives_the_rest(tmp_path, options, after):
    mlgpu.manual_seed(1)
    loader = resumable(**options())
    batches(loader)
    iterator = iter(loader)
    for _ in range(after):
        next(iterator)
    path = tmp_path / "state"
    mlgpu.save({"loader": loader.state_dict(), "random": mlgpu.get_rng_state()}, path)
    rest, following = batches(iterator), batches(loader)
    assert len(rest) == 12 - after

    mlgpu.manual_seed(99)
    state = mlgpu.load(path)
    fresh = resumable(**options())
    mlgpu.set_rng_state(state["random"])
    fresh.load_state_dict(state["loader"])
    assert batches(fresh) == rest
    assert batches(fresh) == following


def test_the_state_between_epochs_is_the_start_of_the_next():
    loader = resumable(shuffle=True, generator=seeded(3))
    before = loader.state_dict()
    first = batches(loader)
    between = loader.state_dict()
    second = batches(loader)
    for state, expected in ((before, first), (between, second)):
        fresh = resumable(shuffle=True, generator=seeded(8))
        fresh.load_state_dict(state)
        assert batches(fresh) == expected


def test_resuming_an_iterable_dataset_skips():
    loader = data.DataLoader(Count(7), batch_size=2)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    fresh = data.DataLoader(Count(7), batch_size=2)
    fresh.load_state_dict(state)
    assert batches(fresh) == [[2, 3], [4, 5], [6]]
    assert batches(fresh) == [[0, 1], [2, 3], [4, 5], [6]]


def test_states_of_other_loaders_are_refused():
    loader = resumable(shuffle=True, generator=seeded(3))
    next(iter(loader))
    for wrong in (resumable(), resumable(generator=seeded())):
        with pytest.raises(FormatError):
            wrong.load_state_dict(loader.state_dict())
    with pytest.raises(FormatError, match="keys"):
        loader.load_state_dict({})


def test_names_under_utils():
    from mlgpu.utils import data as there

    assert there.DataLoader is data.DataLoader
    assert set(there.__all__) == set(data.__all__)
