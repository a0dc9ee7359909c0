"""Cyclical rates (Smith 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, per_group, set_momentum, set_rate
from mlgpu.optim.optimizer import Optimizer

_MODES = ("triangular", "triangular2", "exp_range")


class CyclicLR(LRScheduler):
    """The rate rises from base_lr to max_lr in `step_size_up` steps and falls again, over and over.

    `mode`: each cycle alike ("triangular"), half as high as the one before ("triangular2"), or
    `gamma`^step as high ("exp_range"); or `scale_fn` of the cycle's number (from 1), or of the step
    if `scale_mode` is "iterations".  The momentum (or Adam's beta1) moves the other way.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, base_lr: float | list[float],
                 max_lr: float | list[float], step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | list[float] = 0.8,
                 max_momentum: float | list[float] = 0.9, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"CyclicLR: expected an Optimizer, got {type(optimizer).__name__}")
        if scale_fn is None and mode not in _MODES:
            raise ShapeError(f"CyclicLR: mode must be one of {_MODES}, got {mode!r}")
        lowest = per_group("CyclicLR", "base_lr", optimizer, base_lr)
        self.max_lrs = per_group("CyclicLR", "max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self.scale_mode = scale_mode if scale_fn is not None else (
            "iterations" if mode == "exp_range" else "cycle")
        self._scale_fn = scale_fn
        self.cycle_momentum = cycle_momentum
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, lowest, strict=True):
                set_rate(group, rate)
        if cycle_momentum:
            if not {"momentum", "betas"} & optimizer.defaults.keys():
                raise ShapeError("CyclicLR: the optimizer has neither momentum nor betas; pass "
                                 "cycle_momentum=False")
            self.base_momentums = per_group("CyclicLR", "base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("CyclicLR", "max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                for group, low, high in zip(optimizer.param_groups, self.base_momentums,
                                            self.max_momentums, strict=True):
                    group["max_momentum"], group["base_momentum"] = high, low
                    set_momentum(group, high)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lowest

    def _foreseeable(self) -> bool:
        return self._scale_fn is None and super()._foreseeable()

    def scale_fn(self, x: float) -> float:
        """How high cycle (or step) x is, of 1."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        if self.mode == "triangular":
            return 1.0
        return float(self.gamma ** x) if self.mode == "exp_range" else 1 / 2.0 ** (x - 1)

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        place = 1 + self.last_epoch / self.total_size - cycle
        ratio = self.step_ratio
        height = place / ratio if place <= ratio else (place - 1) / (ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums,
                                        self.max_momentums, strict=True):
                set_momentum(group, high - (high - low) * height * scale)
        return [low + (high - low) * height * scale
                for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and a plain function; attributes of a callable object."""
        kept = None if self._scale_fn is None or isinstance(self._scale_fn, FunctionType) else (
            dict(vars(self._scale_fn)))
        return {**super().state_dict(), "_scale_fn": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; a plain function stays that given here."""
        kept = state_dict["_scale_fn"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn"})
        if kept is not None:
            vars(self._scale_fn).update(kept)
