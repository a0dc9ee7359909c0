"""The checkpoints of a run: which are kept, and how they come to the disk.

    folder/checkpoints/step-00000120.safetensors    everything a run consists of after 120 steps
    folder/checkpoints/index.json                   those that are whole, in the order of writing

A file is written by a thread in the background and renamed into place; then the index is, and only
then what it no longer names is removed.  So whenever a process dies, the index names whole files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlgpu.errors import FormatError, MlgpuError
from mlgpu.io import load, save
from mlgpu.io.atomic import replace_file
from mlgpu.io.lock import try_lock
from mlgpu.train.background import Background
from mlgpu.train.monitor import Monitor
from mlgpu.train.state import snapshot

VERSION = 1
_OURS = re.compile(r"(step-\d+\.safetensors|index\.json)(\.[0-9a-f]{16}\.tmp)?")


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written, and which are kept.

    One is written after every `every_steps` steps and `every_epochs` epochs (None: not for that),
    at the end of `fit`, and after an evaluation that is the best so far if `keep_best`.  The last
    `keep_last` stay, and the best `keep_best` by the value that the Trainer monitors.
    """

    every_steps: int | None = None
    every_epochs: int | None = 1
    keep_last: int = 1
    keep_best: int = 1

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Checkpoints: {name} must be at least 1 or None, got {value}")
        if self.keep_last < 1 or self.keep_best < 0:
            raise ValueError("Checkpoints: keep_last must be at least 1 and keep_best at least 0, "
                             f"got {self.keep_last} and {self.keep_best}")


@dataclass(frozen=True)
class Entry:
    """One whole checkpoint, and the monitored value of the evaluation at its step, if any."""

    step: int
    file: str
    value: float | None


class Store:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path, settings: Checkpoints, monitor: Monitor) -> None:
        self.folder = folder / "checkpoints"
        self._settings, self._monitor = settings, monitor
        self._background = Background()
        self.entries = read_index(self.folder / "index.json")

    @property
    def latest(self) -> Path | None:
        """The newest checkpoint."""
        return self.folder / self.entries[-1].file if self.entries else None

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08}.safetensors"

    def clear(self) -> None:
        """Remove all checkpoints."""
        self.entries = []
        if self.folder.exists():
            _write_index(self.folder / "index.json", [])
            self.tidy()

    def tidy(self) -> None:
        """Remove what a killed process has left: files of ours that the index does not name."""
        named = {"index.json", *(entry.file for entry in self.entries)}
        for path in self.folder.glob("*"):
            if path.name not in named and _OURS.fullmatch(path.name):
                path.unlink()

    def write(self, state: dict[str, Any], step: int, value: float | None) -> Path:
        """Copy `state` now and write it in the background.  Raises what the last writing raised."""
        self._background.finish()  # before the copy, so that there is one copy at a time
        copied = snapshot(state)
        entries = [entry for entry in self.entries if entry.step != step]
        if value is None:
            value = next((entry.value for entry in self.entries if entry.step == step), None)
        entries.append(Entry(step, self.path(step).name, value))
        self.entries = self._kept(entries)
        dropped = {entry.file for entry in entries}.difference(e.file for e in self.entries)
        kept = list(self.entries)

        def job() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            save(copied, self.path(step))
            _write_index(self.folder / "index.json", kept)
            for file in dropped:
                (self.folder / file).unlink(missing_ok=True)

        self._background.start(job)
        return self.path(step)

    def check(self) -> None:
        """Raise what the writing in the background raised, if it has ended."""
        self._background.check()

    def finish(self) -> None:
        """Wait for the writing in the background.  Raises what it raised."""
        self._background.finish()

    def settle(self) -> BaseException | None:
        """Wait for the writing in the background, and answer with what it raised."""
        return self._background.settle()

    def _best(self) -> list[Entry]:
        """The entries with a value, the best first; of equal ones, the earlier."""
        valued = [entry for entry in self.entries if entry.value is not None]
        sign = 1.0 if self._monitor.mode == "min" else -1.0
        return sorted(valued, key=lambda entry: (sign * (entry.value or 0.0), entry.step))

    def _kept(self, entries: list[Entry]) -> list[Entry]:
        self.entries = entries
        kept = {entry.step for entry in entries[-self._settings.keep_last:]}
        kept |= {entry.step for entry in self._best()[:self._settings.keep_best]}
        return [entry for entry in entries if entry.step in kept]


def read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint.  FormatError for a file that is none."""
    state = load(path)
    if not isinstance(state, dict) or "progress" not in state:
        raise FormatError(f"Trainer: {str(path)!r} is no checkpoint of a Trainer")
    if state["version"] != VERSION:
        raise FormatError(f"Trainer: {str(path)!r} has version {state['version']!r}, and this "
                          f"mlgpu reads {VERSION}")
    return state


def read_index(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [Entry(int(item["step"]), str(item["file"]),
                      None if item["value"] is None else float(item["value"]))
                for item in json.loads(text)["checkpoints"]]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"Trainer: {str(path)!r} is no index of checkpoints: {error!r}"
                          ) from error


def _write_index(path: Path, entries: list[Entry]) -> None:
    text = json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1)
    with replace_file(path) as file:
        file.write(text.encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone.  MlgpuError while another trains in it.

    The system lets go of the lock when the process ends, whichever way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+b") as file:
        try:
            try_lock(file.fileno())
        except OSError:
            raise MlgpuError(f"Trainer: another run is under way in {str(folder)!r}; choose "
                             "another folder, or wait for it") from None
        yield
