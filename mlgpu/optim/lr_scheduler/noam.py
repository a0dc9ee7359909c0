"""The schedule of the first transformer (Vaswani et al. 2017, section 5.3)."""

from __future__ import annotations

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler
from mlgpu.optim.optimizer import Optimizer


class NoamLR(LRScheduler):
    """The rate times model_size^-0.5 * min(n^-0.5, n * warmup_steps^-1.5) at step n = 1, 2, ...

    It rises evenly for `warmup_steps`, then falls with the root of the step.
    """

    _closed = True

    def __init__(self, optimizer: Optimizer, model_size: int, warmup_steps: int = 4000,
                 last_epoch: int = -1) -> None:
        for name, value in (("model_size", model_size), ("warmup_steps", warmup_steps)):
            if value < 1:
                raise ShapeError(f"NoamLR: {name} must be positive, got {value}")
        self.model_size = model_size
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch + 1
        factor = self.model_size ** -0.5 * min(step ** -0.5, step * self.warmup_steps ** -1.5)
        return [base * factor for base in self.base_lrs]
