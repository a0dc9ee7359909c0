"""Learning rate schedules, as torch.optim.lr_scheduler."""

from __future__ import annotations

from mlgpu.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from mlgpu.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from mlgpu.optim.lr_scheduler.cyclic import CyclicLR
from mlgpu.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from mlgpu.optim.lr_scheduler.noam import NoamLR
from mlgpu.optim.lr_scheduler.one_cycle import OneCycleLR
from mlgpu.optim.lr_scheduler.plateau import ReduceLROnPlateau
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
           "CyclicLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
           "MultiplicativeLR", "NoamLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau",
           "SequentialLR", "StepLR"]
