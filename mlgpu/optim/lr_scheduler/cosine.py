"""Cosine annealing (Loshchilov and Hutter 2017), with and without restarts."""

from __future__ import annotations

import math

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, follows_replays
from mlgpu.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """eta_min + (rate - eta_min) (1 + cos(pi step / T_max)) / 2.

    Computed from the rate of the step before, so that other schedules may act beside it; past
    T_max the rate rises again.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self.current()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The step before was the minimum, where the quotient below would be 0 / 0.
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - self.eta_min) * rise
                    for base, rate in zip(self.base_lrs, self.current(), strict=True)]
        height, before = (1 + math.cos(math.pi * step / self.T_max)
                          for step in (self.last_epoch, self.last_epoch - 1))
        return [height / before * (rate - self.eta_min) + self.eta_min for rate in self.current()]

    def _get_closed_form_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing from the first rate to `eta_min`, again and again.

    The first period takes T_0 steps, each later one T_mult times as many as the one before.
    `step(epoch)` takes fractions too.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise ShapeError(f"CosineAnnealingWarmRestarts: {name} must be a positive int, "
                                 f"got {value!r}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]

    @follows_replays
    def step(self, epoch: float | None = None) -> None:
        """Set the rates of the next step, or of step `epoch`."""
        if epoch is None and self.last_epoch >= 0:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            if epoch < 0:
                raise ShapeError(f"CosineAnnealingWarmRestarts: epoch must be >= 0, got {epoch}")
            self._locate(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _locate(self, epoch: float) -> None:
        """Find the period that `epoch` lies in, and its place there."""
        self.T_i, self.T_cur = self.T_0, epoch
        if epoch < self.T_0:
            return
        if self.T_mult == 1:
            self.T_cur = epoch % self.T_0
            return
        periods = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
        start = self.T_0 * (self.T_mult ** periods - 1) / (self.T_mult - 1)
        self.T_cur = epoch - start
        self.T_i = self.T_0 * self.T_mult ** periods
