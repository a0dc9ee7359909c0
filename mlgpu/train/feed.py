"""The batches of a run: from the place where an epoch was left, on the model's device."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlgpu.data.dataset import IterableDataset
from mlgpu.errors import FormatError
from mlgpu.nn.undisturbed import drawn, random_state, set_random_state
from mlgpu.tensor import Tensor


class Feed:
    """Gives the batches of a loader, epoch after epoch, and knows how to find its place again.

    A loader with `state_dict` and `load_state_dict`, such as a DataLoader, finds it by itself.  Of
    any other iterable the batches before are asked for again and dropped, with the random numbers
    that it had at the start of the epoch.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.batches = 0  # given in this epoch
        self._start: dict[str, Any] | None = None  # the random state as this epoch began
        self._iterator: Iterator[Any] | None = None  # None where the epoch has no more batches

    @property
    def within(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return self._start is not None

    @property
    def total(self) -> int | None:
        """Batches of an epoch, where the loader has a length."""
        return length(self.loader)

    def begin(self) -> None:
        """Begin an epoch."""
        self.batches, self._start = 0, random_state()
        self._iterator = iter(self.loader)

    def take(self, count: int) -> list[Any]:
        """The next `count` batches, or fewer at the end of the epoch, which none ends."""
        taken = list(itertools.islice(self._iterator or (), count))
        self.batches += len(taken)
        if len(taken) < count:
            self._iterator = None
        if not taken:
            self._start = None
        return taken

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch."""
        stateful = hasattr(self.loader, "load_state_dict")
        return {"batches": self.batches, "start": self._start,
                "exhausted": self._iterator is None,
                "loader": self.loader.state_dict() if stateful else None}  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the place that `state` says; the process's random numbers are as before."""
        stateful = hasattr(self.loader, "load_state_dict")
        if stateful != (state["loader"] is not None):
            raise FormatError("Trainer: the checkpoint is of a run with a loader "
                              f"{'without' if stateful else 'with'} a state_dict; resume with the "
                              "loader that the run was begun with")
        if stateful:
            self.loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        self._start, self.batches, self._iterator = state["start"], state["batches"], None
        if self._start is None or state["exhausted"]:
            return
        now = random_state()
        set_random_state(self._start)
        self._iterator = iter(self.loader)
        if stateful and self.batches and _streams_here(self.loader) and (
                drawn(self._start) != drawn(random_state())):
            warnings.warn(
                "Trainer: the IterableDataset draws from the process's own random numbers, which "
                "training draws from too: unless it drew all before its first batch, the batches "
                "to come are others than without the interruption. Give the DataLoader workers, "
                "whose numbers are repeated exactly", stacklevel=5)
        if not stateful:
            skipped = sum(1 for _ in itertools.islice(self._iterator, self.batches))
            if skipped != self.batches:
                raise FormatError(f"Trainer: the checkpoint was made after {self.batches} batches "
                                  f"of an epoch, and the loader has only {skipped}; resume with "
                                  "the data that the run was begun with")
        set_random_state(now)


def _streams_here(loader: Any) -> bool:
    """Whether a DataLoader iterates over an IterableDataset in this process."""
    return (isinstance(getattr(loader, "dataset", None), IterableDataset)
            and not getattr(loader, "num_workers", 0))


def length(loader: Iterable[Any]) -> int | None:
    """How many batches a loader says it has."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def samples(batch: Any) -> int:
    """How many samples a batch holds: the first dimension of its first tensor, or 1."""
    first = _first_tensor(batch)
    return 1 if first is None or first.ndim == 0 else int(first.shape[0])


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        return next((found for part in batch if (found := _first_tensor(part)) is not None), None)
    return None
