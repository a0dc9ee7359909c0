"""Optimizers and learning rate schedules, as torch.optim."""

from __future__ import annotations

from mlgpu.optim import lr_scheduler
from mlgpu.optim.adam import Adam, AdamW
from mlgpu.optim.optimizer import Optimizer
from mlgpu.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
