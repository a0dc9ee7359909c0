"""A schedule by what the training achieves."""

from __future__ import annotations

from typing import Any, SupportsFloat

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import (
    LRScheduler,
    follows_replays,
    per_group,
    set_rate,
)
from mlgpu.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by `factor` when a metric has not improved for `patience` steps.

    Better is lower with mode "min", higher with "max", by more than `threshold` (a fraction of
    the best with threshold_mode "rel").  After a reduction `cooldown` steps do not count.  The rate
    stays above `min_lr`; changes smaller than `eps` are not made.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: str = "rel",
                 cooldown: int = 0, min_lr: float | list[float] = 0, eps: float = 1e-8) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError("ReduceLROnPlateau: expected an Optimizer, got "
                            f"{type(optimizer).__name__}")
        if factor >= 1:
            raise ShapeError(f"ReduceLROnPlateau: factor must be below 1, got {factor}")
        if mode not in ("min", "max"):
            raise ShapeError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ShapeError("ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got "
                             f"{threshold_mode!r}")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lrs = per_group("ReduceLROnPlateau", "min_lr", optimizer, min_lr)
        self.eps = eps
        self.best = float("inf") if mode == "min" else float("-inf")
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self.last_epoch = 0
        self._last_lr = self.current()

    @property
    def in_cooldown(self) -> bool:
        """Whether bad steps do not count at present."""
        return self.cooldown_counter > 0

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            margin = self.best * (1.0 + sign * self.threshold)
        else:
            margin = self.best + sign * self.threshold
        return metric > margin if self.mode == "max" else metric < margin

    @follows_replays
    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take the metric of one step into account."""
        metric = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self.current()

    def _reduce(self) -> None:
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            raise ShapeError(f"ReduceLROnPlateau: there are {len(groups)} parameter groups now but "
                             f"min_lrs for {len(self.min_lrs)}; extend `min_lrs`")
        for group, least in zip(groups, self.min_lrs, strict=True):
            before = float(group["lr"])
            after = max(before * self.factor, least)
            if before - after > self.eps:
                set_rate(group, after)
