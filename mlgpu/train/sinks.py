"""Where records go beside the log: TensorBoard, MLflow, Weights & Biases, by their own libraries.

Each is a callback, and knows its run again when a run of ours is resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlgpu.errors import FormatError
from mlgpu.extras import require
from mlgpu.train.callback import Callback
from mlgpu.train.record import Record, Run

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer


class TensorBoard(Callback):
    """Writes scalars that TensorBoard shows (`tensorboard --logdir FOLDER`), by tensorboardX.

    `folder`: by default "tensorboard" in the run's folder.  Values are under "train/", "epoch/" and
    "evaluation/".  A resumed run hides what was written after its checkpoint.  Raises
    MissingExtraError without the extra `tensorboard`.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._library: Any = require("tensorboardX", "tensorboard", "mlgpu.train.TensorBoard")
        self.folder = None if folder is None else Path(folder)
        self._writer: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Open an event file, with the configuration as text."""
        folder = self.folder
        if folder is None:
            if trainer.run.folder is None:
                raise ValueError("TensorBoard: say where to write, TensorBoard(folder), or give "
                                 "the Trainer a folder")
            folder = trainer.run.folder / "tensorboard"
        step = trainer.run.step
        # Named by the step as well: by the second alone, a run resumed at once would take the
        # place of the file before.
        self._writer = self._library.SummaryWriter(
            str(folder), purge_step=step + 1 if step else None, filename_suffix=f".{step:08}")
        lines = [f"| {name} | {value} |" for name, value in trainer.run.config.items()]
        self._writer.add_text("config", "\n".join(["| setting | value |", "|---|---|", *lines]),
                              step)

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """One scalar for each value."""
        for name, value in record.values.items():
            self._writer.add_scalar(f"{record.kind}/{name}", value, record.step)
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """Close the event file."""
        self._close()

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflow(Callback):
    """Logs parameters and metrics to an MLflow run.

    `tracking_uri`: a server or a local store (default: MLflow's own choice).  The run's status is
    finished, failed, or killed by Ctrl-C.  Raises MissingExtraError without the extra `mlflow`.
    """

    def __init__(self, experiment: str = "Default", *, tracking_uri: str | None = None,
                 name: str | None = None, tags: Mapping[str, str] | None = None) -> None:
        self._library: Any = require("mlflow", "mlflow", "mlgpu.train.MLflow")
        self.experiment, self.name, self.tags = experiment, name, dict(tags or {})
        self.tracking_uri = tracking_uri
        self.run_id: str | None = None
        self._client: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin a run, or go on with the one of the checkpoint."""
        client = self._client = self._library.MlflowClient(self.tracking_uri)
        if self.run_id is not None:
            client.update_run(self.run_id, status="RUNNING")
            return
        found = client.get_experiment_by_name(self.experiment)
        experiment = (client.create_experiment(self.experiment) if found is None
                      else found.experiment_id)
        run = client.create_run(experiment, run_name=self.name, tags=self.tags)
        self.run_id = run.info.run_id
        entities = self._library.entities
        client.log_batch(self.run_id, params=[entities.Param(name, str(value)) for name, value
                                              in trainer.run.config.items()])

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """One metric for each value."""
        now = int(time.time() * 1000)
        metrics = [self._library.entities.Metric(f"{record.kind}/{name}", value, now, record.step)
                   for name, value in record.values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """Finished, or killed."""
        self._end("KILLED" if run.status == "interrupted" else "FINISHED")

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Failed."""
        self._end("FAILED")

    def _end(self, status: str) -> None:
        if self._client is not None:
            self._client.set_terminated(self.run_id, status)
            self._client = None

    def state_dict(self) -> dict[str, Any]:
        """The run, for a resumed one to go on with."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.run_id = _known(state, "run_id")


class WandB(Callback):
    """Logs to a run of Weights & Biases.

    `options` go to `wandb.init`, such as mode="offline" or dir=.  Raises MissingExtraError without
    the extra `wandb`.
    """

    def __init__(self, project: str, *, name: str | None = None, **options: Any) -> None:
        self._library: Any = require("wandb", "wandb", "mlgpu.train.WandB")
        self.project, self.name, self.options = project, name, options
        self.run_id: str | None = None
        self._run: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin a run, or go on with the one of the checkpoint."""
        self._run = self._library.init(
            project=self.project, name=self.name, id=self.run_id, config=trainer.run.config,
            resume=None if self.run_id is None else "allow", **self.options)
        self.run_id = self._run.id

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """One value for each value, at the record's step."""
        self._run.log({f"{record.kind}/{name}": value for name, value in record.values.items()},
                      step=record.step)

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """Upload what is left; what was best stands in the run's summary."""
        if run.best is not None:
            self._run.summary[f"best/{run.best.monitor}"] = run.best.value
            self._run.summary["best/step"] = run.best.step
        self._end(0)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Mark the run as failed."""
        self._end(1)

    def _end(self, code: int) -> None:
        if self._run is not None:
            self._run.finish(exit_code=code)
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        """The run, for a resumed one to go on with."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.run_id = _known(state, "run_id")


def _known(state: dict[str, Any], key: str) -> Any:
    if set(state) != {key}:
        raise FormatError(f"mlgpu.train: expected a state with {key!r}, got {sorted(state)}")
    return state[key]
