"""Trainer: the loop around a model, an optimizer and a loss, which can stop and go on anywhere."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlgpu import amp, memory
from mlgpu.data.collate import move
from mlgpu.device import Device, current_device, resolve
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import FormatError, MlgpuError
from mlgpu.nn.model_summary import observed
from mlgpu.nn.module import Module
from mlgpu.nn.undisturbed import random_state, set_random_state
from mlgpu.optim.lr_scheduler import ReduceLROnPlateau
from mlgpu.optim.optimizer import Optimizer
from mlgpu.train import checkpoints as store
from mlgpu.train.callback import Callback, Callbacks
from mlgpu.train.checkpoints import Checkpoints, Store
from mlgpu.train.describe import configuration, environment
from mlgpu.train.display import display_for
from mlgpu.train.evaluate import Metric, computed, evaluate, update_metrics
from mlgpu.train.feed import Feed, length, samples
from mlgpu.train.interrupt import Interrupt
from mlgpu.train.log import LOG, JsonLines, read_log
from mlgpu.train.means import Means
from mlgpu.train.monitor import Monitor
from mlgpu.train.record import Best, Record, Run, plain
from mlgpu.train.state import set_state_of, state_of, unpacked
from mlgpu.train.step import StepFunction, Update, from_loss


@dataclass
class Goal:
    """How far `fit` is to go, and how often it evaluates."""

    epochs: int | None
    steps: int | None
    evaluate_every: int | None  # steps; None: after each epoch


@dataclass
class Progress:
    """How far a run has come: what a checkpoint counts with."""

    step: int = 0
    epoch: int = 0  # completed
    samples: int = 0
    skipped: int = 0  # steps left out for a loss that was not finite
    seconds: float = 0.0
    due: bool = False  # an evaluation that was asked for and not completed


class Trainer:
    """Trains `model` by `optimizer`; what a batch's loss is, `loss` or `step` says.

    With `loss`, a batch is (input, ..., target) and its loss `loss(model(input, ...), target)`.
    Otherwise `step(model, batch)` returns the loss, or a dict with "loss" and, if you like,
    "prediction" and "target" for metrics, and further numbers, which are logged.

        trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), folder="runs/first")
        run = trainer.fit(train_loader, val_loader, epochs=10)
        run.report("report.html")

    scheduler: stepped after every step ("step"), epoch ("epoch") or evaluation ("evaluation"), by
        `schedule`; a ReduceLROnPlateau after every evaluation, with the monitored value.
    optimizer: also one that computes the gradients of a step several times (LBFGS, SAM); metrics
        and the log have the first of them.  It takes no scaler.
    metrics, train_metrics: by name, anything with update(prediction, target), compute() and
        reset(); over each evaluation ("val_" before the name), or over each epoch of training.
    monitor, mode: the value of evaluations that says which is best, and which way is better (see
        Monitor).
    accumulate: batches per step of the optimizer.  Its gradient is that of the mean over all their
        samples, which `count(batch)` counts (default: the first dimension of the first tensor).
    clip_norm, clip_value: bounds for the gradients' norm and elements.
    autocast, scaler: for mixed precision, the dtype (mlgpu.bfloat16 or float16), or a function
        that gives the context of forward passes; and a mlgpu.amp.GradScaler, which float16 needs.
    nonfinite: a loss (or norm, with clip_norm) that is infinite or NaN raises NonFiniteError before
        a parameter is changed ("raise"), leaves the step out, buffers included ("skip"), or is let
        through ("ignore").
        Only "ignore" never waits for the device.
    folder: for the log (`log.jsonl`) and checkpoints; without it nothing is written.
    checkpoints: when they are written and which are kept.
    callbacks: see Callback.  display: "dashboard", "plain", "none", or "auto": the dashboard in a
        terminal (with the extra `train`), else plain lines.
    log_every: steps per record of training.
    device: where batches are moved; by default where the model's first parameter is.
    also: by name, what else has a state that resuming needs, such as a Generator or an average of
        the weights: anything with state_dict and load_state_dict, or get_state and set_state.
    config: plain values to show with the run.
    """

    def __init__(self, model: Module, optimizer: Optimizer, loss: Callable[..., Any] | None = None,
                 *, step: StepFunction | None = None, scheduler: Any = None,
                 schedule: str = "step", metrics: Mapping[str, Metric] | None = None,
                 train_metrics: Mapping[str, Metric] | None = None, monitor: str = "val_loss",
                 mode: str | None = None, accumulate: int = 1,
                 count: Callable[[Any], int] | None = None, clip_norm: float | None = None,
                 clip_value: float | None = None,
                 autocast: DType | Callable[[], AbstractContextManager[Any]] | None = None,
                 scaler: Any = None, nonfinite: str = "raise",
                 folder: str | os.PathLike[str] | None = None,
                 checkpoints: Checkpoints | None = None, callbacks: Sequence[Callback] = (),
                 display: str = "auto", log_every: int = 10, device: Device | str | None = None,
                 also: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
                 ) -> None:
        if (loss is None) == (step is None):
            raise TypeError("Trainer: give either loss, a function of prediction and target, or "
                            "step, a function of model and batch")
        _check_choice("schedule", schedule, ("step", "epoch", "evaluation"))
        _check_choice("display", display, ("auto", "dashboard", "plain", "none"))
        _check_choice("nonfinite", nonfinite, ("raise", "skip", "ignore"))
        _check_positive(accumulate=accumulate, log_every=log_every, clip_norm=clip_norm,
                        clip_value=clip_value)
        if checkpoints is not None and folder is None:
            raise ValueError("Trainer: checkpoints need a folder to be written to; pass folder=")
        if optimizer.needs_closure and scaler is not None:
            raise ValueError(f"Trainer: {type(optimizer).__name__} computes gradients several "
                             "times a step, whose scale could change between them; leave scaler= "
                             "out, and use bfloat16 for mixed precision")
        self.model, self.optimizer, self.scheduler, self.scaler = (model, optimizer, scheduler,
                                                                   scaler)
        self.metrics = dict(metrics or {})
        self.train_metrics = dict(train_metrics or {})
        both = [name for name, metric in self.metrics.items()
                if any(metric is other for other in self.train_metrics.values())]
        if both:
            raise ValueError(f"Trainer: the metric {both[0]!r} is given for training and for "
                             "evaluation, which would clear it in the middle of an epoch; give two")
        self.accumulate, self.log_every = accumulate, log_every
        self.checkpoints = checkpoints or Checkpoints()
        self.monitor = Monitor(monitor, mode)
        self.also = dict(also or {})
        self.device = _device_of(model) if device is None else resolve(device)
        self.goal = Goal(None, None, None)
        self.progress = Progress()
        self._step = step if step is not None else from_loss(loss)  # type: ignore[arg-type]
        self._schedule = "evaluation" if isinstance(scheduler, ReduceLROnPlateau) else schedule
        self._count = count or samples
        if isinstance(autocast, DType):
            autocast = functools.partial(amp.autocast, self.device.type, autocast)
        self._autocast = autocast or nullcontext
        self._update = Update(model, optimizer, self._observed_step, clip_norm=clip_norm,
                              clip_value=clip_value, nonfinite=nonfinite,
                              autocast=self._autocast, scaler=scaler)
        self._interval, self._epoch = Means(), Means()
        self._mark = (0.0, 0)  # seconds and samples at the last record of training
        self._feed: Feed | None = None
        self._val: Iterable[Any] | None = None
        self._interrupt = Interrupt()
        self._stop: tuple[str, str] | None = None  # status and reason
        self._value: tuple[int, float] | None = None  # step and monitored value evaluated last
        self._clock = 0.0
        self._saved: tuple[int, int, bool] | None = None  # the place of the newest checkpoint
        self._folder = None if folder is None else Path(folder)
        self._store = None if self._folder is None else Store(self._folder, self.checkpoints,
                                                              self.monitor)
        self._own = plain(config or {})
        self.run = Run({}, {}, folder=self._folder)
        given = list(callbacks)
        if self._folder is not None:
            given.insert(0, JsonLines(self._folder / LOG))
        self.callbacks = Callbacks(given)
        if display != "none":
            self.callbacks.add(display_for(display))

    # --- what users call --------------------------------------------------------------------

    def fit(self, train: Iterable[Any], val: Iterable[Any] | None = None, *,
            epochs: int | None = None, steps: int | None = None,
            evaluate_every: int | None = None, resume: bool | str | os.PathLike[str] = False,
            overwrite: bool = False) -> Run:
        """Train until `epochs` epochs or `steps` steps are done, counted from the run's beginning.

        `val` is evaluated after each epoch, or every `evaluate_every` steps.  Called again, `fit`
        goes on from where it stopped.

        A folder with an earlier run is refused (MlgpuError) unless `resume=True`, which goes on
        from its newest checkpoint if there is one, or `overwrite=True`, which begins anew.
        `resume=path` goes on from that checkpoint.  On the CPU the losses are then those of a run
        that was never interrupted, bit for bit.

        Ctrl-C lets the step end, writes a checkpoint and returns; a second Ctrl-C raises
        KeyboardInterrupt at once.
        """
        _check_positive(epochs=epochs, steps=steps, evaluate_every=evaluate_every)
        if epochs is None and steps is None:
            raise ValueError("Trainer.fit: say how long, epochs= or steps=")
        if resume and overwrite:
            raise ValueError("Trainer.fit: give either resume or overwrite")
        self.goal = Goal(epochs, steps, evaluate_every)
        with ExitStack() as stack:
            if self._folder is not None:
                stack.enter_context(store.locked(self._folder))
            self._prepare(train, val, resume, overwrite)
            self._interrupt = stack.enter_context(Interrupt())
            try:
                self._fit()
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                self.progress.seconds, self._clock = self._seconds(), time.perf_counter()
        return self.run

    @property
    def total_steps(self) -> int | None:
        """The steps that `fit` will have taken in all, where its loader has a length."""
        batches = None if self._feed is None else self._feed.total
        totals = [self.goal.steps]
        if self.goal.epochs is not None and batches is not None:
            totals.append(self.goal.epochs * -(-batches // self.accumulate))
        return min((total for total in totals if total is not None), default=None)

    @property
    def epoch(self) -> int:
        """The epoch that the run is in, from 1; between epochs, the one that has ended."""
        return self.progress.epoch + (self._feed is not None and self._feed.within)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed, so that the run ends after its step."""
        return self._interrupt.asked

    def evaluate(self, loader: Iterable[Any]) -> dict[str, float]:
        """The loss and the metrics of the model as it is, by name.

        Means are over samples.  Nothing of the training is disturbed: not the model's mode, no
        random state.
        """
        values = self._evaluated(loader, lambda done: True)
        assert values is not None
        return values

    def stop(self, reason: str) -> None:
        """Let the run end after the step that it is in."""
        self._stop = self._stop or ("stopped", reason)

    def load_best(self) -> Best:
        """Give the model the parameters of the best checkpoint.  MlgpuError where there is none."""
        best = self.run.best
        if best is None or best.path is None:
            raise MlgpuError("Trainer.load_best: there is no best checkpoint; that takes a folder "
                             "and an evaluation (val=)")
        self._checked_store().finish()
        self.model.load_state_dict(store.read(best.path)["model"])
        return best

    def state_dict(self) -> dict[str, Any]:
        """Everything that the run consists of, as a checkpoint holds it."""
        feed = self._checked_feed()
        return {
            "version": store.VERSION,
            "progress": {**asdict(self.progress), "seconds": self._seconds()},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": random_state(),
            "feed": feed.state_dict(),
            "interval": self._interval.state_dict(),
            "means": self._epoch.state_dict(),
            "mark": list(self._mark),
            "train_metrics": {name: state_of(m) for name, m in self.train_metrics.items()},
            "also": {name: state_of(part) for name, part in self.also.items()},
            "callbacks": self.callbacks.state_dict(),
            "accumulate": self.accumulate,
            "records": len(self.run.history),
            "best": (None if self.run.best is None else
                     [self.run.best.step, self.run.best.value, self.run.best.monitor]),
            "summary": self.run.summary,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, with the loader of this `fit`."""
        state = unpacked(dict(state))
        for name in ("scheduler", "scaler"):
            if (state[name] is None) != (getattr(self, name) is None):
                has = "none" if state[name] is None else "one"
                raise FormatError(f"Trainer: the checkpoint has {has} for {name}=; resume with "
                                  "what the run was begun with")
        for name, ours in (("train_metrics", self.train_metrics), ("also", self.also)):
            if set(state[name]) != set(ours):
                raise FormatError(f"Trainer: the checkpoint has {sorted(state[name])} for {name}=, "
                                  f"the Trainer {sorted(ours)}; resume with what the run was begun "
                                  "with")
        if state["accumulate"] != self.accumulate:
            raise FormatError(f"Trainer: the run was begun with accumulate={state['accumulate']}, "
                              f"this one has {self.accumulate}; the losses would be others")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        for ours, theirs in ((self.train_metrics, state["train_metrics"]),
                             (self.also, state["also"])):
            for name, part in ours.items():
                set_state_of(part, theirs[name], name)
        self._interval.load_state_dict(state["interval"])
        self._epoch.load_state_dict(state["means"])
        self._mark = (state["mark"][0], state["mark"][1])
        self.callbacks.load_state_dict(state["callbacks"])
        self.run.summary = state["summary"]
        if self.run.summary is not None:
            self._update.step = self._step
        self.progress = Progress(**state["progress"])
        if state["best"] is not None:
            step, value, monitor = state["best"]
            if monitor == self.monitor.name:
                best = self._best_of(step, value)
                # Where a run goes on in another folder, that one's best stays there.
                here = best.path is not None and best.path.exists()
                self.run.best = best if here else replace(best, path=None)
        self._checked_feed().load_state_dict(state["feed"])
        set_random_state(state["random"])  # last: what is above may have drawn

    # --- before and after -------------------------------------------------------------------

    def _prepare(self, train: Iterable[Any], val: Iterable[Any] | None,
                 resume: bool | str | os.PathLike[str], overwrite: bool) -> None:
        """The feed, the earlier run in the folder, and what the run says of itself."""
        before = self._feed
        if before is not None and (overwrite or not isinstance(resume, bool)):
            raise ValueError("Trainer.fit: this Trainer has trained already and goes on from where "
                             "it is; for a run from elsewhere, or anew, make another Trainer")
        within = before is not None and before.within
        if before is not None and within and before.loader is not train:
            raise MlgpuError("Trainer.fit: the last fit stopped within an epoch; go on with the "
                             "same loader")
        self._feed, self._val = before if within else Feed(train), val
        self._clock = time.perf_counter()
        if before is None:
            self._begin(resume, overwrite)
        self.optimizer.zero_grad()
        self.model.train()
        self._stop = None
        self.run.status, self.run.reason = "running", ""
        self.run.environment = environment()
        self.run.config = {**configuration(self, train), **self._own}

    def _begin(self, resume: bool | str | os.PathLike[str], overwrite: bool) -> None:
        """The first `fit`: anew, or from a checkpoint."""
        latest = None if self._store is None else self._store.latest
        if resume is True or resume is False:
            if latest is not None and not (resume or overwrite):
                raise MlgpuError(
                    f"Trainer.fit: {str(self._folder)!r} has a run up to step "
                    f"{self._checked_store().entries[-1].step}; pass resume=True to go on with "
                    "it, overwrite=True to begin anew, or choose another folder")
            if resume and self._store is None:
                raise ValueError("Trainer.fit: resume=True needs the folder of the run; pass "
                                 "folder= to the Trainer, or resume=path")
            path = latest if resume else None
        else:
            path = Path(resume)
        if self._store is not None:
            self._store.clear() if overwrite else self._store.tidy()
        if path is None:
            return
        state = store.read(path)
        ours = self._store is not None and path.resolve().parent == self._store.folder.resolve()
        if self._store is not None and latest is not None and not (
                ours and path.name == latest.name):
            raise MlgpuError(
                f"Trainer.fit: {str(self._folder)!r} has a run up to step "
                f"{self._store.entries[-1].step}, which {str(path)!r} is not the end of; choose "
                "another folder, or pass resume=True")
        self._history_of(path, state["records"])
        self.load_state_dict(state)
        if ours:
            self._saved = self._place()

    def _history_of(self, checkpoint: Path, records: int) -> None:
        log = checkpoint.parent.parent / LOG
        history = read_log(log).history if log.exists() else []
        if len(history) < records:
            warnings.warn(f"Trainer: the log beside {str(checkpoint)!r} has {len(history)} of "
                          f"{records} records; the curves of the run have a gap", stacklevel=4)
        self.run.history = history[:records]

    def _fail(self, error: BaseException) -> None:
        """Tell everybody; a checkpoint that could not be written is shown with the error."""
        self.run.status, self.run.reason = "failed", f"{type(error).__name__}: {error}"
        self._tell()
        further = [None if self._store is None else self._store.settle()]
        try:
            self.callbacks.on_exception(self, error)
        except Exception as raised:
            further.append(raised)
        for other in further:
            if other is not None and other is not error:
                _first_of(error).__context__ = other

    def _tell(self) -> None:
        """What of the progress the run shows."""
        self.run.step, self.run.epoch = self.progress.step, self.progress.epoch
        self.run.seconds = self._seconds()

    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._clock

    # --- the loop ---------------------------------------------------------------------------

    def _fit(self) -> None:
        feed = self._checked_feed()
        self._tell()
        self.callbacks.on_fit_begin(self)
        if self.progress.due:
            self._evaluate()
        while not self._ended():
            if not feed.within:
                feed.begin()
                self.callbacks.on_epoch_begin(self)
            batches = feed.take(self.accumulate)
            if batches:
                self._take_step(batches)
            elif feed.batches == 0:
                raise MlgpuError(f"Trainer.fit: the loader gave no batch in epoch "
                                 f"{self.progress.epoch + 1}; an iterator is used up after one "
                                 "pass, give a loader that can be iterated again")
            else:
                self._end_epoch()
        self._save()
        if self._store is not None:
            self._store.finish()
        self.run.status, self.run.reason = self._stop or ("finished", "")
        self._tell()
        self.callbacks.on_fit_end(self, self.run)

    def _ended(self) -> bool:
        if self._interrupt.asked and self._stop is None:
            self._stop = ("interrupted", "Ctrl-C")
        goal, progress = self.goal, self.progress
        return (self._stop is not None
                or (goal.epochs is not None and progress.epoch >= goal.epochs)
                or (goal.steps is not None and progress.step >= goal.steps))

    def _take_step(self, batches: list[Any]) -> None:
        if self._store is not None:
            self._store.check()
        progress = self.progress
        where = (f"step {progress.step + 1} (epoch {progress.epoch + 1}, batch "
                 f"{self._checked_feed().batches})")
        counts = [self._count(batch) for batch in batches]
        moved = (move(batch, self.device) for batch in batches)  # one at a time
        values = self._update(moved, counts, where,
                              lambda named: update_metrics(self.train_metrics, named))
        progress.step += 1
        progress.samples += sum(counts)
        if values is None:
            progress.skipped += 1
        else:
            self._interval.add(values, sum(counts))
        if self.scheduler is not None and self._schedule == "step":
            self.scheduler.step()
        self._tell()
        self.callbacks.on_step_end(self)
        if progress.step % self.log_every == 0:
            self._log_interval()
        every = self.goal.evaluate_every
        if every is not None and progress.step % every == 0:
            self._evaluate()
        every = self.checkpoints.every_steps
        if every is not None and progress.step % every == 0:
            self._save()

    def _observed_step(self, model: Module, batch: Any) -> Any:
        """The step of the very first batch, which shows what the model is made of."""
        with observed(model) as seen:
            output = self._step(model, batch)
        self.run.summary = seen.summary().as_dict()
        self._update.step = self._step
        return output

    def _end_epoch(self) -> None:
        self._gather()
        values = {**self._epoch.means(), **computed(self.train_metrics)}
        self._epoch.clear()
        for metric in self.train_metrics.values():
            metric.reset()
        self.progress.epoch += 1
        if self.scheduler is not None and self._schedule == "epoch":
            self.scheduler.step()
        self._record("epoch", values)
        self.callbacks.on_epoch_end(self)
        if self.goal.evaluate_every is None:
            self._evaluate()
        every = self.checkpoints.every_epochs
        if every is not None and self.progress.epoch % every == 0:
            self._save()

    # --- records ----------------------------------------------------------------------------

    def _gather(self) -> None:
        """Let the epoch's means have what the interval's have read."""
        for values, weight in self._interval.settle():
            self._epoch.add(values, weight)

    def _log_interval(self) -> None:
        self._gather()
        values = self._interval.means()
        self._interval.clear()
        seconds, (before, samples_before) = self._seconds(), self._mark
        self._mark = (seconds, self.progress.samples)
        for number, group in enumerate(self.optimizer.param_groups):
            values["lr" if number == 0 else f"lr_{number}"] = float(group["lr"])
        values["samples_per_second"] = ((self.progress.samples - samples_before)
                                        / max(seconds - before, 1e-9))
        values["memory"] = float(memory.stats(self.device).peak)
        if self.progress.skipped:
            values["skipped"] = float(self.progress.skipped)
        if self.scaler is not None and hasattr(self.scaler, "get_scale"):
            values["loss_scale"] = float(self.scaler.get_scale())
        values.update(self.callbacks.measure(self))
        self._record("train", values)

    def _record(self, kind: str, values: dict[str, float]) -> None:
        self._tell()
        record = Record(kind, self.progress.step, self.epoch, self.run.seconds, values)
        self.run.history.append(record)
        self.callbacks.on_record(self, record)

    # --- evaluation -------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Evaluate, keep the best, and let schedule and callbacks know; unless interrupted."""
        if self._val is None:
            return
        self.progress.due = True
        began = self._seconds()
        total = length(self._val)
        self.callbacks.on_evaluation_begin(self)

        def after_batch(done: int) -> bool:
            self.callbacks.on_evaluation_batch(self, done, total)
            return not self._interrupt.asked

        found = self._evaluated(self._val, after_batch)
        self._mark = (self._mark[0] + self._seconds() - began, self._mark[1])
        if found is None:
            return
        self.progress.due = False
        values = {f"val_{name}": value for name, value in found.items()}
        value = self.monitor.of(values)
        if self._schedule == "evaluation" and self.scheduler is not None:
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(value)
            else:
                self.scheduler.step()
        best = self.run.best
        improved = self.monitor.better(value, None if best is None else best.value)
        if improved:
            self.run.best = self._best_of(self.progress.step, value)
        self._record("evaluation", values)
        self._value = (self.progress.step, value)
        if improved and self.checkpoints.keep_best:
            self._save()

    def _evaluated(self, loader: Iterable[Any], after_batch: Callable[[int], bool]
                   ) -> dict[str, float] | None:
        return evaluate(self.model, self._step, loader, self.device, self.metrics, self._count,
                        self._autocast, after_batch)

    def _best_of(self, step: int, value: float) -> Best:
        kept = self._store is not None and self.checkpoints.keep_best > 0
        return Best(step, self.monitor.name, value,
                    self._checked_store().path(step) if kept else None)

    # --- checkpoints ------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint in the background, unless the newest is of this very place."""
        place = self._place()
        if self._store is None or self._saved == place:
            return
        self._gather()
        value = self._value[1] if self._value and self._value[0] == self.progress.step else None
        self.callbacks.on_checkpoint(self, self._store.path(self.progress.step))
        self._store.write(self.state_dict(), self.progress.step, value)
        self._saved = place

    def _place(self) -> tuple[int, int, bool]:
        """What tells two states of a run apart: steps, epochs, whether an evaluation is missing."""
        return self.progress.step, self.progress.epoch, self.progress.due

    def _checked_store(self) -> Store:
        assert self._store is not None
        return self._store

    def _checked_feed(self) -> Feed:
        if self._feed is None:
            raise MlgpuError("Trainer: the state of a run has a place in its data, which begins "
                             "with fit")
        return self._feed


def _device_of(model: Module) -> Device:
    first = next(model.parameters(), None)
    return current_device() if first is None else first.device


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Trainer: {name} must be one of {choices}, got {value!r}")


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"Trainer: {name} must be above 0, got {value}")


def _first_of(error: BaseException) -> BaseException:
    """The error at the end of the chain that `error`'s traceback shows."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
