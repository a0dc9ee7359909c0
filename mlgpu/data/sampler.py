"""Samplers: the order in which a DataLoader asks for samples.

The random ones draw one seed from their generator whenever they are iterated, and everything about
that pass follows from it; so a pass can be repeated from the seed alone, which `state_dict` holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import mlgpu.ops.random as draw
from mlgpu.errors import FormatError, ShapeError
from mlgpu.ops.creation import as_tensor
from mlgpu.random import Generator

T_co = TypeVar("T_co", covariant=True)
_CHUNK = 4096  # with replacement, this many indices are drawn at a time


def draw_seed(generator: Generator | None) -> int:
    """A fresh 63-bit seed from `generator`, or from the process's own where it is None."""
    return int(draw.randint(0, 2**63 - 1, (), generator=generator).item())


def permutation(n: int, generator: Generator | None) -> list[int]:
    """0 ... n-1 in random order."""
    order: list[int] = draw.randperm(n, generator=generator).tolist()
    return order


class Sampler(Generic[T_co]):
    """An iterable of indices or, as batch sampler, of lists of them; subclasses define `__iter__`.

    `__len__` is needed only where someone asks for the loader's length.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... len(data_source) - 1."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class SeededSampler(Sampler[int]):
    """A random sampler: subclasses define `_indices(generator)` and `__len__`."""

    def __init__(self, generator: Generator | None) -> None:
        self.generator = generator
        self._seed: int | None = None
        self._resume = False

    def __iter__(self) -> Iterator[int]:
        if not self._resume or self._seed is None:
            self._seed = draw_seed(self.generator)
        self._resume = False
        return self._indices(Generator().manual_seed(self._seed))

    def _indices(self, generator: Generator) -> Iterator[int]:
        raise NotImplementedError(f"{type(self).__name__} must define _indices")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def state_dict(self) -> dict[str, Any]:
        """The seed of the pass that was begun last (None before the first), and the generator's."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"seed": self._seed, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass be the one of `state`; later ones draw their seeds again."""
        if set(state) != {"seed", "generator"}:
            raise FormatError(f"{type(self).__name__}: expected the state_dict of such a sampler, "
                              f"got the keys {sorted(state)}")
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])
        self._seed = state["seed"]
        self._resume = True


class RandomSampler(SeededSampler):
    """A random permutation of the indices; with `replacement`, independent draws.

    `num_samples` (default: all) may exceed the length: without replacement, permutations follow
    each other.
    """

    def __init__(self, data_source: Sized, replacement: bool = False,
                 num_samples: int | None = None, generator: Generator | None = None) -> None:
        super().__init__(generator)
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        if not isinstance(replacement, bool):
            raise TypeError("RandomSampler: replacement should be a boolean value, but got "
                            f"replacement={replacement}")
        _check_count("RandomSampler", self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives."""
        # Asked anew each time: the dataset may have grown.
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _indices(self, generator: Generator) -> Iterator[int]:
        n, remaining = len(self.data_source), self.num_samples
        while remaining > 0:
            if self.replacement:
                chunk = draw.randint(0, n, (min(_CHUNK, remaining),), generator=generator).tolist()
            else:
                chunk = permutation(n, generator)[:remaining]
            remaining -= len(chunk)
            yield from chunk

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(SeededSampler):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        super().__init__(generator)
        self.indices = indices

    def _indices(self, generator: Generator) -> Iterator[int]:
        return (self.indices[i] for i in permutation(len(self.indices), generator))

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(SeededSampler):
    """`num_samples` indices into `weights`, each drawn with probability proportional to its weight.

    Without replacement, an index that was drawn is not drawn again.
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True,
                 generator: Generator | None = None) -> None:
        super().__init__(generator)
        _check_count("WeightedRandomSampler", num_samples)
        if not isinstance(replacement, bool):
            raise TypeError("WeightedRandomSampler: replacement should be a boolean value, but got "
                            f"replacement={replacement}")
        self.weights = as_tensor(weights).double()
        if self.weights.ndim != 1:
            raise ShapeError("WeightedRandomSampler: weights should be a 1d sequence but given "
                             f"weights have shape {tuple(self.weights.shape)}")
        self.num_samples = num_samples
        self.replacement = replacement

    def _indices(self, generator: Generator) -> Iterator[int]:
        drawn = draw.multinomial(self.weights, self.num_samples, self.replacement,
                                 generator=generator)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler; the last may be shorter, or is dropped."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if type(batch_size) is not int or batch_size <= 0:
            raise ValueError("BatchSampler: batch_size should be a positive integer value, but got "
                             f"batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError("BatchSampler: drop_last should be a boolean value, but got "
                             f"drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        # Here and not in the generator, so that a seed is drawn when the pass is begun.
        return self._batches(iter(self.sampler))

    def _batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _check_count(name: str, count: int) -> None:
    if type(count) is not int or count <= 0:
        raise ValueError(f"{name}: num_samples should be a positive integer value, but got "
                         f"num_samples={count}")
