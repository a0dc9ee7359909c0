"""The plain log: a line per record, for pipes, files and CI."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from mlgpu.memory import format_bytes
from mlgpu.train.callback import Callback
from mlgpu.train.record import Record, Run

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer


class PlainLog(Callback):
    """Prints a line per record, at most one in `interval` seconds between epochs' ends.

    No control characters; to `file`, by default standard error.
    """

    def __init__(self, interval: float = 10.0, file: TextIO | None = None) -> None:
        self.interval = interval
        self._file = file
        self._last = float("-inf")  # seconds of the run at the last line of training

    def on_fit_begin(self, trainer: Trainer) -> None:
        """What is trained, and from where."""
        config = trainer.run.config
        start = f", resumed at step {trainer.run.step}" if trainer.run.step else ""
        self._print(f"training {config['model']} ({config['parameters']:,} parameters) on "
                    f"{config['device']}{start}")

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """The record's line, unless it is too soon."""
        if record.kind == "train":
            if record.seconds - self._last < self.interval:
                return
            self._last = record.seconds
        self._print(line(record))

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """How it ended, and the best."""
        self._print(ending(run))

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """That it failed."""
        self._print(ending(trainer.run))

    def _print(self, text: str) -> None:
        print(text, file=self._file or sys.stderr, flush=True)


def line(record: Record) -> str:
    """A record for people, in one line."""
    shown = "  ".join(f"{name} {value_text(name, value)}" for name, value in record.values.items())
    return f"{duration(record.seconds)}  epoch {record.epoch}  step {record.step}  {shown}"


def ending(run: Run) -> str:
    """How a run ended, in one line."""
    reason = f" ({run.reason})" if run.reason else ""
    best = ""
    if run.best is not None:
        best = f"; best {run.best.monitor} {run.best.value:.6g} at step {run.best.step}"
    return (f"{run.status}{reason} at step {run.step}, epoch {run.epoch}, after "
            f"{duration(run.seconds)}{best}")


def value_text(name: str, value: float) -> str:
    """A value for people, by what its name says it is."""
    if name in ("memory", "ram"):
        return format_bytes(int(value))
    if name == "samples_per_second":
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.3e}" if name.startswith("lr") else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
