"""Schedules made of schedules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.plateau import ReduceLROnPlateau
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, follows_replays, set_rate
from mlgpu.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """What holds other schedules of one optimizer."""

    _schedulers: Sequence[LRScheduler]

    def _adopt(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ShapeError(f"{name}: ReduceLROnPlateau needs a metric at each step and "
                                 "cannot be combined; step it by itself")
            if scheduler.optimizer is not optimizer:
                raise ShapeError(f"{name}: all schedulers must belong to the same optimizer")
        self._schedulers = schedulers
        self.optimizer = optimizer

    def _foreseeable(self) -> bool:
        return super()._foreseeable() and all(s._foreseeable() for s in self._schedulers)

    def _place(self) -> Any:
        return [scheduler._place() for scheduler in self._schedulers]

    def _rewind(self) -> None:
        for scheduler in self._schedulers:
            if isinstance(scheduler, _Combined):
                scheduler._rewind()
            else:
                scheduler.last_epoch -= 1

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the state_dicts of the schedulers within."""
        return {**super().state_dict(),
                "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Combined):
    """One schedule after the other: at each of `milestones` the next one begins, at its step 0.

    ShapeError (a ValueError) unless there is one milestone fewer than schedulers.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler],
                 milestones: Sequence[int], last_epoch: int = -1) -> None:
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ShapeError("SequentialLR: expected one milestone fewer than schedulers, got "
                             f"{len(milestones)} for {len(schedulers)}")
        self._adopt(optimizer, schedulers)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # The schedulers' own first steps have changed the rates: undo them, and begin again.
        for group in optimizer.param_groups:
            set_rate(group, float(group["initial_lr"]))
        self._rewind()
        first = schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    @follows_replays
    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step; a jump to `epoch` is not supported."""
        if epoch is not None:
            raise ShapeError("SequentialLR: cannot jump to a step; load a state_dict instead")
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        if number > 0 and self._milestones[number - 1] == self.last_epoch:
            scheduler.step(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Combined):
    """Several schedules at once, each changing the rates that the one before has set."""

    _closed = True

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
                 ) -> None:
        if not schedulers:
            raise ShapeError("ChainedScheduler: expected at least one scheduler")
        self._adopt(optimizer or schedulers[0].optimizer, schedulers)
        self._last_lr = self.current()

    @follows_replays
    def step(self, epoch: int | None = None) -> None:
        """Step all schedules."""
        for scheduler in self._schedulers:
            scheduler.step(epoch)
        self._last_lr = self.current()
