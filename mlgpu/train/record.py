"""What a run tells: records of values by step, and the run as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Kind = str  # "train": means since the last one; "epoch": means of an epoch; "evaluation"


@dataclass(frozen=True)
class Record:
    """Values at one step of a run."""

    kind: Kind
    step: int  # optimizer steps taken
    epoch: int  # the epoch that it is in, from 1
    seconds: float  # of training so far, resumed runs included
    values: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Best:
    """The best evaluation so far, by the monitored value."""

    step: int
    monitor: str
    value: float
    path: Path | None  # its checkpoint, where one is kept


@dataclass
class Run:
    """A run of a Trainer: what it was made of, what it told, and how it ended.

    `status`: "running", "finished", "stopped" (a callback's doing, such as early stopping),
    "interrupted" (Ctrl-C) or "failed"; `reason` says more.
    """

    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[Record] = field(default_factory=list)
    summary: dict[str, Any] | None = None  # of the model, see mlgpu.nn.summary
    step: int = 0
    epoch: int = 0  # epochs completed
    seconds: float = 0.0
    status: str = "running"
    reason: str = ""
    best: Best | None = None
    folder: Path | None = None

    def names(self, *kinds: Kind) -> list[str]:
        """The names of all values in the history, or in its records of these kinds."""
        found: dict[str, None] = {}
        for record in self.history:
            if not kinds or record.kind in kinds:
                found.update(dict.fromkeys(record.values))
        return list(found)

    def curve(self, name: str, kind: Kind | None = None) -> tuple[list[int], list[float]]:
        """Steps and values of one name; KeyError where no record has it."""
        points = [(record.step, record.values[name]) for record in self.history
                  if name in record.values and kind in (None, record.kind)]
        if not points:
            raise KeyError(f"Run.curve: there is no {name!r}; the run has {self.names()}")
        steps, values = zip(*points, strict=True)
        return list(steps), list(values)

    @property
    def last(self) -> dict[str, float]:
        """The newest value of each name."""
        newest: dict[str, float] = {}
        for record in self.history:
            newest.update(record.values)
        return newest

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the run as one HTML page, atomically: curves, settings, machine, model.

        Nothing in it is loaded from elsewhere.  Returns its path.
        """
        from mlgpu.train.report import write

        return write(self, path)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as what JSON holds: numbers, text, lists and mappings; others by `str`."""
    return {str(name): _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
