"""The 1cycle policy (Smith and Topin 2018)."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, per_group, set_momentum
from mlgpu.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """The rate rises from max_lr / div_factor to max_lr, then falls far below where it began.

    The rise takes `pct_start` of `total_steps` (or epochs * steps_per_epoch); the end is the first
    rate / final_div_factor.  With `three_phase` it falls to the first rate in as many steps as it
    rose in, then to the end.  The momentum (or Adam's beta1) moves the other way.
    Raises ShapeError (a ValueError) when stepped more than total_steps times.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, max_lr: float | list[float],
                 total_steps: int | None = None, epochs: int | None = None,
                 steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | list[float] = 0.85,
                 max_momentum: float | list[float] = 0.95, div_factor: float = 25.0,
                 final_div_factor: float = 1e4, three_phase: bool = False, last_epoch: int = -1
                 ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"OneCycleLR: expected an Optimizer, got {type(optimizer).__name__}")
        if not 0 <= pct_start <= 1 or not isinstance(pct_start, float):
            raise ShapeError(f"OneCycleLR: pct_start must be a float in [0, 1], got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ShapeError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got "
                             f"{anneal_strategy!r}")
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.phases = _phases(pct_start, self.total_steps, three_phase)
        peaks = per_group("OneCycleLR", "max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["initial_lr"] = peak / div_factor
                group["max_lr"] = peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self._prepare_momentum(optimizer, base_momentum, max_momentum, last_epoch == -1)
        super().__init__(optimizer, last_epoch)

    def _prepare_momentum(self, optimizer: Optimizer, base: Any, peak: Any, fresh: bool) -> None:
        if not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ShapeError("OneCycleLR: the optimizer has neither momentum nor betas; pass "
                             "cycle_momentum=False")
        low = per_group("OneCycleLR", "base_momentum", optimizer, base)
        high = per_group("OneCycleLR", "max_momentum", optimizer, peak)
        if fresh:
            for group, least, most in zip(optimizer.param_groups, low, high, strict=True):
                group["max_momentum"], group["base_momentum"] = most, least
                set_momentum(group, most)

    def _between(self, start: float, end: float, part: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * part + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ShapeError(f"OneCycleLR: step {step} is past the last of {self.total_steps} "
                             "total steps")
        start = 0.0
        for end, *names in self.phases:  # noqa: B007
            if step <= end:
                break
            start = end
        else:
            start = self.phases[-2][0]
        part = (step - start) / (end - start)
        first_lr, last_lr, first_momentum, last_momentum = names
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[first_lr], group[last_lr], part))
            if self.cycle_momentum:
                set_momentum(group, self._between(group[first_momentum], group[last_momentum],
                                                   part))
        return rates


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is None and epochs is not None and steps_per_epoch is not None:
        total = epochs * steps_per_epoch
        if epochs > 0 and total > 0:
            return total
    elif total_steps is not None and total_steps > 0:
        return total_steps
    raise ShapeError("OneCycleLR: expected a positive total_steps, or positive epochs and "
                     f"steps_per_epoch, got {total_steps}, {epochs} and {steps_per_epoch}")


def _phases(pct_start: float, total: int, three: bool) -> list[list[Any]]:
    """Each phase's last step, and the group settings it leads from and to."""
    rise = [pct_start * total - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum"]
    if not three:
        return [rise, [total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"]]
    return [rise,
            [2 * pct_start * total - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"],
            [total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"]]
