"""The log of a run: one JSON object a line, which is also where a resumed run finds its history."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlgpu.errors import FormatError
from mlgpu.io.atomic import replace_file
from mlgpu.train.callback import Callback
from mlgpu.train.record import Record, Run

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer

LOG = "log.jsonl"  # its name in a run's folder


class JsonLines(Callback):
    """Writes a run's records to a file, a JSON object a line: the `log.jsonl` of a run's folder.

    {"event": "begin", "step", "config", "environment"}, then {"event": "train" | "epoch" |
    "evaluation", "step", "epoch", "seconds", "values"} as they come, "checkpoint" with its "file",
    and "end" with "status" and "reason".  Infinities and NaN are the texts "inf", "-inf", "nan".
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Write the file anew as far as the run has come, then go on below."""
        run = trainer.run
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [_begin(run, 0), *({"event": record.kind, **_record(record)}
                                   for record in run.history)]
        if run.step:
            lines.append(_begin(run, run.step))
        with replace_file(self.path) as file:
            file.write("".join(map(_line, lines)).encode())
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  closed at the end

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """A line for the record."""
        self._write({"event": record.kind, **_record(record)})

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """A line for the checkpoint, on the disk before the checkpoint is."""
        self._write({"event": "checkpoint", "step": trainer.run.step, "file": path.name})
        if self._file is not None:
            os.fsync(self._file.fileno())

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """The last line."""
        self._end(run)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """The last line."""
        self._end(trainer.run)

    def _end(self, run: Run) -> None:
        if self._file is not None:
            self._write({"event": "end", "step": run.step, "status": run.status,
                         "reason": run.reason})
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(_line(line))
            self._file.flush()


def read_log(path: Path) -> Run:
    """The run that a log tells of; a last line that was cut off is left out.

    Raises FormatError for any other line that is none of a log.
    """
    run = Run({}, {}, reason="its log has no end")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            _take(run, json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"Trainer: line {number} of {str(path)!r} is none of a log: "
                              f"{error!r}") from error
    if run.history:
        newest = run.history[-1]
        run.step, run.seconds = max(run.step, newest.step), newest.seconds
        run.epoch = sum(record.kind == "epoch" for record in run.history)
    return run


def _take(run: Run, entry: dict[str, Any]) -> None:
    """What one line adds to a run."""
    if "values" in entry:
        values = {name: float(value) for name, value in entry["values"].items()}
        run.history.append(Record(entry["event"], int(entry["step"]), int(entry["epoch"]),
                                  float(entry["seconds"]), values))
    elif entry["event"] == "begin":
        run.config, run.environment = dict(entry["config"]), dict(entry["environment"])
        run.status, run.reason = "running", "its log has no end"
    elif entry["event"] == "end":
        run.status, run.reason, run.step = (str(entry["status"]), str(entry["reason"]),
                                            int(entry["step"]))


def _begin(run: Run, step: int) -> dict[str, Any]:
    return {"event": "begin", "step": step, "config": run.config, "environment": run.environment}


def _record(record: Record) -> dict[str, Any]:
    fields = record.as_dict()
    del fields["kind"]
    fields["values"] = {name: value if math.isfinite(value) else str(value)
                        for name, value in record.values.items()}
    return fields


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"
