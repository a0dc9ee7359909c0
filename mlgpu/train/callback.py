"""Callbacks: what is told of a run's events, and may stop it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlgpu.errors import FormatError

if TYPE_CHECKING:
    from mlgpu.train.record import Record, Run
    from mlgpu.train.trainer import Trainer


class Callback:
    """Derive from it and define what you want to be told of; `trainer.stop(reason)` ends the run.

    What a callback raises ends the run and leaves the last checkpoint as it is.  A callback whose
    `state_dict` is not empty is part of checkpoints.
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step of `fit`, after a checkpoint was restored."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch is asked for; not where one is resumed."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each step of the optimizer."""

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Values of its own for the record that is made of the last steps."""
        return {}

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """A record was made: every `log_every` steps, at an epoch's end, after an evaluation."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch, before its evaluation."""

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        """Before the first batch of an evaluation."""

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int | None) -> None:
        """After each batch of an evaluation; `total` where the loader has a length."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """A checkpoint begins to be written to `path`."""

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        """At the end of `fit`, however it comes about but for an exception."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Instead of `on_fit_end`, where something was raised, which is raised again after."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know: values that `mlgpu.save` takes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if state:
            raise FormatError(f"{type(self).__name__}: has no state, got the keys {sorted(state)}")


class Callbacks(Callback):
    """Several callbacks as one, in their order."""

    def __init__(self, members: Iterable[Callback]) -> None:
        self.members: list[Callback] = []
        for member in members:
            self.add(member)

    def add(self, member: Callback) -> None:
        """Let one more be told, after the others."""
        if not isinstance(member, Callback):
            raise TypeError("Trainer: a callback must derive from mlgpu.train.Callback, got "
                            f"{type(member).__name__}")
        self.members.append(member)

    def on_fit_begin(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_fit_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_epoch_begin(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_step_end(trainer)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        found: dict[str, float] = {}
        for member in self.members:
            found.update(member.measure(trainer))
        return found

    def on_record(self, trainer: Trainer, record: Record) -> None:
        for member in self.members:
            member.on_record(trainer, record)

    def on_epoch_end(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_epoch_end(trainer)

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_evaluation_begin(trainer)

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int | None) -> None:
        for member in self.members:
            member.on_evaluation_batch(trainer, done, total)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        for member in self.members:
            member.on_checkpoint(trainer, path)

    def on_fit_end(self, trainer: Trainer, run: Run) -> None:
        self._all([(member.on_fit_end, (trainer, run)) for member in self.members])

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._all([(member.on_exception, (trainer, error)) for member in self.members])

    def _all(self, calls: list[tuple[Any, tuple[Any, ...]]]) -> None:
        """Make every call, so that all can close what they opened; then raise what one raised."""
        first: Exception | None = None
        for call, arguments in calls:
            try:
                call(*arguments)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, member in self._named()
                if (state := member.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each its part; one that the checkpoint does not know begins anew."""
        for name, member in self._named():
            if name in state:
                member.load_state_dict(state[name])

    def _named(self) -> list[tuple[str, Callback]]:
        counts: dict[str, int] = {}
        named = []
        for member in self.members:
            kind = type(member).__name__
            counts[kind] = counts.get(kind, 0) + 1
            named.append((kind if counts[kind] == 1 else f"{kind}#{counts[kind]}", member))
        return named
