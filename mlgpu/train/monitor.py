"""Watching one value of the evaluations: which is the best, and stopping when none is better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlgpu.train.callback import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlgpu.train.record import Record
    from mlgpu.train.trainer import Trainer


class Monitor:
    """The name of a value and which way is better: `mode` "min" or "max".

    The mode may be left out where the name ends with "loss", "error" or "perplexity", which are
    better when they are lower; ValueError for any other name without it.
    """

    def __init__(self, name: str, mode: str | None = None) -> None:
        if mode is None and name.endswith(("loss", "error", "perplexity")):
            mode = "min"
        if mode not in ("min", "max"):
            raise ValueError(f"monitor {name!r}: say which way is better, mode='min' or "
                             f"mode='max'; got {mode!r}")
        self.name, self.mode = name, mode

    def better(self, value: float, best: float | None, min_delta: float = 0.0) -> bool:
        """Whether `value` improves on `best` by more than `min_delta`; a NaN never does."""
        if math.isnan(value):
            return False
        if best is None:
            return True
        gain = best - value if self.mode == "min" else value - best
        return gain > min_delta

    def of(self, values: Mapping[str, float]) -> float:
        """The watched value.  KeyError, naming those there are, where it is missing."""
        if self.name not in values:
            raise KeyError(f"monitor: there is no {self.name!r} among the evaluation's values "
                           f"{sorted(values)}")
        return values[self.name]


class EarlyStopping(Callback):
    """Ends the run when `patience` evaluations in a row have not improved on the best.

    An improvement is one by more than `min_delta`.  The first `warmup` evaluations do not count
    against patience.  What is watched is the Trainer's `monitor`, or another one (see Monitor for
    `mode`).
    """

    def __init__(self, patience: int = 3, *, monitor: str | None = None, mode: str | None = None,
                 min_delta: float = 0.0, warmup: int = 0) -> None:
        if patience < 1 or warmup < 0:
            raise ValueError("EarlyStopping: patience must be at least 1 and warmup at least 0, "
                             f"got {patience} and {warmup}")
        if monitor is None and mode is not None:
            raise ValueError("EarlyStopping: mode belongs to a monitor of its own; the Trainer's "
                             "has its mode there")
        if not min_delta >= 0:
            raise ValueError(f"EarlyStopping: min_delta must be at least 0, got {min_delta}")
        self.monitor = None if monitor is None else Monitor(monitor, mode)
        self.min_delta = min_delta
        self.patience, self.warmup = patience, warmup
        self.best: float | None = None
        self.evaluations = 0
        self.bad = 0  # evaluations since the best

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Take an evaluation into account."""
        if record.kind != "evaluation":
            return
        monitor = self.monitor or trainer.monitor
        value = monitor.of(record.values)
        self.evaluations += 1
        if monitor.better(value, self.best, self.min_delta):
            self.best, self.bad = value, 0
        elif self.evaluations > self.warmup:
            self.bad += 1
        self._stop(trainer)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """A run that was stopped is still stopped when it is resumed."""
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self.bad >= self.patience:
            best = "a number" if self.best is None else f"{self.best:.6g}"
            name = (self.monitor or trainer.monitor).name
            trainer.stop(f"{name} has not improved on {best} for {self.bad} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """The best value and the counts."""
        return {"best": self.best, "evaluations": self.evaluations, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best, self.evaluations, self.bad = (state["best"], state["evaluations"],
                                                 state["bad"])
