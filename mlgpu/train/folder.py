"""A run as its folder tells of it, while it is under way, when it has ended, or after a crash."""

from __future__ import annotations

import os
from pathlib import Path

from mlgpu.errors import FormatError
from mlgpu.train.checkpoints import read, read_index
from mlgpu.train.log import LOG, read_log
from mlgpu.train.record import Best, Run


def read_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a Trainer's folder: `read_run("runs/first").report("report.html")`.

    Its records, configuration and environment from the log; the best evaluation and the model's
    summary from the newest checkpoint, if there is one.  Raises FormatError for a folder without a
    log.
    """
    folder = Path(folder)
    if not (folder / LOG).exists():
        raise FormatError(f"read_run: {str(folder)!r} holds no run of a Trainer: it has no {LOG}")
    run = read_log(folder / LOG)
    run.folder = folder
    entries = read_index(folder / "checkpoints" / "index.json")
    if entries:
        state = read(folder / "checkpoints" / entries[-1].file)
        run.summary = state["summary"]
        if state["best"] is not None:
            step, value, monitor = state["best"]
            path = folder / "checkpoints" / next((e.file for e in entries if e.step == step), "-")
            run.best = Best(step, monitor, value, path if path.exists() else None)
    return run
